"""The executor that evaluates in Ray actors, on this machine or on a cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stg_tune.search.workers.pool import Pool, PoolRule
from stg_tune.search.workers.sizing import ROUNDING, gpus_under

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from types import TracebackType

    from stg_tune.search.executor import Finished, Task
    from stg_tune.search.workers.crew import Crew, Recipe
    from stg_tune.search.workers.selftest import Reference


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """Where the workers are and what each of them gets."""

    workers: int | None = None
    """Number of workers; ``None``: as many as the cluster has room for, growing and shrinking with it."""
    cpus: float = 1.0
    """Cores of one worker; its threads, rounded down to a whole number."""
    gpus: float | None = 0.0
    """GPUs of one worker: 0.5 lets two workers share one, 2 gives each worker two; ``None``: 1 if there are any."""
    address: str | None = None
    """``host:port`` of a Ray cluster, or ``auto``; ``None``: Ray is started on this machine for this run."""
    rule: PoolRule = field(default_factory=PoolRule)
    """Patience."""


class RayExecutor:
    """An ``Executor`` over Ray actors, each with its own model; Ray is started by the first task.

    Args:
        recipe: How a worker comes by its evaluator.
        settings: Where and how many.
        reference: A row of an earlier session; every machine must give the same scores.
    """

    def __init__(self, recipe: Recipe, settings: RaySettings, *, reference: Reference | None = None) -> None:
        self._recipe, self._settings = recipe, settings
        self._pool = Pool(
            self._open_crew,
            slots=settings.workers or 1,
            identity=recipe.identity(),
            reference=reference,
            rule=settings.rule,
        )

    def __enter__(self) -> RayExecutor:
        """Nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        self._pool.close()

    @property
    def slots(self) -> int:
        """How many tasks run at the same time."""
        return self._pool.slots

    def run(self, tasks: Iterable[Task]) -> Generator[Finished, None, None]:
        """Yield each task once as it is finished, in any order; see ``Pool.run``."""
        return self._pool.run(tasks)

    def _open_crew(self) -> Crew:
        from stg_tune.search.workers.cluster import LocalCluster, RemoteCluster, alive_nodes
        from stg_tune.search.workers.ray_crew import RayCrew

        wanted, workers = self._settings, self._settings.workers
        cluster: LocalCluster | RemoteCluster
        if wanted.address is None:
            workers = workers or 1
            gpus = wanted.gpus or 0.0
            cpus = math.ceil(workers * wanted.cpus - ROUNDING)
            cluster = LocalCluster(cpus=cpus, gpus=gpus_under(workers, gpus))
        else:
            cluster = RemoteCluster(wanted.address)
            gpus = any(node.get("GPU") for node in alive_nodes().values()) if wanted.gpus is None else wanted.gpus
        return RayCrew(cluster, self._recipe, workers=workers, cpus=wanted.cpus, gpus=float(gpus))
