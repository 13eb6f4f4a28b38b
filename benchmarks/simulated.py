"""A simulated evaluator whose truth is known: the gain of every setting, under noise as measured on a real model.

The score of a setting on a pair is, in the default's standard deviations,

    default:  sqrt(prompt) * P(prompt) + sqrt(1 - prompt) * S(pair)
    setting:  default + gain(setting) - slope * default + noise * (sqrt(interaction) * I(setting, prompt)
                                                                   + sqrt(1 - interaction) * E(setting, pair))

with P, S normal and I, E from Student's t, a part ``shared`` of I and E being common to all scorers. ``slope`` is what
makes weak videos gain more than good ones. The numbers come from ``noise.json``, which ``python -m benchmarks.noise``
measures on a model.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stg_tune.records import Evaluation, GuidanceSpec, Pair, ScoreKind
from stg_tune.search import SearchPlan, SearchSpace, load_space, split_pairs
from stg_tune.search.encoding import rescale_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stg_tune.records import Segment, SkipTerm

DEPTHS = {"spatial": 8, "temporal": 8}
NUM_STEPS = 10
PROMPTS = 240
"""As many as the embedded models have captions."""
LOWER_IS_BETTER = ("temporal_lpips", "saturation")
NOISE = Path(__file__).with_name("noise.json")
"""Of open-sora-tiny."""


def noise_of(model: str) -> Path:
    """Where the noise of a model is written down."""
    return NOISE if model == "open-sora-tiny" else NOISE.with_name(f"noise-{model}.json")


@dataclass(frozen=True, kw_only=True)
class ScorerNoise:
    """How one scorer varies."""

    mean: float
    """Mean of the default, in the scorer's unit."""
    spread: float
    """Between-pair standard deviation of the default, in the scorer's unit."""
    prompt: float
    """Part of the default's variance that lies between prompts, 0 to 1."""
    noise: float
    """Standard deviation of the paired difference, ``slope`` apart, in ``spread``."""
    interaction: float
    """Part of the variance of the paired difference that the seeds of a prompt share, 0 to 1."""
    slope: float
    """By how much a setting pulls a pair towards the mean, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How all scorers vary."""

    source: str
    """Where the numbers come from."""
    shared: float
    """Part of the variance of the paired difference that all scorers have in common, 0 to 1."""
    tails: float
    """Degrees of freedom of the noise: 5 has heavy tails, 30 is nearly normal."""
    scorers: Mapping[str, ScorerNoise]
    """Scorer -> its part."""

    @classmethod
    def read(cls, path: Path = NOISE) -> Noise:
        """Read what ``python -m benchmarks.noise`` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        scorers = {name: ScorerNoise(**item) for name, item in data["scorers"].items()}
        return cls(source=data["source"], shared=data["shared"], tails=data["tails"], scorers=scorers)

    def kinds(self) -> tuple[ScoreKind, ...]:
        """The scorers as a plan lists them."""
        return tuple(
            ScoreKind(
                name=name,
                direction="minimize" if name in LOWER_IS_BETTER else "maximize",
                low=-math.inf,
                high=math.inf,
                unit="points",
                weights="simulated",
            )
            for name in self.scorers
        )


@dataclass(frozen=True, kw_only=True)
class Terrain:
    """True gains over the default, in its standard deviations: what STG and CFG can do, and what it costs."""

    stg: float = 0.0
    """Greatest gain that skip guidance has."""
    cfg: float = 0.0
    """Greatest gain that CFG has, at ``best_cfg``."""
    harm: float = 0.0
    """Loss from a layer that should not be skipped, at full strength."""
    motion: float = 1.0
    """Motion of every setting but the default, as a fraction of the default's: below 0.95 a guard is broken."""
    seed: int = 0
    """Decides which layers are the good ones."""
    default_cfg: float = 2.0
    """CFG scale of the default."""
    best_cfg: float = 3.0
    """The best one."""
    best_scale: float = 0.3
    """The best STG scale."""

    @cached_property
    def good(self) -> frozenset[tuple[str, int]]:
        """Layers that help: two of each stack."""
        rng = np.random.default_rng([self.seed, 77])
        return frozenset((stack, int(i)) for stack in DEPTHS for i in rng.choice(DEPTHS[stack], 2, replace=False))

    def gains(self, spec: GuidanceSpec, noise: Noise) -> Mapping[str, float]:
        """Scorer -> true gain in the default's standard deviations; motion and saturation are guards, not gains."""
        special = {"saturation": 0.0}
        if "motion" in noise.scorers:
            motion = noise.scorers["motion"]
            special["motion"] = (self.motion - 1) * motion.mean / motion.spread
        return dict.fromkeys(noise.scorers, self.gain(spec)) | special

    def gain(self, spec: GuidanceSpec) -> float:
        """True gain of the objective and of each scorer with a weight."""
        away = (spec.cfg_scale - self.best_cfg) / (self.default_cfg - self.best_cfg)
        cfg = self.cfg * (1 - away**2) - 0.05 * (self.cfg > 0) * rescale_of(spec)
        return cfg + sum(self._segment(segment) for segment in spec.segments)

    def _segment(self, segment: Segment) -> float:
        width = min((segment.stop - segment.start) / 0.7, 1.0)
        return width * sum(self._term(term) for term in segment.terms) / max(len(segment.terms), 1)

    def _term(self, term: SkipTerm) -> float:
        layers = [(stack, i) for stack, found in term.skip_layers.items() for i in found]
        right = sum(layer in self.good for layer in layers) / len(layers)
        strength = math.exp(-((math.log(term.stg_scale / self.best_scale) / 1.2) ** 2))
        return self.stg * right * strength - self.harm * (1 - right) * min(term.stg_scale, 1.0)


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """An ``Evaluate``: made-up scores on a terrain under noise; the same arguments give the same scores."""

    noise: Noise
    """How scores vary."""
    terrain: Terrain
    """What is true."""
    seed: int = 0
    """Another seed is another world of prompts and noise."""
    _defaults: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)

    def __call__(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        """Score one setting on one pair."""
        config = spec.hash()
        scores = self._default(pair)
        if config != self._default_hash:
            scores = scores * (1 - self._columns["slope"]) + self._gains(spec) + self._noise(config, pair)
        values = self._columns["mean"] + self._signs * self._columns["spread"] * scores
        return Evaluation(
            config=config,
            pair=pair,
            scores=dict(zip(self.noise.scorers, values.tolist(), strict=True)),
            seconds=1.0,
            forwards=20.0,
        )

    @cached_property
    def _default_hash(self) -> str:
        return GuidanceSpec(cfg_scale=self.terrain.default_cfg).hash()

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.float64]]:
        names = ScorerNoise.__dataclass_fields__
        return {name: np.array([getattr(item, name) for item in self.noise.scorers.values()]) for name in names}

    @cached_property
    def _signs(self) -> NDArray[np.float64]:
        return np.array([-1.0 if name in LOWER_IS_BETTER else 1.0 for name in self.noise.scorers])

    def _default(self, pair: Pair) -> NDArray[np.float64]:
        if pair.key not in self._defaults:
            share, count = self._columns["prompt"], len(self.noise.scorers)
            prompt = self._random("prompt", pair.prompt).normal(size=count)
            seed = self._random("seed", pair.key).normal(size=count)
            self._defaults[pair.key] = np.sqrt(share) * prompt + np.sqrt(1 - share) * seed
        return self._defaults[pair.key]

    def _gains(self, spec: GuidanceSpec) -> NDArray[np.float64]:
        gains = self.terrain.gains(spec, self.noise)
        return np.array([gains[name] for name in self.noise.scorers])

    def _noise(self, config: str, pair: Pair) -> NDArray[np.float64]:
        share = self._columns["interaction"]
        prompt = self._heavy("interaction", config, pair.prompt)
        each = self._heavy("noise", config, pair.key)
        return self._columns["noise"] * (np.sqrt(share) * prompt + np.sqrt(1 - share) * each)

    def _heavy(self, *words: str) -> NDArray[np.float64]:
        """Student's t of variance 1, a part of it common to all scorers."""
        tails, common = self.noise.tails, self.noise.shared
        values = self._random(*words).standard_t(tails, size=len(self.noise.scorers) + 1) * math.sqrt(1 - 2 / tails)
        mixed: NDArray[np.float64] = math.sqrt(common) * values[0] + math.sqrt(1 - common) * values[1:]
        return mixed

    def _random(self, *words: str) -> np.random.Generator:
        digest = hashlib.blake2b("/".join((str(self.seed), *words)).encode(), digest_size=8).digest()
        return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "big")))


