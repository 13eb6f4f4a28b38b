"""An executor over many workers: deadlines, bounded second tries, replacement of what is lost, self-test."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation
from stg_tune.search.executor import Finished, Task
from stg_tune.search.fidelity import in_full
from stg_tune.search.workers.crew import REASONS, Arrived, Broke, Crew, Done, Event, Fault, Loaded, Lost, Unable
from stg_tune.search.workers.deadline import DeadlineRule, Deadlines
from stg_tune.search.workers.selftest import Reference, SelfTest
from stg_tune.search.workers.staff import Job, Member, Staff, StaffRule

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from stg_tune.search.storage import Key

PAUSE = 1.0
"""Longest wait for an event in seconds; deadlines and new machines are looked after in between."""


@dataclass(frozen=True, kw_only=True)
class PoolRule:
    """When to stop waiting and when to stop trying."""

    deadline: DeadlineRule = field(default_factory=DeadlineRule)
    """Time of one evaluation."""
    staff: StaffRule = field(default_factory=StaffRule)
    """Time until workers are there."""
    tries: int = 3
    """Times that a task is tried when the worker's process dies under it or breaks."""
    timeouts: int = 2
    """Times that a task may hit its deadline; the first may be the fault of the machine. Once a pair has failed so, the
    other pairs of its configuration are tried once."""
    setbacks: int = 10
    """Times that a task is tried when the machine goes, has no memory left, or cannot be reached."""


