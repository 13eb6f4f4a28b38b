"""What a pool asks of the machinery under it: hire, assign, wait, fire. Ray is one machinery, a fake is another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stg_tune.records import Evaluation
    from stg_tune.search.executor import Evaluate, Task


class Recipe(Protocol):
    """How a worker comes by its evaluator: small and picklable, so that the model itself never travels."""

    def __call__(self, threads: int) -> Evaluate:
        """Load the model; called once in each worker, which may use ``threads`` threads."""

    def identity(self) -> Mapping[str, str]:
        """Versions and checksums that must be the same on every worker."""


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A worker's process is there and begins to load."""

    worker: int
    """Its number."""
    name: str
    """``host:pid``."""
    node: str
    """The machine it is on."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A worker can take tasks."""

    worker: int
    """Its number."""
    identity: Mapping[str, str]
    """``Recipe.identity()`` over there."""


@dataclass(frozen=True, kw_only=True)
class Unable:
    """A worker could not load the model."""

    worker: int
    """Its number."""
    message: str
    """Why."""
    fixable: bool
    """True: the user can fix it, trying again cannot."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A worker has evaluated its task; failures that the configuration caused are in the evaluation."""

    worker: int
    """Its number."""
    evaluations: tuple[Evaluation, ...]
    """What it gave, one a pair of the task."""


@dataclass(frozen=True, kw_only=True)
class Broke:
    """An evaluation ended with an exception that the configuration did not cause; the process is still there."""

    worker: int
    """Its number."""
    message: str
    """The exception, and where it came from."""
    fixable: bool
    """True: the user can fix it, trying again cannot."""


Fault = Literal["process", "machine", "memory", "network"]
"""Why a worker is gone. ``process``: it died, perhaps of what it was evaluating. All others are nobody's fault: the
machine is gone, it had so little memory left that Ray ended the worker, or it cannot be reached."""

REASONS: Mapping[Fault, str] = {
    "machine": "machines are lost again and again",
    "memory": "a machine has too little memory for its workers; give fewer --workers or a machine with more memory",
    "network": "workers cannot be reached again and again",
}
"""What is said when the same evaluation has been set back too often by nobody's fault."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A worker's process is gone."""

    worker: int
    """Its number."""
    message: str
    """What is known of the reason."""
    fault: Fault = "process"
    """Whose fault it is."""


Event = Arrived | Loaded | Unable | Done | Broke | Lost


class Crew(Protocol):
    """Processes that evaluate, each one task at a time."""

    @property
    def size(self) -> int:
        """How many workers there is room for at present."""

    def hire(self) -> int:
        """Begin to start a worker; ``Arrived`` and ``Loaded`` follow, or ``Unable`` or ``Lost``."""

    def assign(self, worker: int, task: Task) -> None:
        """Give a loaded worker a task; ``Done``, ``Broke`` or ``Lost`` follows."""

    def fire(self, worker: int) -> None:
        """End a worker at once, whatever it is doing; nothing more is heard of it."""

    def wait(self, seconds: float) -> list[Event]:
        """What has happened; waits for at most ``seconds`` when nothing has."""

    def close(self) -> None:
        """End everything."""
