"""What a search shows while it works: a live board on a terminal with a cursor to move, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Group

    from stg_tune.records import GuidanceSpec
    from stg_tune.search.progress import Progress, ProgressEvent, Standing

PLAIN_EVERY = 15.0
"""Seconds between two plain lines of one stage."""
SHOWN = 3
"""Settings under evaluation that are named."""


@contextmanager
def watching(*, quiet: bool) -> Iterator[Progress]:
    """A ``Progress`` that writes to standard error, or nowhere."""
    if quiet:
        yield _silent
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _live() as show:
            yield show
    else:
        yield PlainLines(lambda line: print_line(line))


class PlainLines:
    """A line at the start of each stage, and one every ``PLAIN_EVERY`` seconds.

    Args:
        write: Takes one line.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._stage = ""
        self._last = -PLAIN_EVERY

    def __call__(self, event: ProgressEvent) -> None:
        """Write when it is time."""
        if event.stage != self._stage or self._clock() - self._last >= PLAIN_EVERY:
            self._stage, self._last = event.stage, self._clock()
            self._write(line(event))


def line(event: ProgressEvent) -> str:
    """``search: 212 of 600 evaluations; best trial 9: +0.42 [+0.10, +0.74] in-sample; 4:10 left``."""
    parts = [f"{event.stage}: {event.done} of {event.total} evaluations", best(event.best), left(event.seconds_left)]
    return "; ".join(part for part in parts if part)


def details(event: ProgressEvent) -> list[str]:
    """What stands under the bars: the best setting so far, how many work, and on what."""
    workers = f"{event.workers} worker{'' if event.workers == 1 else 's'}"
    current = [_words(spec) for spec in event.current[:SHOWN]]
    more = [f"and {len(event.current) - SHOWN} more"] if len(event.current) > SHOWN else []
    return [text for text in (best(event.best), " | ".join([workers, *current, *more])) if text]


def best(standing: Standing | None) -> str:
    """The best setting so far; an in-sample number says that it is one."""
    if standing is None:
        return ""
    gain = standing.gain
    kind = "held out" if standing.held_out else "in-sample"
    return f"best {standing.name}: {gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}] {kind}"


def left(seconds: float | None) -> str:
    """``4:10 left``, ``1:02:00 left``."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} left" if hours else f"{minutes}:{rest:02d} left"


def print_line(text: str) -> None:
    """One line to standard error, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _silent(event: ProgressEvent) -> None:
    """Show nothing."""


def _words(spec: GuidanceSpec) -> str:
    from stg_tune.report.facts import describe

    return describe(spec)


@contextmanager
def _live() -> Iterator[Progress]:
    from rich.console import Console
    from rich.live import Live

    console, board = Console(stderr=True), _Board()
    with Live(get_renderable=board.render, console=console, refresh_per_second=4):
        yield board


class _Board:
    """Two bars, the run's and the stage's, and some lines under them."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), MofNCompleteColumn())
        self._bars = Bars(*columns, TextColumn("{task.fields[left]}", style="dim", markup=False))
        self._run = self._bars.add_task("all", total=None, left="")
        self._stage = self._bars.add_task("baseline", total=None, left="")
        self._lines: list[str] = []

    def __call__(self, event: ProgressEvent) -> None:
        """Take over what has happened."""
        self._bars.update(self._run, completed=event.done, total=event.total, left=left(event.seconds_left))
        self._bars.update(
            self._stage, description=event.stage, completed=event.stage_done, total=event.stage_total or None
        )
        self._lines = details(event)

    def render(self) -> Group:
        """The board as it is now; called by the thread that draws."""
        from rich.console import Group
        from rich.text import Text

        lines = (Text(text, no_wrap=True, overflow="ellipsis") for text in self._lines)
        return Group(self._bars, *lines)
