"""Numbers of whole sets of videos for the table: Frechet distance, inception score, diversity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stg_tune.evaluate.distances import (
    Reference,
    bootstrap,
    centred_interval,
    diversity,
    frechet_distance,
    inception_score,
    resamples,
)
from stg_tune.evaluate.rows import Difference, Row, finite_or_none
from stg_tune.evaluate.suites import suite
from stg_tune.records import Evaluation, ScoreKind
from stg_tune.search.statistics import paired_interval, standard_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from stg_tune.evaluate.arms import Arm
    from stg_tune.evaluate.plan import EvaluationPlan

    Rows = Mapping[tuple[str, str], Evaluation]
    Array = NDArray[np.float64]

FRECHET = ScoreKind(
    name="frechet_distance", direction="minimize", low=0.0, high=math.inf, unit="squared distance of features"
)
INCEPTION = ScoreKind(name="inception_score", direction="maximize", low=1.0, high=math.inf, unit="classes")
DIVERSITY = ScoreKind(
    name="diversity", direction="maximize", low=0.0, high=math.inf, unit="distance of features within a prompt"
)


@dataclass(frozen=True, kw_only=True)
class Sets:
    """What is needed to compare sets of videos."""

    load: Callable[[str, str], Mapping[str, Tensor]]
    """(configuration, pair key) -> features and probabilities."""
    reference: Reference
    """Moments of real videos."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The number of one set."""

    value: float
    """Of all its videos."""
    draws: Array
    """Of its bootstrap draws."""

    def minus(self, other: Estimate) -> Difference:
        """Paired, for both were measured on the same draws."""
        gap = self.value - other.value
        low, high = centred_interval(gap, self.draws - other.draws)
        return Difference(mean=gap, low=low, high=high)


def failures(plan: EvaluationPlan, rows: Rows, arm: Arm) -> int:
    """Pairs of which a setting has no video."""
    found = (rows.get((arm.spec.hash(), pair.key)) for pair in plan.pairs)
    return sum(row is None or bool(row.error) for row in found)


def set_rows(plan: EvaluationPlan, rows: Rows, sets: Sets) -> list[Row]:
    """Metrics of sets: on the pairs that every setting has, so that all sets are equally large and paired."""
    keys = [
        pair.key
        for pair in plan.pairs
        if all((row := rows.get((arm.spec.hash(), pair.key))) and not row.error for arm in plan.arms)
    ]
    failed = {arm.name: failures(plan, rows, arm) for arm in plan.arms}
    several = suite(plan.suite).seeds > 1
    if len(keys) <= len(sets.reference.mean):  # so many failed that the covariance would be singular
        kinds = (FRECHET, INCEPTION, *((DIVERSITY,) if several else ()))
        return [_empty(kind, arm, len(keys), failed[arm.name]) for kind in kinds for arm in plan.arms]
    prompts = [pair.prompt for pair in plan.pairs if pair.key in set(keys)]
    seen = {arm.name: [sets.load(arm.spec.hash(), key) for key in keys] for arm in plan.arms}
    features, chances = (
        {name: np.stack([one[part].numpy() for one in held]) for name, held in seen.items()}
        for part in ("features", "probabilities")
    )
    distances = _resampled(
        plan, FRECHET, features, prompts, failed, lambda part: frechet_distance(part, sets.reference)
    )
    table = distances + _resampled(plan, INCEPTION, chances, prompts, failed, inception_score)
    if several:
        spreads = {name: diversity(held, prompts) for name, held in features.items()}
        table += [_diversity_row(plan, arm, spreads, failed[arm.name]) for arm in plan.arms]
    return table


def _empty(kind: ScoreKind, arm: Arm, samples: int, failed: int) -> Row:
    return Row(
        kind=kind,
        arm=arm,
        mean=None,
        error=None,
        difference=None,
        alone=None,
        samples=samples,
        failed=failed,
        unscored=0,
    )


def _resampled(
    plan: EvaluationPlan,
    kind: ScoreKind,
    held: Mapping[str, Array],
    prompts: Sequence[str],
    failed: Mapping[str, int],
    measure: Callable[[Array], float],
) -> list[Row]:
    """One row a setting, every one measured once on draws of whole prompts."""
    draws = resamples(prompts)

    def estimated(videos: Array) -> Estimate:
        return Estimate(value=measure(videos), draws=bootstrap(lambda draw: measure(videos[draw]), draws))

    estimates = {name: estimated(videos) for name, videos in held.items()}
    baseline = plan.arms[0]
    return [
        Row(
            kind=kind,
            arm=arm,
            mean=estimates[arm.name].value,
            error=float(estimates[arm.name].draws.std(ddof=1)),
            difference=None if arm is baseline else estimates[arm.name].minus(estimates[baseline.name]),
            alone=estimates[arm.name].minus(estimates[arm.alone]) if arm.alone else None,
            samples=len(prompts),
            failed=failed[arm.name],
            unscored=0,
        )
        for arm in plan.arms
    ]


def _diversity_row(plan: EvaluationPlan, arm: Arm, spreads: Mapping[str, Mapping[str, float]], failed: int) -> Row:
    mine, baseline = spreads[arm.name], plan.arms[0]

    def minus(name: str) -> Difference | None:
        gaps = [mine[prompt] - spreads[name][prompt] for prompt in mine]
        return Difference.of(paired_interval(gaps, list(mine))) if mine else None

    values = list(mine.values())
    return Row(
        kind=DIVERSITY,
        arm=arm,
        mean=float(np.mean(values)) if values else None,
        error=finite_or_none(standard_error(values)),
        difference=None if arm is baseline else minus(baseline.name),
        alone=minus(arm.alone) if arm.alone else None,
        samples=len(values),
        failed=failed,
        unscored=0,
    )
