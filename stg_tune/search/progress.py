"""What a run tells while it works: events for the command line, and ``DIR/state.json`` for ``status``."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

from stg_tune.documents import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stg_tune.records import Evaluation, GuidanceSpec
    from stg_tune.search.statistics import Interval

Stage = Literal["baseline", "published", "cfg", "fidelity", "screen", "search", "select", "confirm"]
Status = Literal["running", "interrupted", "failed", "finished"]

STATE_EVERY = 2.0
"""Seconds between two writes of ``state.json``."""
MOST_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The best setting so far."""

    name: str
    """Which one."""
    gain: Interval
    """Paired gain over the default, in baseline standard deviations."""
    held_out: bool
    """False: measured on the pairs that chose it, therefore optimistic."""


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """Where the run is."""

    stage: Stage
    """What it is doing."""
    done: int
    """Evaluations so far, those of an earlier session included."""
    total: int
    """Evaluations that the run may use."""
    stage_done: int
    """Evaluations of this stage so far."""
    stage_total: int
    """Evaluations that this stage may use."""
    best: Standing | None
    """The best setting so far."""
    seconds_left: float | None
    """Expected remaining time; ``None`` before the first new evaluation."""
    workers: int = 1
    """Pairs that are evaluated at the same time."""
    current: tuple[GuidanceSpec, ...] = ()
    """Settings that are being evaluated, at most one a worker."""


class Progress(Protocol):
    """Whoever wants to know."""

    def __call__(self, event: ProgressEvent) -> None:
        """Called after each evaluation and at the beginning of each stage."""


def silent(event: ProgressEvent) -> None:
    """A ``Progress`` that tells nobody."""


class Tracker:
    """Counts evaluations, estimates the end, and keeps ``state.json``.

    Args:
        progress: Told about each event.
        directory: Where ``state.json`` is kept; ``None``: nowhere.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, progress: Progress, directory: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._directory, self._clock = progress, directory, clock
        self._opened, self._before = clock(), worked_before(directory) if directory is not None else 0.0
        self._stage: Stage = "baseline"
        self._done = self._total = self._stage_from = self._stage_total = 0
        self._best: Standing | None = None
        self._workers = 1
        self._asked: dict[str, GuidanceSpec] = {}
        self._pending: Counter[str] = Counter()
        self._new = 0
        self._begun = clock()
        self._written = -STATE_EVERY

    def begin(self, stage: Stage, planned: int, total: int) -> None:
        """A stage begins that may use ``planned`` evaluations; the run may use ``total``."""
        self._stage, self._stage_from, self._stage_total, self._total = stage, self._done, planned, total
        self._tell()

    def evaluated(self, evaluation: Evaluation, is_new: bool, spent: int | None = None) -> None:
        """One more evaluation; those from the table cost no time and do not enter the estimate.

        Args:
            evaluation: What it gave.
            is_new: It is not from the table.
            spent: What the budget has been used up by so far; ``None``: every evaluation counts as one.
        """
        self._done = self._done + 1 if spent is None else spent
        self._pending[evaluation.config] -= 1
        if is_new:
            self._new += 1
        else:
            self._begun = self._clock() if not self._new else self._begun
        self._tell()

    def working(self, specs: Sequence[GuidanceSpec], workers: int) -> None:
        """So many workers evaluate from now on; one setting an evaluation."""
        self._asked = {spec.hash(): spec for spec in specs}
        self._pending, self._workers = Counter(spec.hash() for spec in specs), workers
        self._tell()

    def leader(self, name: str, gain: Interval | None, *, held_out: bool) -> None:
        """The best setting so far has changed."""
        if gain is not None:
            self._best = Standing(name=name, gain=gain, held_out=held_out)

    def finish(self, status: Status, message: str = "") -> None:
        """The session ends."""
        self._write(status, message)

    @property
    def elapsed(self) -> float:
        """Seconds that the run has worked, over all sessions; of one that was killed, up to its last ``state.json``."""
        return self._before + self._clock() - self._opened

    def event(self) -> ProgressEvent:
        """Where the run is now."""
        return ProgressEvent(
            stage=self._stage,
            done=self._done,
            total=self._total,
            stage_done=self._done - self._stage_from,
            stage_total=self._stage_total,
            best=self._best,
            seconds_left=self._seconds_left(),
            workers=self._workers,
            current=self._current(),
        )

    def _seconds_left(self) -> float | None:
        if not self._new:
            return None
        return (self._clock() - self._begun) / self._new * max(self._total - self._done, 0)

    def _current(self) -> tuple[GuidanceSpec, ...]:
        """The first settings with evaluations to come: tasks are begun in their order."""
        waiting = (self._asked[config] for config in self._asked if self._pending[config] > 0)
        return tuple(islice(waiting, self._workers))

    def _tell(self) -> None:
        self._progress(self.event())
        if self._clock() - self._written >= STATE_EVERY:
            self._write("running", "")

    def _write(self, status: Status, message: str) -> None:
        self._written = self._clock()
        if self._directory is not None:
            state = {"status": status, "message": message, "elapsed": round(self.elapsed, 3)}
            state |= event_to_dict(self.event())
            write_atomic(self._directory / "state.json", json.dumps(state, indent=1) + "\n")


def worked_before(directory: Path) -> float:
    """Seconds that the sessions of a run have worked, by its ``state.json``; 0 when that is missing or torn."""
    try:
        elapsed = float(json.loads((directory / "state.json").read_bytes()[:MOST_BYTES])["elapsed"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
    return elapsed if math.isfinite(elapsed) and elapsed > 0 else 0.0


def event_to_dict(event: ProgressEvent) -> dict[str, Any]:
    """Plain JSON form of an event."""
    best = event.best
    shown = {"name": best.name, "held_out": best.held_out, "gain": best.gain.to_dict()} if best else None
    numbers = asdict(replace(event, best=None, current=()))
    return {**numbers, "best": shown, "current": [spec.to_dict() for spec in event.current]}