@cache
def _space() -> SearchSpace:
    """The stacks of a real space; ranges, screen and objective belong to the terrain, whatever a real model needs."""
    real = load_space("open-sora-tiny", DEPTHS)  # a tenth of a simulated search
    guards = tuple(replace(item, value=0.95) if item.scorer == "motion" else item for item in real.objective.guards)
    return replace(
        real,
        cfg_scale=replace(real.cfg_scale, low=1.0, high=5.0),
        stg_scale=replace(real.stg_scale, low=0.05, high=1.5),
        screen=replace(real.screen, stg_scale=0.3),
        objective=replace(real.objective, weights=dict.fromkeys(real.objective.weights, 1.0), guards=guards),
    )


def plan_for(simulator: Simulator, *, budget: str, seed: int, prompts: int = PROMPTS) -> SearchPlan:
    """The plan that ``stg-tune search`` would make of an embedded model, over made-up prompts."""
    holdout = 1200 if budget in {"medium", "large"} or prompts < PROMPTS else 240
    search, held = split_pairs([f"prompt {i}" for i in range(prompts)], seed=seed, search=24, holdout=holdout)
    return SearchPlan(
        model="simulated",
        space=_space(),
        depths=DEPTHS,
        num_steps=NUM_STEPS,
        baseline=GuidanceSpec(cfg_scale=simulator.terrain.default_cfg),
        scorers=simulator.noise.kinds(),
        search_pairs=search,
        holdout_pairs=held,
        budget=budget,
        seed=seed,
    )
