"""A run in which a published setting races."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair, Segment, SkipTerm
from stg_tune.search import load_run, run_search
from stg_tune.search.progress import silent

if TYPE_CHECKING:
    from pathlib import Path

_TERM = SkipTerm(name="t", skip_layers={"spatial": (4,)}, skip_op="attention", stg_scale=0.7)
PAPER = GuidanceSpec(cfg_scale=2.0, segments=(Segment(terms=(_TERM,)),))


@pytest.fixture(scope="session")
def published_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published setting is better than the default by one point in every scorer."""
    plan = replace(load_run(finished_run).plan, published={"paper": PAPER})

    def evaluate(spec: GuidanceSpec, pair: Pair) -> Evaluation:
        noise = random.Random(f"{pair.key} {spec.hash()}").gauss(0, 0.05)
        level = random.Random(pair.key).gauss(5, 1)
        skips = [term for segment in spec.segments for term in segment.terms]
        gain = float(spec == PAPER) + noise
        scores = {kind.name: level + (gain if kind.direction == "maximize" else -gain) for kind in plan.scorers}
        scores["motion"] = 2.0
        return Evaluation(config=spec.hash(), pair=pair, scores=scores, seconds=0.01, forwards=16.0 + 4 * len(skips))

    folder = tmp_path_factory.mktemp("runs") / "published"
    run_search(plan, evaluate, directory=folder, progress=silent)
    return folder
