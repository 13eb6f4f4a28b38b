"""The members of a pool: hired while there is room, replaced when lost, tried again later when they cannot load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stg_tune.search.executor import Task
    from stg_tune.search.workers.crew import Arrived, Crew, Loaded, Unable


@dataclass(frozen=True, kw_only=True)
class StaffRule:
    """Patience in seconds."""

    back_off: tuple[float, ...] = (10.0, 20.0, 40.0, 80.0)
    """Waits after failures to load in a row: the memory of a dying process may not be free yet."""
    load: float = 3600.0
    """Longest time to load a model (it may be downloaded)."""
    patience: float = 600.0
    """Longest time without any worker's process."""


@dataclass(kw_only=True)
class Job:
    """What a member is doing."""

    task: Task
    """The task."""
    begun: float
    """When."""
    test: bool
    """Done for the self-test only: the result is compared and dropped."""


@dataclass(kw_only=True)
class Member:
    """One worker as the pool sees it."""

    number: int
    """Of the crew."""
    since: float
    """When its phase began."""
    phase: Literal["coming", "loading", "ready"] = "coming"
    """Waiting for a place, loading the model, or able to work."""
    name: str = "a worker"
    """``host:pid`` once it is known."""
    node: str = ""
    """The machine it is on."""
    fresh: bool = True
    """It has not finished a task yet."""
    job: Job | None = None
    """What it is doing."""


class Staff:
    """Keeps as many members as there is room for.

    Args:
        crew: Hires and fires.
        rule: Patience.
        identity: Versions and checksums that every member must have.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, crew: Crew, rule: StaffRule, identity: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._crew, self._rule, self._identity, self._clock = crew, rule, dict(identity), clock
        self._members: dict[int, Member] = {}
        self._failures = 0
        self._not_before = self._alone_since = clock()

    @property
    def members(self) -> list[Member]:
        """Everyone, in the order they were hired."""
        return list(self._members.values())

    def get(self, number: int) -> Member | None:
        """The member with this number, unless it has been dismissed."""
        return self._members.get(number)

    def free(self) -> list[Member]:
        """Members that could take a task."""
        return [member for member in self._members.values() if member.phase == "ready" and member.job is None]

    def fill(self) -> None:
        """Hire while there is room, and stop waiting when nobody ever comes."""
        now = self._clock()
        while now >= self._not_before and len(self._members) < self._crew.size:
            number = self._crew.hire()
            self._members[number] = Member(number=number, since=now)
        for member in self.members:
            if member.phase == "loading" and now - member.since > self._rule.load:
                self.failed(member, f"{member.name} did not load the model within {self._rule.load:.0f} s")
        self._check_patience(now)

    def dismiss(self, member: Member) -> None:
        """End a member; ``fill`` hires another."""
        self._members.pop(member.number, None)
        self._crew.fire(member.number)

    def arrived(self, event: Arrived) -> None:
        """A process is there."""
        member = self._members[event.worker]
        member.name, member.node, member.phase, member.since = event.name, event.node, "loading", self._clock()

    def loaded(self, event: Loaded) -> None:
        """A member can work.

        Raises:
            StgTuneError: It has other versions or checksums than this process.
        """
        member = self._members[event.worker]
        for name in dict.fromkeys((*self._identity, *event.identity)):
            here, there = self._identity.get(name, "nothing"), event.identity.get(name, "nothing")
            if here != there:
                raise StgTuneError(
                    f"{name} is {there} on {member.name} and {here} here: their numbers must not be mixed; install the "
                    "same versions and weights on every machine"
                )
        member.phase, member.since = "ready", self._clock()

    def proved(self) -> None:
        """A member has finished a task: loading works."""
        self._failures = 0

    def unable(self, event: Unable) -> None:
        """A member could not load."""
        if event.fixable:
            raise StgTuneError(event.message)
        self.failed(self._members[event.worker], event.message)

    def starved(self, member: Member) -> None:
        """A member's machine had no memory left for it: wait before the next is hired."""
        self.dismiss(member)
        self._wait()

    def failed(self, member: Member, message: str) -> None:
        """A member was of no use before its first result: wait before the next is hired.

        Raises:
            StgTuneError: Nobody can work, and it has been tried often enough.
        """
        self.dismiss(member)
        if self._failures >= len(self._rule.back_off) and not any(other.phase == "ready" for other in self.members):
            raise StgTuneError(
                f"no worker is ready to evaluate, tried {self._failures + 1} times; the last one, {member.name}, says: "
                f"{message}"
            )
        self._wait()

    def _wait(self) -> None:
        waits = self._rule.back_off
        self._not_before = self._clock() + waits[min(self._failures, len(waits) - 1)]
        self._failures += 1

    def _check_patience(self, now: float) -> None:
        if any(member.phase != "coming" for member in self._members.values()) or now < self._not_before:
            self._alone_since = now
        elif now - self._alone_since > self._rule.patience:
            raise StgTuneError(
                f"no worker has come for {self._rule.patience:.0f} s: the cluster has no free place of the size asked "
                "for; ask for less with --gpus-per-worker or --cpus-per-worker, or add a machine. Every finished pair "
                "is kept, `stg-tune resume` goes on"
            )
