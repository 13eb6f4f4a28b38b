"""A model that paints squares, and how a suite is run over it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune.evaluate.arms import Arm
from stg_tune.evaluate.distances import Reference
from stg_tune.evaluate.evaluator import PairEvaluator
from stg_tune.evaluate.extractors import Seen
from stg_tune.evaluate.plan import EvaluationPlan, Folder, pairs_of
from stg_tune.evaluate.run import evaluate
from stg_tune.evaluate.suites import suite
from stg_tune.generate import Generated, GenerationFailedError
from stg_tune.records import GuidanceSpec, Pair, ScoreKind, Segment, SkipTerm
from stg_tune.score import CompositeScorer
from stg_tune.score.flicker import TemporalFlickering
from stg_tune.score.motion import Motion
from stg_tune.search.executor import BatchingExecutor, InlineExecutor
from stg_tune.video import Video

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stg_tune.evaluate.rows import Row


PROMPTS = ("a red seven moving left", "a blue one moving up", "a green five moving down")


def skipping(stg_scale: float) -> GuidanceSpec:
    term = SkipTerm(name="spatial", skip_layers={"spatial": (2,)}, skip_op="residual", stg_scale=stg_scale)
    return GuidanceSpec(cfg_scale=3.0, segments=(Segment(terms=(term,)),))


class Painter:
    """Stands for a model: a square whose brightness is the setting's, and whose place is the noise's."""

    def __init__(self) -> None:
        self.calls = 0
        self.batches: list[int] = []

    def many(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> list[Generated]:
        self.batches.append(len(pairs))
        return [self._one(spec, pair) for pair in pairs]

    def _one(self, spec: GuidanceSpec, pair: Pair) -> Generated:
        self.calls += 1
        if pair.prompt == "fail":
            raise GenerationFailedError("nan", "on purpose")
        rng = torch.Generator().manual_seed(pair.seed)
        frames = (torch.rand(6, 32, 32, 3, generator=rng) * 60).to(torch.uint8)
        strength = sum(term.stg_scale for segment in spec.segments for term in segment.terms)
        for t in range(6):
            frames[t, 8:20, 4 + 2 * t : 16 + 2 * t] = int(100 + 10 * spec.cfg_scale + strength * (15 + pair.seed % 7))
        return Generated(video=Video(frames=frames, fps=8), effects={}, forwards=4.0, seconds=0.01)


class MeanColour:
    """Stands for an extractor: four numbers of the pixels."""

    weights = "0" * 16
    kinds = (ScoreKind(name="bright", direction="maximize", low=0.0, high=1.0, unit="mean level"),)

    def __call__(self, frames: torch.Tensor, prompt: str) -> Seen:
        flat = frames.double().flatten()
        features = torch.stack([flat.mean(), flat.std(), frames.double()[:, :, 8:20].mean(), flat[:100].mean()])
        chances = torch.tensor([float(c) for c in hashlib.sha256(str(features).encode()).digest()[:5]]).double() + 1
        return Seen(features=features, probabilities=chances / chances.sum(), scores={"bright": float(features[0])})

    def reference(self, data: Path | None, num_frames: int | None = None) -> Reference:
        centre = torch.full((4,), 0.3).double().numpy()
        return Reference(mean=centre, covariance=torch.eye(4).double().numpy() * 0.01, count=7)


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def scorer() -> CompositeScorer:
    return CompositeScorer([TemporalFlickering(), Motion()])


def plan_of(name: str = "scale-curve", samples: int = 12, **changes: object) -> EvaluationPlan:
    chosen = suite(name)
    plan = EvaluationPlan(
        suite=name,
        model="squares",
        num_steps=2,
        arms=(Arm(name="cfg", spec=GuidanceSpec(cfg_scale=3.0)), Arm(name="stg", spec=skipping(2.0))),
        pairs=pairs_of(PROMPTS, samples=samples, seeds=min(chosen.seeds, 4), seed=0),
        scorers=("temporal_flickering", "motion"),
        extractor="judge" if chosen.features else "",
    )
    return replace(plan, **changes)


def run(
    folder: Folder, painter: Painter, scorer: CompositeScorer, plan: EvaluationPlan, *, batch: int = 1
) -> list[Row]:
    extractor = MeanColour() if plan.extractor else None
    here = InlineExecutor(evaluator(folder, painter, scorer, extractor))
    executor = BatchingExecutor(here, batch) if batch > 1 else here
    return evaluate(plan, folder, executor, scorer, extractor, batch=batch)


def evaluator(folder: Folder, painter: Painter, scorer: CompositeScorer, extractor: MeanColour | None) -> PairEvaluator:
    return PairEvaluator(generator=painter, scorer=scorer, extractor=extractor, features=folder.features)


def by_name(table: list[Row]) -> dict[tuple[str, str], Row]:
    return {(row.kind.name, row.arm.name): row for row in table}


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers above, for the files beside this one."""
    return SimpleNamespace(
        PROMPTS=PROMPTS,
        MeanColour=MeanColour,
        Painter=Painter,
        by_name=by_name,
        evaluator=evaluator,
        plan_of=plan_of,
        run=run,
        skipping=skipping,
    )
