"""The optimiser: an Optuna sampler that proposes the setting from which the surrogate expects most."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from scipy.special import ndtr

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from stg_tune.records import GuidanceSpec
    from stg_tune.search.belief import Belief, Outlook
    from stg_tune.search.encoding import Encoding, Knob, Params

FRESH = 150
"""Random settings among the candidates of a proposal."""
PARENTS, CHILDREN = 12, 25
"""Best settings that are varied, and variations of each."""
FAR = 3
"""Every so many trials the candidates are random settings only, so that no corner of the space stays unseen."""
CHANGES = (1, 1, 2, 3)
"""How many numbers a variation changes, one drawn at random."""
STEP = 0.2
"""Standard deviation of a change, in parts of the number's range."""
LOG_STEP = 0.5
"""The same for numbers on a log scale, in their logarithm."""


class SurrogateSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Proposes what has the greatest expected improvement over the leader, times the probability of keeping the guards.

    Args:
        encoding: Numbers <-> settings.
        belief: What has been learnt so far.
        tried: Params of the trials so far, by the hash of their setting; these are varied.
        known: Hashes of settings that are not proposed again.
        seed: The same seed, belief and trials give the same proposal.
    """

    def __init__(
        self,
        encoding: Encoding,
        belief: Belief,
        tried: Mapping[str, Mapping[str, float]],
        known: Collection[str],
        *,
        seed: int,
    ) -> None:
        self._encoding, self._belief, self._tried, self._known = encoding, belief, tried, known
        self._dice = random.Random(seed)
        self._knobs = encoding.knobs()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All numbers of the space: they are proposed together."""
        return {knob.name: distribution(knob) for knob in self._knobs}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The best candidate; a random setting when all of them are known."""
        drawn = self._candidates(near=(trial.number + 1) % FAR != 0)
        if not drawn:
            return dict(self._fresh())
        worth = improvement(self._belief, [spec for spec, _ in drawn])
        return dict(drawn[int(np.argmax(worth))][1])

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value; asked for numbers that are not of the space."""
        sampler = optuna.samplers.RandomSampler(seed=self._dice.getrandbits(32))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _candidates(self, *, near: bool) -> list[tuple[GuidanceSpec, Params]]:
        drawn = [self._fresh() for _ in range(FRESH)]
        if near:
            drawn += [self._varied(parent) for parent in self._parents() for _ in range(CHILDREN)]
        found = {spec.hash(): (spec, params) for params in drawn for spec in [self._encoding.decode(params)]}
        return [item for key, item in found.items() if key not in self._known]

    def _parents(self) -> list[Mapping[str, float]]:
        ranked = [item.config for item, _ in self._belief.ranking]
        return [self._tried[config] for config in ranked if config in self._tried][:PARENTS]

    def _fresh(self) -> Params:
        return {knob.name: self._anywhere(knob) for knob in self._knobs}

    def _anywhere(self, knob: Knob) -> float:
        if knob.whole:
            return self._dice.randint(int(knob.low), int(knob.high))
        if knob.log:
            return _inside(knob, knob.low * (knob.high / knob.low) ** self._dice.random())
        return self._dice.uniform(knob.low, knob.high)

    def _varied(self, parent: Mapping[str, float]) -> Params:
        params = dict(parent)
        for knob in self._dice.sample(self._knobs, min(self._dice.choice(CHANGES), len(self._knobs))):
            params[knob.name] = self._beside(knob, params[knob.name])
        return params

    def _beside(self, knob: Knob, value: float) -> float:
        if knob.whole:
            return self._dice.randint(int(knob.low), int(knob.high))
        if knob.log:
            return _inside(knob, value * math.exp(self._dice.gauss(0.0, LOG_STEP)))
        return _inside(knob, value + self._dice.gauss(0.0, STEP) * (knob.high - knob.low))


def improvement(belief: Belief, specs: Sequence[GuidanceSpec]) -> NDArray[np.float64]:
    """Expected improvement over the leader's expected gain (over 0 without one), times the chance of keeping guards.

    ``s (z N(z) + n(z))`` with ``z = (mean - best) / s`` (Jones, Schonlau and Welch, 1998).
    """
    found: Outlook = belief(specs)
    leader = belief.leader()
    best = leader[1] if leader is not None else 0.0
    z = (found.gain - best) / found.deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.asarray(found.deviation * (z * ndtr(z) + density) * found.keeps, dtype=np.float64)


def distribution(knob: Knob) -> IntDistribution | FloatDistribution:
    """The values of a knob as Optuna knows them."""
    if knob.whole:
        return IntDistribution(int(knob.low), int(knob.high))
    return FloatDistribution(knob.low, knob.high, log=knob.log)


def _inside(knob: Knob, value: float) -> float:
    return min(max(value, knob.low), knob.high)
