"""Runs a suite: every pair that is not done yet, here or on the workers of a search, then the table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from stg_tune import models
from stg_tune.evaluate.distances import Reference
from stg_tune.evaluate.extractors import extractor_of
from stg_tune.evaluate.summary import Row, Sets, summarise
from stg_tune.generate import GenerationFailedError, Generator
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.score import default_scorers
from stg_tune.score.library import Library
from stg_tune.search.executor import Task
from stg_tune.studio import ModelRecipe, Studio, numbers_identity, scorer_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stg_tune.evaluate.extractors import Extractor
    from stg_tune.evaluate.plan import EvaluationPlan, Folder
    from stg_tune.score import Scorer
    from stg_tune.search import Evaluate
    from stg_tune.search.executor import Executor


@dataclass(frozen=True, kw_only=True)
class EvaluationRecipe:
    """How a worker comes by model, scorers and extractor; the folder must be reachable from every worker."""

    model: ModelRecipe
    """The model."""
    scorers: tuple[str, ...]
    """Scorers by name; empty: those of the embedded models."""
    extractor: str
    """``judge``, ``i3d``, or empty."""
    features: Path
    """Where features are left."""
    weights: Path | None = None
    """Local folder with the scorers' files."""

    def __call__(self, threads: int) -> Evaluate:
        """Load everything in a worker that may use ``threads`` threads."""
        torch.set_num_threads(threads)
        return self.evaluate()

    def evaluate(self, scorer: Scorer | None = None, seeing: Extractor | None = None) -> Evaluate:
        """Load the model in this process, and whichever of scorer and extractor is not loaded yet."""
        generator = Studio(self.model).generator
        return partial(evaluate_pair, generator, scorer or self.scorer(), seeing or self.extracting(), self.features)

    def extracting(self) -> Extractor | None:
        """The extractor that the plan names."""
        return extractor_of(self.extractor, Library(self.weights)) if self.extractor else None

    def scorer(self) -> Scorer:
        """The scorers that the plan names; as VBench, they look at every frame."""
        if not self.scorers:
            return scorer_for(models.entry(self.model.model))
        fps = float(models.entry(self.model.model).defaults.fps)
        return default_scorers(names=self.scorers, frames=None, fps=fps, weights=self.weights)

    def identity(self) -> Mapping[str, str]:
        """Versions and checksums that decide the numbers."""
        return numbers_identity(self.scorer())


def evaluate_pair(
    generator: Generator, scorer: Scorer, extractor: Extractor | None, features: Path, spec: GuidanceSpec, pair: Pair
) -> Evaluation:
    """Generate one video, score it, and leave what the extractor saw in ``features``."""
    try:
        made = generator(spec, pair)
    except GenerationFailedError as error:
        return Evaluation(config=spec.hash(), pair=pair, error=str(error))
    frames = made.video.to_float()
    (scores,) = scorer(frames[None], [pair.prompt])
    values = {name: score.value for name, score in scores.items() if score.value is not None}
    if extractor is not None:
        seen = extractor(frames, pair.prompt)
        values |= seen.scores
        _save(features, spec.hash(), pair.key, {"features": seen.features, "probabilities": seen.probabilities})
    return Evaluation(
        config=spec.hash(),
        pair=pair,
        scores=values,
        unscored={name: score.reason for name, score in scores.items() if score.value is None},
        seconds=made.seconds,
        forwards=made.forwards,
        effects=made.effects,
    )


def evaluate(
    plan: EvaluationPlan,
    folder: Folder,
    executor: Executor,
    scorer: Scorer,
    extractor: Extractor | None,
    *,
    data: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Evaluate what is missing in ``folder`` and give the table; interrupted, it goes on where it was.

    Args:
        plan: What is compared; the folder must hold the same plan or nothing.
        folder: Where results are kept.
        executor: Where pairs are evaluated.
        scorer: For the meaning of its scores.
        extractor: Where videos are compared as distributions.
        data: Real videos to compare with.
        progress: Called with finished and all pairs.

    Raises:
        StgTuneError: The folder holds something else; real videos are missing; no pair succeeded.
    """
    folder.begin(plan)
    reference = _reference(folder, extractor, data) if extractor else None
    tasks = list(_open_tasks(plan, folder))
    total = len(plan.arms) * len(plan.pairs)
    done = total - len(tasks)
    progress(done, total)
    for finished in executor.run(iter(tasks)):
        for evaluation in finished.evaluations:
            folder.add(evaluation)
        done += len(finished.evaluations)
        progress(done, total)
    sets = Sets(load=partial(_load, folder.features), reference=reference) if reference else None
    return summarise(plan, folder.rows(), scorer.kinds, sets)


def _open_tasks(plan: EvaluationPlan, folder: Folder) -> Sequence[Task]:
    """Pair by pair over all arms, so that an early table compares like with like."""
    done = folder.rows()
    keys: dict[tuple[str, str], Task] = {}
    for pair in plan.pairs:
        for arm in plan.arms:
            key = (arm.spec.hash(), pair.key)
            there = key in done and (
                bool(done[key].error) or not plan.extractor or _file(folder.features, *key).exists()
            )
            if not there:
                keys[key] = Task(spec=arm.spec, pair=pair, role="holdout")
    return list(keys.values())


def _reference(folder: Folder, extractor: Extractor, data: Path | None) -> Reference:
    """Real videos are looked at once."""
    file = folder.path / "reference.safetensors"
    if not file.exists():
        made = extractor.reference(data)
        tensors = {"mean": torch.from_numpy(made.mean), "covariance": torch.from_numpy(made.covariance)}
        save_file({**tensors, "count": torch.tensor(made.count)}, file)
    held = load_file(file)
    return Reference(mean=held["mean"].numpy(), covariance=held["covariance"].numpy(), count=int(held["count"]))


def _file(features: Path, config: str, pair: str) -> Path:
    return features / f"{config}-{pair}.safetensors"


def _save(features: Path, config: str, pair: str, tensors: dict[str, torch.Tensor]) -> None:
    """Whole or not at all: a crash in between leaves no half file under the final name."""
    features.mkdir(parents=True, exist_ok=True)
    target = _file(features, config, pair)
    temporary = target.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.replace(target)


def _load(features: Path, config: str, pair: str) -> dict[str, torch.Tensor]:
    return load_file(_file(features, config, pair))


def with_weights(plan: EvaluationPlan, scorer: Scorer, extractor: Extractor | None) -> EvaluationPlan:
    """The plan that also says which weights are behind its numbers."""
    weights = {kind.name: kind.weights for kind in scorer.kinds}
    if extractor is not None:
        weights["extractor"] = extractor.weights
    return replace(plan, weights=weights)
