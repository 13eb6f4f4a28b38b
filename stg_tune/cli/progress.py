"""What a search shows while it works: one live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stg_tune.search.progress import Progress, ProgressEvent, Standing

PLAIN_EVERY = 15.0
"""Seconds between two plain lines of one stage."""


@contextmanager
def watching(*, quiet: bool) -> Iterator[Progress]:
    """A ``Progress`` that writes to standard error, or nowhere."""
    if quiet:
        yield _silent
    elif sys.stderr.isatty():
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


@contextmanager
def _live() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[best]}", markup=False),
        TextColumn("{task.fields[left]}", style="dim", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("baseline", total=None, best="", left="")

        def show(event: ProgressEvent) -> None:
            bars.update(
                task,
                description=f"{event.stage:9}",
                completed=event.done,
                total=event.total,
                best=best(event.best),
                left=left(event.seconds_left),
            )

        yield show
