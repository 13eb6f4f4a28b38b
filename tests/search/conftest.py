"""A synthetic landscape in place of a model: prompt effect, seed effect, interaction noise, few good layers."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair, ScoreKind, Segment, SkipTerm
from stg_tune.search.plan import SearchPlan, split_pairs
from stg_tune.search.space_file import load_space

if TYPE_CHECKING:
    from stg_tune.search.space import SearchSpace

DEPTHS = {"spatial": 8, "temporal": 8}
STEPS = 10


def kind(name: str, direction: str) -> ScoreKind:
    return ScoreKind(name=name, direction=direction, low=-math.inf, high=math.inf, unit="points", weights="none")


KINDS = (
    kind("aesthetic", "maximize"),
    kind("imaging_quality", "maximize"),
    kind("temporal_lpips", "minimize"),
    kind("alignment", "maximize"),
    kind("motion", "maximize"),
    kind("saturation", "minimize"),
)


def draw(*words: object) -> float:
    """A standard normal number that depends on the words only."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big")).gauss(0.0, 1.0)


@dataclass
class Landscape:
    """``quality`` is the true gain of a setting over the default, in units of the prompt effect's deviation."""

    name: str = "a"
    height: float = 1.0
    cfg_height: float = 0.25
    noise: float = 0.5
    best_cfg: float = 2.2
    best_stg: float = 0.3
    default_cfg: float = 3.5
    calls: list[tuple[str, str]] = field(default_factory=list)

    def layer(self, stack: str, op: str, index: int) -> float:
        """Few layers help, most hurt a little."""
        value = draw(self.name, "layer", stack, op, index)
        return 0.9 * self.height if value > 1.2 else -0.35

    def quality(self, spec: GuidanceSpec) -> float:
        return self._raw(spec) - self._raw(GuidanceSpec(cfg_scale=self.default_cfg))

    def _raw(self, spec: GuidanceSpec) -> float:
        total = -self.cfg_height * (spec.cfg_scale - self.best_cfg) ** 2 if self.height or self.cfg_height else 0.0
        for segment in spec.segments:
            width = segment.stop - segment.start
            for term in segment.terms:
                layers = [(stack, i) for stack, found in term.skip_layers.items() for i in found]
                push = sum(self.layer(stack, term.skip_op, i) for stack, i in layers) / len(layers) ** 0.5
                strength = math.exp(-((math.log(term.stg_scale / self.best_stg) / 1.2) ** 2))
                total += width * strength * push * (1.0 if self.height else 0.0)
        return total

    def __call__(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        self.calls.append((spec.hash(), pair.key))
        gain = self.quality(spec)
        scores = {}
        for item in KINDS[:4]:
            place = draw(self.name, item.name, pair.prompt) + 0.6 * draw(self.name, item.name, pair.seed)
            moved = spec.hash() != GuidanceSpec(cfg_scale=self.default_cfg).hash()
            jitter = self.noise * draw(self.name, item.name, spec.hash(), pair.key) if moved else 0.0
            value = place + gain + jitter
            scores[item.name] = value if item.direction == "maximize" else 10.0 - value
        scores["motion"] = 2.0 + 0.1 * draw(self.name, "motion", pair.key)
        scores["saturation"] = 0.1 + 0.02 * draw(self.name, "saturation", pair.key)
        return Evaluation(config=spec.hash(), pair=pair, scores=scores, seconds=0.3, forwards=20.0)


def space_of(landscape: Landscape) -> SearchSpace:
    """The shape of a real space, with strengths around the one where the landscape is highest."""
    space, best = load_space("open-sora-tiny", DEPTHS), landscape.best_stg
    around = replace(space.stg_scale, low=round(best / 6, 3), high=round(best * 5, 3))
    plain = replace(space.cfg_scale, low=1.0, high=5.0)
    guards = tuple(replace(item, value=0.95) if item.scorer == "motion" else item for item in space.objective.guards)
    return replace(
        space,
        screen=replace(space.screen, stg_scale=best),
        stg_scale=around,
        cfg_scale=plain,
        objective=replace(space.objective, weights=dict.fromkeys(space.objective.weights, 1.0), guards=guards),
    )


def plan_for(landscape: Landscape, *, budget: str = "small", seed: int = 0, prompts: int = 60, **changes) -> SearchPlan:
    search, holdout = split_pairs([f"prompt {i}" for i in range(prompts)], seed=seed, search=24, holdout=130)
    fields = {
        "model": "synthetic",
        "space": space_of(landscape),
        "depths": DEPTHS,
        "num_steps": STEPS,
        "baseline": GuidanceSpec(cfg_scale=landscape.default_cfg),
        "scorers": KINDS,
        "search_pairs": search,
        "holdout_pairs": holdout,
        "budget": budget,
        "seed": seed,
    }
    return SearchPlan(**{**fields, **changes})


@pytest.fixture(scope="session")
def make_plan():
    return plan_for


@pytest.fixture(scope="session")
def landscape():
    return Landscape


@pytest.fixture
def one_term():
    def make(stg_scale: float = 0.3, cfg_scale: float = 3.5, layer: int = 1, stack: str = "spatial") -> GuidanceSpec:
        term = SkipTerm(name=stack, skip_layers={stack: (layer,)}, skip_op="attention", stg_scale=stg_scale)
        return GuidanceSpec(cfg_scale=cfg_scale, segments=(Segment(terms=(term,)),))

    return make
