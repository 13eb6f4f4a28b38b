"""Where pairs are evaluated: in this process, or by workers, and how many."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stg_tune.errors import StgTuneError
from stg_tune.search.executor import BatchingExecutor, Executor, InlineExecutor
from stg_tune.search.workers.executor import RayExecutor, RaySettings
from stg_tune.search.workers.sizing import cores, gpus_under, workers_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stg_tune.search.executor import Evaluate
    from stg_tune.search.workers.crew import Recipe
    from stg_tune.search.workers.selftest import Reference

ExecutorName = Literal["inline", "ray"]

MOST_PAIRS = 64
"""Of a batch: whatever is lost with a worker is evaluated again."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What the user asks for; ``None`` everywhere is one worker a GPU, or a core, of this machine."""

    executor: ExecutorName | None = None
    """``inline``: this process; ``ray``: workers; ``None``: workers when there is to be more than one."""
    workers: int | None = None
    """Number of workers."""
    address: str | None = None
    """Ray cluster to work on, ``host:port`` or ``auto``; ``None``: this machine."""
    gpus: float | None = None
    """GPUs of one worker; ``None``: 1 where there are GPUs."""
    cpus: float | None = None
    """Cores of one worker; ``None``: its share of this machine, or 1 on a cluster."""
    batch: int | None = None
    """Pairs of one setting that a worker takes at once, 1 to 64; ``None``: what the model's record says."""

    def __post_init__(self) -> None:
        """Check what contradicts itself."""
        if self.workers is not None and self.workers < 1:
            raise StgTuneError(f"--workers must be 1 or more, got {self.workers}")
        if self.batch is not None and not 1 <= self.batch <= MOST_PAIRS:
            raise StgTuneError(f"--batch must be between 1 and {MOST_PAIRS}, got {self.batch}")
        for name, value in (("--gpus-per-worker", self.gpus), ("--cpus-per-worker", self.cpus)):
            if value is not None and not 0 <= value <= 1024:
                raise StgTuneError(f"{name} must be between 0 and 1024, got {value:g}")
        if self.gpus is not None and self.gpus > 1 and not float(self.gpus).is_integer():
            raise StgTuneError(f"--gpus-per-worker above 1 must be a whole number, got {self.gpus:g}")
        if self.executor == "inline" and (self.address or (self.workers or 1) > 1):
            raise StgTuneError("--executor inline is one worker in this process; leave it out to have several")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is done about it."""

    executor: ExecutorName
    """Where."""
    workers: int | None
    """How many; ``None``: as many as the cluster has room for."""
    gpus: float | None
    """GPUs of one worker; ``None``: 1 if the cluster has GPUs."""
    cpus: float
    """Cores of one worker."""
    address: str | None
    """Ray cluster; ``None``: this machine."""
    batch: int = 1
    """Pairs of one setting that a worker takes at once."""

    @property
    def threads(self) -> int | None:
        """Threads of one worker; ``None``: whatever torch takes by itself."""
        return None if self.executor == "inline" else max(int(self.cpus), 1)

    def open(
        self, recipe: Recipe, evaluate: Callable[[], Evaluate], *, reference: Reference | None = None
    ) -> AbstractContextManager[Executor]:
        """The executor, to be used in a ``with``.

        Args:
            recipe: For workers.
            evaluate: For this process; called at once, so that a model that cannot be loaded is known.
            reference: A row of an earlier session that workers are compared with.
        """
        if self.executor == "inline":
            return nullcontext(self._batching(InlineExecutor(evaluate())))
        settings = RaySettings(workers=self.workers, cpus=self.cpus, gpus=self.gpus, address=self.address)
        return self._on_ray(RayExecutor(recipe, settings, reference=reference))

    @contextmanager
    def _on_ray(self, workers: RayExecutor) -> Iterator[Executor]:
        with workers:
            yield self._batching(workers)

    def _batching(self, executor: Executor) -> Executor:
        return BatchingExecutor(executor, self.batch) if self.batch > 1 else executor


def lay_out(placement: Placement, *, gpus: int, worker_bytes: int, batch: int = 1) -> Layout:
    """Fill in what the user left open.

    Args:
        placement: The user's wishes.
        gpus: GPUs of this machine.
        worker_bytes: Memory of one worker.
        batch: Pairs that a worker takes at once unless the user says otherwise.
    """
    batch = placement.batch or batch
    if placement.address is not None:
        cpus = 1.0 if placement.cpus is None else placement.cpus
        return Layout(
            executor="ray",
            workers=placement.workers,
            gpus=placement.gpus,
            cpus=cpus,
            address=placement.address,
            batch=batch,
        )
    share = (1.0 if gpus else 0.0) if placement.gpus is None else placement.gpus
    if share > gpus:
        raise StgTuneError(f"--gpus-per-worker {share:g} is more than the {gpus} GPUs of this machine")
    count = placement.workers or workers_for(gpus=gpus, gpus_per_worker=share, worker_bytes=worker_bytes)
    if placement.executor == "inline":
        count = 1
    if gpus_under(count, share) > gpus:
        raise StgTuneError(
            f"{count} workers with {share:g} GPUs each are more than the {gpus} GPUs of this machine; give fewer "
            "--workers or a smaller --gpus-per-worker"
        )
    executor = placement.executor or ("ray" if count > 1 else "inline")
    cpus = max(cores() // count, 1) if placement.cpus is None else placement.cpus
    return Layout(executor=executor, workers=count, gpus=share, cpus=float(cpus), address=None, batch=batch)
