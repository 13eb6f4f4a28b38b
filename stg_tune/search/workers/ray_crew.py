"""Ray actors as the crew of a pool."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from stg_tune.errors import StgTuneError
from stg_tune.search.workers.cluster import Cluster, actor_class, alive_nodes, places
from stg_tune.search.workers.crew import Arrived, Broke, Done, Event, Fault, Loaded, Lost, Recipe, Unable
from stg_tune.search.workers.worker import Trouble, Worker

if TYPE_CHECKING:
    from stg_tune.search.executor import Task

LOOK_AROUND = 5.0
"""Seconds between two looks at the machines of the cluster."""

MOST_WORDS = 400
"""Characters that are told of a death."""

ITS_MACHINE = "its node has died"
"""What Ray says of an actor that never told where it was."""

Step = Literal["place", "load", "evaluate"]


class RayCrew:
    """One actor a worker.

    Args:
        cluster: A connected cluster; it is closed with the crew.
        recipe: Sent to each actor.
        workers: Most workers; ``None``: as many as the cluster has room for, looked up again and again.
        cpus: Cores of one worker.
        gpus: GPUs of one worker, a fraction when they share one.
    """

    def __init__(self, cluster: Cluster, recipe: Recipe, *, workers: int | None, cpus: float, gpus: float) -> None:
        self._cluster, self._recipe, self._workers = cluster, recipe, workers
        self._cpus, self._gpus = cpus, gpus
        self._actor = actor_class(Worker, cpus=cpus, gpus=gpus)
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, str] = {}
        self._waiting: dict[Any, tuple[int, Step]] = {}
        self._hired = 0
        self._room, self._looked = 0, -LOOK_AROUND

    @property
    def size(self) -> int:
        """``workers``, or how many the machines have room for."""
        if self._workers is not None:
            return self._workers
        if time.monotonic() - self._looked >= LOOK_AROUND:
            self._looked = time.monotonic()
            self._room = sum(places(found, cpus=self._cpus, gpus=self._gpus) for found in alive_nodes().values())
        return self._room

    def hire(self) -> int:
        """Start an actor; where there is no room, Ray keeps it waiting until a machine joins."""
        self._hired += 1
        self._actors[self._hired] = self._actor.remote()
        self._expect(self._actors[self._hired].place.remote(), "place", self._hired)
        return self._hired

    def assign(self, worker: int, task: Task) -> None:
        """Send a task."""
        self._expect(self._actors[worker].evaluate.remote(task), "evaluate", worker)

    def fire(self, worker: int) -> None:
        """Kill the actor's process."""
        import ray

        actor = self._actors.pop(worker, None)
        self._nodes.pop(worker, None)
        self._waiting = {ref: entry for ref, entry in self._waiting.items() if entry[0] != worker}
        if actor is not None:
            ray.kill(actor, no_restart=True)

    def wait(self, seconds: float) -> list[Event]:
        """Ask Ray for what has finished."""
        import ray

        references = list(self._waiting)
        if not references:
            time.sleep(seconds)
            return []
        try:
            first, rest = ray.wait(references, num_returns=1, timeout=seconds)
            more = ray.wait(rest, num_returns=len(rest), timeout=0)[0] if first and rest else []
        except ray.exceptions.RayError as error:
            raise StgTuneError(
                f"the Ray cluster is gone ({type(error).__name__}). Every finished pair is kept, "
                "`stg-tune resume` goes on"
            ) from error
        return [self._event(reference) for reference in (*first, *more)]

    def close(self) -> None:
        """Kill all actors and leave the cluster."""
        for worker in list(self._actors):
            self.fire(worker)
        self._cluster.close()

    def _expect(self, reference: Any, step: Step, worker: int) -> None:
        self._waiting[reference] = (worker, step)

    def _event(self, reference: Any) -> Event:
        import ray

        worker, step = self._waiting.pop(reference)
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # not even the worker's own code could be run
            return self._unusable(worker, step, str(error.cause))
        except ray.exceptions.RayError as error:
            return self._death(worker, error)
        if isinstance(answer, Trouble):
            kind = Broke if step == "evaluate" else Unable
            return kind(worker=worker, message=answer.message, fixable=answer.fixable)
        if step == "evaluate":
            return Done(worker=worker, evaluations=answer)
        return Loaded(worker=worker, identity=answer) if step == "load" else self._arrival(worker, answer)

    def _arrival(self, worker: int, answer: tuple[str, str]) -> Arrived:
        name, node = answer
        self._nodes[worker] = node
        self._expect(self._actors[worker].load.remote(self._recipe, max(int(self._cpus), 1)), "load", worker)
        return Arrived(worker=worker, name=name, node=node)

    def _unusable(self, worker: int, step: Step, message: str) -> Event:
        if step == "evaluate":
            return Broke(worker=worker, message=message, fixable=False)
        return Unable(worker=worker, message=message, fixable=False)

    def _death(self, worker: int, error: Exception) -> Lost:
        return Lost(worker=worker, message=_cause(error), fault=self._fault(worker, error))

    def _fault(self, worker: int, error: Exception) -> Fault:
        from ray import exceptions

        node = self._nodes.get(worker)
        if ITS_MACHINE in str(error) or (node is not None and node not in alive_nodes()):
            return "machine"
        if isinstance(error, exceptions.OutOfMemoryError):
            return "memory"
        return "network" if isinstance(error, exceptions.ActorUnavailableError) else "process"


def _cause(error: Exception) -> str:
    """What Ray knows of a death, without its advice and its identifiers."""
    text = " ".join(str(error).split())
    detail = text.partition("Worker exit detail:")[2] or text.partition("OOM kill reason:")[2] or text
    detail = detail.partition("Object store memory usage")[0]
    return detail.partition("There are some potential root causes")[0].strip()[:MOST_WORDS] or type(error).__name__
