"""Runs a suite: every pair that is not done yet, here or on the workers of a search, then the table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.evaluate.checkpoint import checkpoint_of
from stg_tune.evaluate.distances import Reference
from stg_tune.evaluate.evaluator import PairEvaluator, feature_file, load_features
from stg_tune.evaluate.extractors import extractor_of
from stg_tune.evaluate.plan import EMBEDDED
from stg_tune.evaluate.real import fingerprint
from stg_tune.evaluate.result import write_result
from stg_tune.evaluate.sets import Sets
from stg_tune.evaluate.suites import suite
from stg_tune.evaluate.summary import summarise
from stg_tune.models.loras import identity
from stg_tune.score import default_scorers, embedded_scorers
from stg_tune.score.library import Library
from stg_tune.search.executor import Task
from stg_tune.search.lock import DriverLock
from stg_tune.search.workers.selftest import Reference as KnownRow
from stg_tune.studio import PROPOSING, ModelRecipe, Studio, numbers_identity, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from stg_tune.evaluate.extractors import Extractor
    from stg_tune.evaluate.plan import EvaluationPlan, Folder
    from stg_tune.evaluate.rows import Row
    from stg_tune.score import Scorer
    from stg_tune.search import Evaluate
    from stg_tune.search.executor import Executor


@dataclass(frozen=True, kw_only=True)
class EvaluationRecipe:
    """How a worker comes by model, scorers and extractor; the folder must be reachable from every worker."""

    model: ModelRecipe
    """The model."""
    scorers: tuple[str, ...]
    """Scorers by name; ``embedded`` alone: those of the embedded models."""
    extractor: str
    """``judge``, ``i3d``, or empty."""
    features: Path
    """Where features are left."""
    weights: Path | None = None
    """Local folder with the scorers' files, the same on every machine."""

    def __call__(self, threads: int) -> Evaluate:
        """Load everything in a worker that may use ``threads`` threads."""
        torch.set_num_threads(threads)
        return self.evaluate()

    def evaluate(self, scorer: Scorer | None = None, seeing: Extractor | None = None) -> Evaluate:
        """Load the model in this process, and whichever of scorer and extractor is not loaded yet."""
        return PairEvaluator(
            generator=Studio(self.model).generator,
            scorer=scorer or self.scorer(),
            extractor=seeing or self.extracting(),
            features=self.features,
        )

    def extracting(self) -> Extractor | None:
        """The extractor that the plan names."""
        return extractor_of(self.extractor, Library(self.weights)) if self.extractor else None

    def scorer(self) -> Scorer:
        """The scorers that the plan names; as VBench, they look at every frame."""
        if self.scorers == (EMBEDDED,):
            return embedded_scorers()
        fps = float(models.entry(self.model.model).defaults.fps)
        return default_scorers(names=self.scorers, frames=None, fps=fps, weights=self.weights)

    def identity(self) -> Mapping[str, str]:
        """Versions and checksums that decide the numbers."""
        return numbers_identity(self.scorer()) | identity(self.model.loras)


