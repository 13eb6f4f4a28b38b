"""Comparisons over made-up scores: skipping spatial block 4 helps, every other block hurts."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from stg_tune import models
from stg_tune.compare import Comparison, ComparisonPlan, ComparisonRequest, draft_comparison, run_comparison
from stg_tune.preset import Preset, save
from stg_tune.records import Evaluation, GuidanceSpec, Pair, ScoreKind, Segment, SkipTerm
from stg_tune.search.workers.placement import Placement, lay_out
from stg_tune.studio import ModelRecipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = {"aesthetic": 1, "imaging_quality": 1, "temporal_lpips": -1, "alignment": 1, "motion": 1, "saturation": -1}
KINDS = tuple(
    ScoreKind(
        name=name,
        direction="maximize" if sign > 0 else "minimize",
        low=0.0,
        high=10.0,
        unit="points",
        weights="made up",
    )
    for name, sign in NAMES.items()
)


def evaluate(spec: GuidanceSpec, pair: Pair, *, lift: float = 0.5, motion: float = 2.0) -> Evaluation:
    """``lift`` for spatial block 4; ``motion`` of settings that skip."""
    noise, level = random.Random(f"{pair.key} {spec.hash()}"), random.Random(pair.key).gauss(5, 1)
    terms = [term for segment in spec.segments for term in segment.terms]
    places = [(stack, layer) for term in terms for stack, layers in term.skip_layers.items() for layer in layers]
    gain = sum(lift if place == ("spatial", 4) else -lift for place in places) + noise.gauss(0, 0.3)
    scores = {name: level + sign * gain for name, sign in NAMES.items()}
    scores |= {"motion": motion if terms else 2.0, "saturation": 0.1 + level / 100}
    return Evaluation(
        config=spec.hash(), pair=pair, scores=scores, forwards=10.0 + len(terms), effects={t.name: 0.1 for t in terms}
    )


class Kit:
    """What test modules, which cannot import each other, share."""

    entry = models.entry("open-sora-tiny")
    default = f"cfg={entry.defaults.cfg_scale:g}"
    evaluate = staticmethod(evaluate)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def preset(self, name: str = "good", layer: int = 4) -> str:
        """A preset file that skips one spatial block."""
        term = SkipTerm(name="spatial", skip_layers={"spatial": (layer,)}, skip_op="attention", stg_scale=0.5)
        made = Preset(
            name=name,
            family="open-sora",
            model="open-sora-tiny",
            checkpoint="embedded",
            revision="",
            stacks=self.entry.depths,
            spec=GuidanceSpec(cfg_scale=self.entry.defaults.cfg_scale, segments=(Segment(terms=(term,)),)),
            generation=self.entry.defaults,
        )
        save(made, self.folder / f"{name}.json")
        return str(self.folder / f"{name}.json")

    def plan(self, first: str, second: str = "cfg", **changes: object) -> ComparisonPlan:
        """A plan of 30 pairs."""
        request = ComparisonRequest(model="open-sora-tiny", first=first, second=second, pairs=30)
        return draft_comparison(replace(request, **changes), self.entry)(SimpleNamespace(kinds=KINDS))

    def run(
        self, plan: ComparisonPlan, evaluate: Callable[[GuidanceSpec, Pair], Evaluation], out: str = "out"
    ) -> Comparison:
        """The comparison with made-up evaluations in place of model and scorers."""
        studio = SimpleNamespace(recipe=ModelRecipe(model="made up"), evaluate=evaluate)
        inline = lay_out(Placement(workers=1), gpus=0, worker_bytes=1)
        return run_comparison(plan, self.folder / out, studio, inline)


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)
