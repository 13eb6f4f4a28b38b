"""A crew without processes: what its workers do, and when, is written down in the test; time passes only in `wait`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.executor import Task
from stg_tune.search.workers.crew import Arrived, Broke, Done, Loaded, Lost, Unable

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.search.workers.crew import Event


def score(task: Task, worker: int) -> Evaluation:
    return Evaluation(
        config=task.spec.hash(), pair=task.pair, scores={"a": task.spec.cfg_scale + task.pair.seed}, seconds=1.0
    )


@dataclass
class FakeCrew:
    """Workers that take a second for everything, ``warm_up`` more at first, unless a script says otherwise."""

    size: int = 2
    nodes: int = 1
    seconds: float = 1.0
    warm_up: float = 0.0
    behave: Callable[[Task, int], Evaluation | Event] = score
    loading: Callable[[int], Event] = lambda number: Loaded(worker=number, identity={"torch": "2"})
    arrives: Callable[[int], bool] = lambda number: True
    now: float = 0.0
    hired: int = 0
    fired: list[int] = field(default_factory=list)
    given: list[tuple[int, Task, float]] = field(default_factory=list)
    closed: bool = False
    _events: list[tuple[float, Event]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def hire(self) -> int:
        self.hired += 1
        number = self.hired
        if self.arrives(number):
            node = f"node{number % self.nodes}"
            self._later(0.5, Arrived(worker=number, name=f"host:{number}", node=node))
            self._later(1.0, self.loading(number))
        return number

    def assign(self, worker: int, task: Task) -> None:
        warm_up = 0.0 if any(number == worker for number, _, _ in self.given) else self.warm_up
        self.given.append((worker, task, self.now))
        answer = self.behave(task, worker)
        if answer is None:  # hangs
            return
        if isinstance(answer, Evaluation):
            pairs = task.pairs
            answer = Done(worker=worker, evaluations=tuple(replace(answer, pair=pair) for pair in pairs))
        self._later(warm_up + self.seconds * len(task.pairs), answer)

    def fire(self, worker: int) -> None:
        self.fired.append(worker)
        self._events = [(at, event) for at, event in self._events if event.worker != worker]

    def wait(self, seconds: float) -> list[Event]:
        due = min((at for at, _ in self._events), default=self.now + seconds)
        self.now = max(self.now, min(due, self.now + seconds))
        ready = [event for at, event in self._events if at <= self.now]
        self._events = [(at, event) for at, event in self._events if at > self.now]
        return ready

    def close(self) -> None:
        self.closed = True

    def _later(self, seconds: float, event: Event) -> None:
        self._events.append((self.now + seconds, event))


def some_tasks(count: int, scale: float = 2.0) -> list[Task]:
    return [
        Task(spec=GuidanceSpec(cfg_scale=scale), pair=Pair(prompt="p", seed=seed), role="search")
        for seed in range(count)
    ]


@pytest.fixture
def crew_of():
    return FakeCrew


@pytest.fixture
def tasks():
    return some_tasks


@pytest.fixture
def events():
    """The kinds of event a script may answer with."""
    return {"broke": Broke, "lost": Lost, "unable": Unable, "score": score}
