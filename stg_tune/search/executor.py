"""Where pairs are evaluated: the protocol that every executor follows, and the one that works in this process."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.fidelity import FULL

if TYPE_CHECKING:
    from stg_tune.search.storage import Key, Role

Evaluate = Callable[[GuidanceSpec, Pair], Evaluation]
"""Generates one video and scores it. A failure of the configuration comes back as ``Evaluation.error`` or is raised as
``EvaluationError``; any other exception ends the search, and ``resume`` goes on from the last finished pair.

An evaluator with a method ``many(spec, pairs) -> list[Evaluation]`` takes several pairs of one setting at once.
One with a method ``at(fidelity) -> Evaluate`` can make cheaper videos: see ``stg_tune.search.fidelity``."""

FailureKind = Literal["nan", "oom", "timeout", "crash"]


class EvaluationError(Exception):
    """A configuration failed on a pair: recorded as a penalised pair, and the configuration is infeasible."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        """Keep what failed and why."""
        super().__init__(f"{kind}: {message}")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One (configuration, pair) to evaluate, or several pairs of one configuration in one batch."""

    spec: GuidanceSpec
    """The configuration."""
    pair: Pair
    """The test case."""
    role: Role
    """Which half of the pairs it belongs to."""
    more: tuple[Pair, ...] = ()
    """Further pairs of the same batch."""
    fidelity: str = FULL
    """How faithfully the videos are made."""
    optional: bool = False
    """Whether it may turn out to be needless by what comes before it: a worker that is free waits for that."""

    @cached_property
    def key(self) -> Key:
        """What the storage files it under; of a batch, what tells it from others."""
        return (self.spec.hash(), "+".join(pair.key for pair in self.pairs), self.fidelity)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs."""
        return (self.pair, *self.more)

    def single(self) -> Iterator[Task]:
        """The pairs as tasks of their own."""
        for pair in self.pairs:
            yield replace(self, pair=pair, more=())


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A task that is done."""

    task: Task
    """What was asked."""
    evaluation: Evaluation
    """What it gave; of a batch, for its first pair."""
    worker: str
    """``host:pid`` of the process that did it."""
    more: tuple[Evaluation, ...] = ()
    """What the further pairs of a batch gave, in their order."""

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """One for each of ``task.pairs``."""
        return (self.evaluation, *self.more)


class Executor(Protocol):
    """Evaluates tasks, here or on many machines."""

    @property
    def slots(self) -> int:
        """How many tasks run at the same time."""

    def run(self, tasks: Iterable[Task]) -> Generator[Finished, None, None]:
        """Yield each task once as it is finished, in any order, taking from ``tasks`` only when a slot is free.

        Closing the generator early abandons the tasks that have not begun.
        """


class InlineExecutor:
    """Evaluates one pair at a time in this process.

    Args:
        evaluate: Generates and scores one pair.
    """

    slots = 1

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    def run(self, tasks: Iterable[Task]) -> Generator[Finished, None, None]:
        """Yield in the order of ``tasks``."""
        for task in tasks:
            first, *more = attempt(self._evaluate, task)
            yield Finished(task=task, evaluation=first, worker=self._worker, more=tuple(more))


class BatchingExecutor:
    """Hands tasks of one setting that follow each other to another executor as batches.

    One forward pass over several small videos takes less time than several over one; the numbers differ by rounding.

    Args:
        executor: Evaluates.
        size: Most pairs of a batch.
    """

    def __init__(self, executor: Executor, size: int) -> None:
        self._executor, self._size = executor, size

    @property
    def slots(self) -> int:
        """How many batches run at the same time."""
        return self._executor.slots

    def run(self, tasks: Iterable[Task]) -> Generator[Finished, None, None]:
        """Yield each batch once as it is finished."""
        return self._executor.run(batches(tasks, self._size, self.slots))


def batches(tasks: Iterable[Task], size: int, slots: int = 1) -> Iterator[Task]:
    """Join tasks that follow each other and differ in the pair alone: batches of nearly the same size.

    Args:
        tasks: Single pairs.
        size: Most pairs of a batch.
        slots: Batches that run at the same time; there are as many, or a multiple, where there are pairs enough.
    """
    for _, group in itertools.groupby(tasks, key=lambda task: (task.spec.hash(), task.role, task.fidelity)):
        alike = list(group)
        count = min(-(-len(alike) // (size * slots)) * slots, len(alike))
        ends = [len(alike) * number // count for number in range(count + 1)]
        for first, end in itertools.pairwise(ends):
            yield replace(alike[first], more=tuple(task.pair for task in alike[first + 1 : end]))


def attempt(evaluate: Evaluate, task: Task) -> tuple[Evaluation, ...]:
    """Evaluate all pairs of a task; failures that the configuration caused become ``Evaluation.error``.

    A batch that fails is evaluated pair by pair, so that only the pairs that fail alone are marked.

    Raises:
        Exception: whatever the configuration did not cause.
    """
    evaluate = evaluator_at(evaluate, task.fidelity)
    many = getattr(evaluate, "many", None)
    if task.more and many is not None:
        try:
            return tuple(many(task.spec, task.pairs))
        except Exception as error:
            if not _failure(error):
                raise
    return tuple(_attempt_one(evaluate, task.spec, pair) for pair in task.pairs)


def evaluator_at(evaluate: Evaluate, fidelity: str) -> Evaluate:
    """The evaluator for a fidelity.

    Raises:
        StgTuneError: It has none.
    """
    if fidelity == FULL:
        return evaluate
    at: Callable[[str], Evaluate] | None = getattr(evaluate, "at", None)
    if at is None:
        raise StgTuneError(
            f"the evaluator cannot make videos at the fidelity {fidelity!r}: give it a method at(fidelity) that "
            "returns one that can, or search with the fidelity full"
        )
    return at(fidelity)


def _attempt_one(evaluate: Evaluate, spec: GuidanceSpec, pair: Pair) -> Evaluation:
    begun = time.monotonic()
    try:
        return evaluate(spec, pair)
    except Exception as error:
        failure = _failure(error)
        if not failure:
            raise
    return Evaluation(config=spec.hash(), pair=pair, error=failure, seconds=time.monotonic() - begun)


def _failure(error: Exception) -> str:
    if isinstance(error, EvaluationError):
        return str(error)
    if isinstance(error, FloatingPointError):
        return f"nan: {error}"
    if isinstance(error, TimeoutError):
        return f"timeout: {error}"
    # torch is not imported here: its OutOfMemoryError is known by name
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"oom: {str(error).splitlines()[0] if str(error) else 'out of memory'}"
    return ""