def evaluate(
    plan: EvaluationPlan,
    folder: Folder,
    executor: Executor,
    scorer: Scorer,
    extractor: Extractor | None,
    *,
    data: Path | None = None,
    batch: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Evaluate what is missing in ``folder`` and give the table, which is left there, too, with a summary.

    Interrupted, it goes on where it was; what has failed is tried again.

    Args:
        plan: What is compared; the folder must hold the same plan or nothing.
        folder: Where results are kept.
        executor: Where pairs are evaluated.
        scorer: For the meaning of its scores.
        extractor: Where videos are compared as distributions.
        data: Real videos to compare with.
        batch: Pairs that a worker takes at once: every setting has its turn after so many of each worker.
        progress: Called with finished and all pairs.

    Raises:
        StgTuneError: The folder holds something else; real videos are missing.
    """
    folder.begin(plan)
    with DriverLock(folder.path):
        compared = extractor if suite(plan.suite).features else None
        reference = _reference(folder, compared, data, plan.video.get("num_frames")) if compared else None
        _work(plan, folder, executor, batch * executor.slots, progress)
        sets = Sets(load=partial(load_features, folder.features), reference=reference) if reference else None
        kinds = (*scorer.kinds, *(extractor.kinds if extractor else ()))
        table = summarise(plan, folder.rows(), kinds, sets)
        write_result(plan, table, folder.path)
    return table


def _work(
    plan: EvaluationPlan, folder: Folder, executor: Executor, block: int, progress: Callable[[int, int], None]
) -> None:
    tasks = open_tasks(plan, folder, block)
    total = len(plan.arms) * len(plan.pairs)
    done = total - len(tasks)
    progress(done, total)
    for finished in executor.run(iter(tasks)):
        for evaluation in finished.evaluations:
            folder.add(evaluation)
        done += len(finished.evaluations)
        progress(done, total)


def open_tasks(plan: EvaluationPlan, folder: Folder, block: int = 1) -> list[Task]:
    """What ``folder`` does not hold yet: ``block`` pairs of one setting, then the same pairs of the next.

    An early table so compares like with like, and tasks that follow each other can be taken in one batch.
    """
    rows = folder.rows()

    def is_kept(config: str, pair: str) -> bool:
        row = rows.get((config, pair))
        # what failed may have been the machine's fault; a row without its features is of no use for sets
        return row is not None and not row.error and (not plan.extractor or _seen(folder, config, pair))

    blocks = [plan.pairs[at : at + block] for at in range(0, len(plan.pairs), block)]
    keys = {(arm.spec.hash(), pair.key): (arm, pair) for part in blocks for arm in plan.arms for pair in part}
    return [Task(spec=arm.spec, pair=pair, role="holdout") for key, (arm, pair) in keys.items() if not is_kept(*key)]


def _seen(folder: Folder, config: str, pair: str) -> bool:
    return feature_file(folder.features, config, pair).exists()


def known_row(plan: EvaluationPlan, folder: Folder) -> KnownRow | None:
    """A row of an earlier session, which new workers must be able to repeat."""
    specs = {arm.spec.hash(): arm.spec for arm in plan.arms}
    row = next((row for row in folder.rows().values() if not row.error and row.config in specs), None)
    if row is None:
        return None
    task = Task(spec=specs[row.config], pair=row.pair, role="holdout")
    return KnownRow(task=task, evaluation=row, worker="an earlier session")


def _reference(folder: Folder, extractor: Extractor, data: Path | None, num_frames: int | None) -> Reference:
    """Real videos are looked at once; other ones later are refused."""
    file = folder.path / "reference.safetensors"
    given = fingerprint(data) if data else ""
    if not file.exists():
        made = extractor.reference(data, num_frames)
        tensors = {"mean": torch.from_numpy(made.mean), "covariance": torch.from_numpy(made.covariance)}
        save_file({**tensors, "count": torch.tensor(made.count)}, file, metadata={"data": given})
    with safe_open(file, framework="pt") as opened:
        then = (opened.metadata() or {}).get("data", "")
    if given and given != then:
        raise StgTuneError(
            f"{folder.path} was begun with other real videos than {data}: give another folder with --out"
        )
    held = load_file(file)
    return Reference(mean=held["mean"].numpy(), covariance=held["covariance"].numpy(), count=int(held["count"]))


def with_identity(
    plan: EvaluationPlan, scorer: Scorer, extractor: Extractor | None, model: ModelRecipe
) -> EvaluationPlan:
    """The plan that also says which weights, checkpoint and libraries are behind its numbers."""
    weights = {kind.name: kind.weights for kind in scorer.kinds}
    if extractor is not None:
        weights["extractor"] = extractor.weights
    return replace(
        plan,
        weights=weights | identity(model.loras),
        checkpoint=checkpoint_of(model),
        versions={name: version for name, version in versions().items() if name not in PROPOSING},
    )
