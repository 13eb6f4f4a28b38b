"""Ctrl-C and SIGTERM: a clean stop, and the exit code that shells give to either."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Never, ParamSpec

from stg_tune.errors import TerminatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from sys import UnraisableHookArgs

_Words = ParamSpec("_Words")

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit codes after a clean stop: Ctrl-C (130), SIGTERM (143)."""
PATIENCE = 0.5
"""Seconds after which a stop that was lost is tried again."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM stop what is inside as Ctrl-C does; a second one changes nothing.

    Raises:
        TerminatedError: A ``KeyboardInterrupt``, when SIGTERM has come.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield
        return
    before, hook = signal.signal(signal.SIGTERM, _stop), sys.unraisablehook
    sys.unraisablehook = _noting(hook)
    try:
        with _HELD.noted(), _translated():
            yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _translated() -> Iterator[None]:
    """What Ray makes of SIGTERM, with a handler of its own or when this one's error comes up inside its waiting."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if _HELD.stopping or (isinstance(stop, SystemExit) and stop.code == signal.SIGTERM):
            raise TerminatedError from None
        raise


def held(progress: Callable[_Words, None]) -> Callable[_Words, None]:
    """The same progress; with each word of it, SIGTERM is taken back from a library that has claimed it since.

    Ray does so when it starts, which is between the first two words. Its handler logs a stack trace, and ends the
    process within seconds however far it is with its clean stop.
    """

    def told(*words: _Words.args, **more: _Words.kwargs) -> None:
        if _HELD.swallowed:
            _HELD.swallowed = False
            _stop(signal.SIGTERM, None)
        _take_back()
        progress(*words, **more)

    return told


def _take_back() -> None:
    if _HELD.depth and not _HELD.stopping and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)


def code_of(stop: KeyboardInterrupt) -> int:
    """The exit code after a clean stop."""
    return TERMINATED if isinstance(stop, TerminatedError) else INTERRUPTED


class _Held:
    """Whether this module answers to SIGTERM, whether one has come, and whether native code has swallowed it."""

    def __init__(self) -> None:
        self.depth, self.stopping, self.swallowed = 0, False, False

    @contextmanager
    def noted(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            if not self.depth:
                self.stopping = self.swallowed = False


_HELD = _Held()


def _noting(hook: Callable[[UnraisableHookArgs], object]) -> Callable[[UnraisableHookArgs], object]:
    """A stop that came while native code could not be left is made up for at the next word, or after a moment."""

    def told(unraisable: UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if isinstance(error, TerminatedError) or (isinstance(error, SystemExit) and error.code == signal.SIGTERM):
            _HELD.swallowed = True
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, _stop)
                threading.Timer(PATIENCE, _again).start()
        else:
            hook(unraisable)

    return told


def _again() -> None:
    if _HELD.swallowed:
        _HELD.swallowed = False
        os.kill(os.getpid(), signal.SIGTERM)


def _stop(number: int, frame: object) -> Never:
    _HELD.stopping = True
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise TerminatedError
