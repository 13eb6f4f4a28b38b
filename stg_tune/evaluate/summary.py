"""From finished pairs to the table: mean, standard error, and the paired difference to plain CFG."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stg_tune.evaluate.distances import (
    Reference,
    basic_interval,
    bootstrap,
    diversity,
    frechet_distance,
    inception_score,
)
from stg_tune.evaluate.suites import suite
from stg_tune.search.statistics import paired_interval, standard_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from stg_tune.evaluate.plan import Arm, EvaluationPlan
    from stg_tune.records import Direction, Evaluation, ScoreKind

    Rows = Mapping[tuple[str, str], Evaluation]
    Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one arm."""

    metric: str
    """Name of a score, or ``frechet_distance``, ``inception_score``, ``diversity``."""
    direction: Direction
    """Which way is better."""
    arm: str
    """Name of the setting."""
    curve: str
    """Which curve the arm is a point of."""
    scale: float | None
    """Where on it."""
    mean: float
    """Mean over pairs, or the number of the whole set."""
    error: float | None
    """Standard error of it."""
    difference: float | None
    """Paired difference to the baseline, in the metric's unit; ``None`` for the baseline itself."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end."""
    samples: int
    """Pairs behind it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; what is not finite is ``null``."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True, kw_only=True)
class Sets:
    """What is needed to compare sets of videos."""

    load: Callable[[str, str], Mapping[str, Tensor]]
    """(configuration, pair key) -> features and probabilities."""
    reference: Reference
    """Moments of real videos."""


def summarise(plan: EvaluationPlan, rows: Rows, kinds: Sequence[ScoreKind], sets: Sets | None) -> list[Row]:
    """The whole table, metric by metric; a pair that an arm failed on or could not score is left out of both sides."""
    directions: dict[str, Direction] = {kind.name: kind.direction for kind in kinds}
    others = {name for row in rows.values() for name in row.scores} - set(directions)
    names = [*directions, *sorted(others)]
    table = [
        row
        for name in names
        for arm in plan.arms
        if (row := _score_row(plan, rows, arm, name, directions.get(name, "maximize"))) is not None
    ]
    return table + (_set_rows(plan, rows, sets) if sets else [])


def _score_row(plan: EvaluationPlan, rows: Rows, arm: Arm, name: str, direction: Direction) -> Row | None:
    baseline = plan.arms[0]
    here = _values(plan, rows, arm, name)
    if not here:
        return None
    both = [key for key in here if key in _values(plan, rows, baseline, name)]
    reference = _values(plan, rows, baseline, name)
    difference: dict[str, float | None] = {"difference": None, "low": None, "high": None}
    if arm is not baseline and both:
        prompts = {pair.key: pair.prompt for pair in plan.pairs}
        gap = paired_interval([here[key] - reference[key] for key in both], [prompts[key] for key in both])
        difference = {"difference": gap.mean, "low": gap.low, "high": gap.high}
    values = list(here.values())
    return _row(arm, name, direction, float(np.mean(values)), standard_error(values), len(values), difference)


def _values(plan: EvaluationPlan, rows: Rows, arm: Arm, name: str) -> dict[str, float]:
    """Pair key -> score."""
    found = {pair.key: rows.get((arm.spec.hash(), pair.key)) for pair in plan.pairs}
    return {key: row.scores[name] for key, row in found.items() if row and not row.error and name in row.scores}


def _row(
    arm: Arm,
    metric: str,
    direction: Direction,
    mean: float,
    error: float,
    samples: int,
    difference: Mapping[str, float | None],
) -> Row:
    return Row(
        metric=metric,
        direction=direction,
        arm=arm.name,
        curve=arm.curve,
        scale=arm.scale,
        mean=mean,
        error=error if math.isfinite(error) else None,
        difference=difference["difference"],
        low=difference["low"],
        high=difference["high"],
        samples=samples,
    )


def _set_rows(plan: EvaluationPlan, rows: Rows, sets: Sets) -> list[Row]:
    """Metrics of sets: on the pairs that every arm has, so that all sets are equally large and paired."""
    keys = [
        pair.key
        for pair in plan.pairs
        if all((row := rows.get((arm.spec.hash(), pair.key))) and not row.error for arm in plan.arms)
    ]
    if len(keys) < 2:
        return []
    prompts = {pair.key: pair.prompt for pair in plan.pairs}
    seen = {arm.name: [sets.load(arm.spec.hash(), key) for key in keys] for arm in plan.arms}
    features = {name: np.stack([one["features"].numpy() for one in held]) for name, held in seen.items()}
    chances = {name: np.stack([one["probabilities"].numpy() for one in held]) for name, held in seen.items()}
    measures: list[tuple[str, Direction, Callable[[Array], float], Mapping[str, Array]]] = [
        ("frechet_distance", "minimize", lambda part: frechet_distance(part, sets.reference), features),
        ("inception_score", "maximize", inception_score, chances),
    ]
    table = [
        _resampled(arm, plan.arms[0], metric, direction, measure, held)
        for metric, direction, measure, held in measures
        for arm in plan.arms
    ]
    if suite(plan.suite).seeds > 1:
        spreads = {name: diversity(rows_, [prompts[key] for key in keys]) for name, rows_ in features.items()}
        table += [_diversity_row(arm, plan.arms[0], spreads) for arm in plan.arms if spreads[arm.name]]
    return table


def _resampled(
    arm: Arm,
    baseline: Arm,
    metric: str,
    direction: Direction,
    measure: Callable[[Array], float],
    held: Mapping[str, Array],
) -> Row:
    mine, theirs = held[arm.name], held[baseline.name]
    value = measure(mine)
    draws = bootstrap(lambda chosen: measure(mine[chosen]), len(mine))
    difference: dict[str, float | None] = {"difference": None, "low": None, "high": None}
    if arm is not baseline:
        gap = value - measure(theirs)
        gaps = draws - bootstrap(lambda chosen: measure(theirs[chosen]), len(theirs))
        low, high = basic_interval(gap, gaps)
        difference = {"difference": gap, "low": low, "high": high}
    return _row(arm, metric, direction, value, float(draws.std(ddof=1)), len(mine), difference)


def _diversity_row(arm: Arm, baseline: Arm, spreads: Mapping[str, Mapping[str, float]]) -> Row:
    mine, theirs = spreads[arm.name], spreads[baseline.name]
    difference: dict[str, float | None] = {"difference": None, "low": None, "high": None}
    if arm is not baseline:
        gap = paired_interval([mine[prompt] - theirs[prompt] for prompt in mine], list(mine))
        difference = {"difference": gap.mean, "low": gap.low, "high": gap.high}
    values = list(mine.values())
    return _row(arm, "diversity", "maximize", float(np.mean(values)), standard_error(values), len(values), difference)