class Pool:
    """Evaluates tasks in the workers of a crew; the crew is opened by the first task.

    A task that is abandoned while a worker is at it is finished all the same, and handed out by the next ``run``.

    Args:
        open_crew: Starts the machinery.
        slots: Workers that are expected, before the crew is open.
        identity: Versions and checksums that every worker must have.
        reference: A row of an earlier session to compare the workers with.
        rule: Patience.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        open_crew: Callable[[], Crew],
        *,
        slots: int,
        identity: Mapping[str, str],
        reference: Reference | None = None,
        rule: PoolRule | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_crew, self._expected, self._identity, self._clock = open_crew, slots, identity, clock
        self._rule = rule or PoolRule()
        self._crew: Crew | None = None
        self._staff: Staff
        self._test = SelfTest(reference)
        self._deadlines = Deadlines(self._rule.deadline)
        self._again: deque[Task] = deque()
        self._asked: set[Key] = set()
        self._ready: deque[Finished] = deque()
        self._mishaps: dict[Key, list[str]] = {}
        self._timeouts: dict[Key, int] = {}
        self._too_slow: set[str] = set()
        self._setbacks: dict[Key, int] = {}

    @property
    def slots(self) -> int:
        """How many tasks run at the same time; at least 1."""
        return max(self._crew.size, 1) if self._crew else self._expected

    def close(self) -> None:
        """End all workers."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def run(self, tasks: Iterable[Task]) -> Generator[Finished, None, None]:
        """Yield each task once as it is finished, in any order, and what an earlier ``run`` has left behind.

        Raises:
            StgTuneError: Workers disagree, cannot load, or keep failing for reasons that no configuration caused.
        """
        source = _Source(tasks)
        if source.is_empty():
            return
        crew = self._opened()
        try:
            while not (source.is_empty() and not self._asked):
                self._feed(source)
                for event in crew.wait(PAUSE):
                    self._take(event)
                self._enforce_deadlines()
                # nobody waits for the listener's storage and arithmetic, unless it may not want the rest
                if source.is_certain():
                    self._feed(source)
                yield from self._hand_out()
        finally:
            self._again.clear()
            self._asked.clear()

    def _opened(self) -> Crew:
        if self._crew is None:
            self._crew = self._open_crew()
            self._staff = Staff(self._crew, self._rule.staff, self._identity, self._clock)
        return self._crew

    def _hand_out(self) -> Iterator[Finished]:
        while self._ready:
            finished = self._ready.popleft()
            self._asked.discard(finished.task.key)
            yield finished

    def _feed(self, source: _Source) -> None:
        self._staff.fill()
        for member in self._staff.free():
            test = self._test.task_for(member)
            task = test or self._next(source)
            if task is None:
                return
            if test is None:
                self._test.given(member, task)
            self._begin(member, task, test=test is not None)

    def _next(self, source: _Source) -> Task | None:
        if self._again:
            return self._again.popleft()
        under_way = {member.job.task.key for member in self._staff.members if member.job and not member.job.test}
        under_way |= {finished.task.key for finished in self._ready}
        while (task := source.take()) is not None:
            self._asked.add(task.key)
            if task.key not in under_way:
                return task
        return None

    def _begin(self, member: Member, task: Task, *, test: bool) -> None:
        assert self._crew is not None
        member.job = Job(task=task, begun=self._clock(), test=test)
        self._crew.assign(member.number, task)

    def _take(self, event: Event) -> None:
        member = self._staff.get(event.worker)
        if member is None:
            return
        match event:
            case Arrived():
                self._staff.arrived(event)
            case Loaded():
                self._staff.loaded(event)
            case Unable():
                self._staff.unable(event)
            case Done():
                self._done(member, event.evaluations)
            case Broke():
                self._broke(member, event)
            case Lost():
                self._lost(member, event)
            case _:
                assert_never(event)

    def _done(self, member: Member, evaluations: tuple[Evaluation, ...]) -> None:
        job, member.job = member.job, None
        if job is None:
            return
        self._staff.proved()
        self._test.check(member, job.task, evaluations)
        if not any(evaluation.error for evaluation in evaluations):
            each = in_full(job.task.fidelity, (self._clock() - job.begun) / len(evaluations))
            self._deadlines.note(each, pairs=len(evaluations), fresh=member.fresh)
            member.fresh = False
        if not job.test:
            first, *more = evaluations
            self._ready.append(Finished(task=job.task, evaluation=first, worker=member.name, more=tuple(more)))

    def _broke(self, member: Member, event: Broke) -> None:
        if event.fixable:
            raise StgTuneError(event.message)
        task = self._gone(member, event.message)
        if task is not None and self._mishap(task, event.message) >= self._rule.tries:
            raise StgTuneError(
                f"evaluating configuration {task.key[0]} on pair {task.key[1]} failed {self._rule.tries} times, and "
                "not because of the configuration. Every finished pair is kept, `stg-tune resume` goes on. "
                f"{event.message}"
            )

    def _lost(self, member: Member, event: Lost) -> None:
        task = self._gone(member, event.message, event.fault)
        if task is None:
            return
        if event.fault != "process":
            self._set_back(task, event)
        elif self._mishap(task, event.message) >= self._rule.tries:
            self._blame(member, task, event.message)

    def _gone(self, member: Member, message: str, fault: Fault = "process") -> Task | None:
        """Let a member go; its task, unless it had none that counts."""
        job = member.job
        counts = job is not None and not job.test
        self._test.forget(member)
        if counts and fault == "memory":
            self._staff.starved(member)
        elif counts or fault == "machine":
            self._staff.dismiss(member)
        else:
            self._staff.failed(member, f"{REASONS[fault]}: {message}" if fault != "process" else message)
        return job.task if job is not None and counts else None

    def _set_back(self, task: Task, event: Lost) -> None:
        """Queue a task again that nobody is to blame for, but not for ever."""
        count = self._setbacks[task.key] = self._setbacks.get(task.key, 0) + 1
        if count >= self._rule.setbacks:
            raise StgTuneError(
                f"{REASONS[event.fault]}: configuration {task.key[0]} on pair {task.key[1]} was set back {count} times "
                f"by no fault of its own, the last time because of: {event.message}. Every finished pair is kept, "
                "`stg-tune resume` goes on"
            )
        self._queue_again(task)

    def _mishap(self, task: Task, message: str) -> int:
        """Note one more mishap and queue the task again; the number of them."""
        known = self._mishaps.setdefault(task.key, [])
        known.append(message)
        if len(known) < self._rule.tries:
            self._queue_again(task)
        return len(known)

    def _queue_again(self, task: Task) -> None:
        if task.key in self._asked:  # else nobody waits for it any more
            self._again.append(task)

    def _blame(self, member: Member, task: Task, message: str) -> None:
        """Every process that tried the task died: it is the configuration's fault if others can be evaluated."""
        if not self._deadlines.known:
            raise StgTuneError(
                f"{self._rule.tries} workers died at their first evaluation; the last one, {member.name}: {message}"
            )
        self._fail(member, task, f"crash: {self._rule.tries} workers died at it; the last one: {message}")

    def _fail(self, member: Member, task: Task, error: str, seconds: float = 0.0) -> None:
        first, *more = (
            Evaluation(config=task.key[0], pair=pair, error=error, seconds=seconds / len(task.pairs))
            for pair in task.pairs
        )
        self._ready.append(Finished(task=task, evaluation=first, worker=member.name, more=tuple(more)))

    def _enforce_deadlines(self) -> None:
        now = self._clock()
        for member in self._staff.members:
            job = member.job
            if job is None or now - job.begun <= (limit := self._limit(member, job)):
                continue
            why = self._deadlines.explain(limit)
            task = self._gone(member, f"{member.name}: {why}")
            if task is None:
                continue
            self._timeouts[task.key] = self._timeouts.get(task.key, 0) + 1
            if self._timeouts[task.key] < self._rule.timeouts and task.key[0] not in self._too_slow:
                self._queue_again(task)
            else:
                self._too_slow.add(task.key[0])
                self._fail(member, task, f"timeout: {why}", now - job.begun)

    def _limit(self, member: Member, job: Job) -> float:
        """By what is known now, however little it was when the job began; a self-test has the limit of a second try."""
        again = job.test or job.task.key in self._timeouts
        return self._deadlines.limit(fresh=member.fresh, pairs=len(job.task.pairs), again=again)


class _Source:
    """Tasks, with a look at whether there is another."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = iter(tasks)
        self._head = next(self._tasks, None)

    def is_empty(self) -> bool:
        return self._head is None

    def is_certain(self) -> bool:
        return self._head is not None and not self._head.optional

    def take(self) -> Task | None:
        task, self._head = self._head, next(self._tasks, None) if self._head is not None else None
        return task
