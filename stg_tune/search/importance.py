"""Which numbers of the search mattered: PED-ANOVA (arXiv:2304.10255), with what chance alone would give beside it."""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from stg_tune.search.encoding import Encoding
from stg_tune.search.proposals import distribution

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.distributions import BaseDistribution

    from stg_tune.search.result import SearchResult
    from stg_tune.search.study import Trial

LEAST_TRIALS = 15
"""Fewer trials say nothing."""
TOP_TRIALS = 5
"""The best, at least, that the others are compared with."""
TOP_SHARE = 0.1
"""Their share of all trials, at least."""
SHUFFLES = 19
"""Shuffled studies; the largest share of a number among them is passed by chance once in twenty times."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """One number of the search."""

    name: str
    """As in ``Encoding.knobs``."""
    share: float
    """Share of the importance of all numbers, 0 to 1."""
    chance: float
    """Largest share that the same trials gave with their gains shuffled, 0 to 1."""


def importances(result: SearchResult) -> tuple[Importance, ...]:
    """The numbers of a search, most important first; empty when there are too few trials to tell.

    A trial counts with its mean gain over the pairs that it saw, stopped or not; repeated proposals count once.
    """
    trials = [trial for trial in result.trials if trial.params and trial.measurement.deltas and not trial.repeated]
    if len(trials) < LEAST_TRIALS or result.screen is None:
        return ()
    encoding = Encoding(space=result.plan.space, orders=result.screen.orders, num_steps=result.plan.num_steps)
    distributions = {knob.name: distribution(knob) for knob in encoding.knobs()}
    gains = [trial.measurement.mean for trial in trials]
    shares = _shares(trials, gains, distributions)
    chance = dict.fromkeys(shares, 0.0)
    dice = random.Random(result.plan.seed)
    for _ in range(SHUFFLES):
        dice.shuffle(gains)
        for name, share in _shares(trials, gains, distributions).items():
            chance[name] = max(chance[name], share)
    ranked = sorted(shares, key=lambda name: -shares[name])
    return tuple(Importance(name=name, share=shares[name], chance=chance[name]) for name in ranked)


def _shares(
    trials: Sequence[Trial], gains: Sequence[float], distributions: Mapping[str, BaseDistribution]
) -> dict[str, float]:
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        create_trial(value=gain, params=dict(trial.params), distributions=dict(distributions))
        for trial, gain in zip(trials, gains, strict=True)
    )
    top = max(TOP_SHARE, TOP_TRIALS / len(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ties widen the best tenth is known
        raw = PedAnovaImportanceEvaluator(target_quantile=top).evaluate(study)
    total = sum(raw.values())
    return {name: value / total if total else 0.0 for name, value in raw.items()}
