"""Where pairs are evaluated: the protocol that every executor follows, and the one that works in this process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

from stg_tune.records import Evaluation, GuidanceSpec, Pair

if TYPE_CHECKING:
    from stg_tune.search.storage import Key, Role

Evaluate = Callable[[GuidanceSpec, Pair], Evaluation]
"""Generates one video and scores it. A failure of the configuration comes back as ``Evaluation.error`` or is raised as
``EvaluationError``; any other exception ends the search, and ``resume`` goes on from the last finished pair."""

FailureKind = Literal["nan", "oom", "timeout", "crash"]


class EvaluationError(Exception):
    """A configuration failed on a pair: recorded as a penalised pair, and the configuration is infeasible."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        """Keep what failed and why."""
        super().__init__(f"{kind}: {message}")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One (configuration, pair) to evaluate."""

    spec: GuidanceSpec
    """The configuration."""
    pair: Pair
    """The test case."""
    role: Role
    """Which half of the pairs it belongs to."""

    @cached_property
    def key(self) -> Key:
        """What the storage files it under."""
        return (self.spec.hash(), self.pair.key)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A task that is done."""

    task: Task
    """What was asked."""
    evaluation: Evaluation
    """What it gave."""
    worker: str
    """``host:pid`` of the process that did it."""


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
            yield Finished(task=task, evaluation=attempt(self._evaluate, task), worker=self._worker)


def attempt(evaluate: Evaluate, task: Task) -> Evaluation:
    """Evaluate one task; failures that the configuration caused become ``Evaluation.error``, others are raised."""
    begun = time.monotonic()
    try:
        return evaluate(task.spec, task.pair)
    except Exception as error:
        failure = _failure(error)
        if not failure:
            raise
    config, key = task.spec.hash(), task.pair
    return Evaluation(config=config, pair=key, error=failure, seconds=time.monotonic() - begun)


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
