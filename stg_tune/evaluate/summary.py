"""From finished pairs to the table: mean, standard error, and the paired differences to CFG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stg_tune.evaluate.distances import clustered_error
from stg_tune.evaluate.rows import Difference, Row, finite_or_none
from stg_tune.evaluate.sets import Sets, failures, set_rows
from stg_tune.search.statistics import paired_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.evaluate.arms import Arm
    from stg_tune.evaluate.plan import EvaluationPlan
    from stg_tune.evaluate.sets import Rows
    from stg_tune.records import ScoreKind

    Values = Mapping[str, float]
    """Pair key -> score."""


def summarise(plan: EvaluationPlan, rows: Rows, kinds: Sequence[ScoreKind], sets: Sets | None) -> list[Row]:
    """The whole table, metric by metric; a pair that a setting has no score of is left out of both sides."""
    table = [row for kind in kinds for row in _score_rows(plan, rows, kind)]
    return table + (set_rows(plan, rows, sets) if sets else [])


def _score_rows(plan: EvaluationPlan, rows: Rows, kind: ScoreKind) -> list[Row]:
    values = {arm.name: _values(plan, rows, arm, kind.name) for arm in plan.arms}
    prompts = {pair.key: pair.prompt for pair in plan.pairs}
    baseline = values[plan.arms[0].name]
    table = []
    for arm in plan.arms:
        mine, failed = values[arm.name], failures(plan, rows, arm)
        both = [key for key in mine if key in baseline]
        table.append(
            Row(
                kind=kind,
                arm=arm,
                mean=float(np.mean([mine[key] for key in both])) if both else None,
                error=_error(mine, both, prompts),
                difference=None if arm is plan.arms[0] else _difference(mine, baseline, prompts),
                alone=_difference(mine, values[arm.alone], prompts) if arm.alone else None,
                samples=len(both),
                failed=failed,
                unscored=len(plan.pairs) - failed - len(mine),
            )
        )
    return table


def _values(plan: EvaluationPlan, rows: Rows, arm: Arm, name: str) -> Values:
    found = {pair.key: rows.get((arm.spec.hash(), pair.key)) for pair in plan.pairs}
    return {key: row.scores[name] for key, row in found.items() if row and not row.error and name in row.scores}


def _error(mine: Values, keys: Sequence[str], prompts: Mapping[str, str]) -> float | None:
    if not keys:
        return None
    return finite_or_none(clustered_error([mine[key] for key in keys], [prompts[key] for key in keys]))


def _difference(mine: Values, theirs: Values, prompts: Mapping[str, str]) -> Difference | None:
    both = [key for key in mine if key in theirs]
    if not both:
        return None
    gaps = [mine[key] - theirs[key] for key in both]
    return Difference.of(paired_interval(gaps, [prompts[key] for key in both]))
