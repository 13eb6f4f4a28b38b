"""From the result of a search to a preset."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.preset.evidence import Evidence, GainInterval, GuardValue, ScorerGain
from stg_tune.preset.record import CombineSpace, Preset

if TYPE_CHECKING:
    from stg_tune.models.base import GenerationDefaults
    from stg_tune.search.differences import GuardEvidence
    from stg_tune.search.result import SearchResult
    from stg_tune.search.statistics import Interval
    from stg_tune.search.verdict import ScorerEvidence, Verdict


def from_result(
    result: SearchResult,
    *,
    family: str,
    checkpoint: str,
    revision: str = "",
    generation: GenerationDefaults,
    combine_space: CombineSpace = "velocity",
    name: str = "",
    date: str = "",
) -> Preset:
    """The preset of the winner, with its evidence.

    Args:
        result: A finished search that found an improvement.
        family: Model family.
        checkpoint: Hub id, or ``embedded``.
        revision: Revision or checksum of the checkpoint.
        generation: How the videos were made.
        combine_space: Space in which predictions are combined.
        name: For people; default: model and date.
        date: ``YYYY-MM-DD``; default: today (UTC).

    Raises:
        StgTuneError: The search is not finished, or found nothing that is better than the default.
    """
    verdict = result.verdict
    if verdict is None:
        raise StgTuneError("the search has no verdict yet: go on with stg-tune resume")
    if not verdict.improved:
        raise StgTuneError(f"there is no preset to write: {verdict.reason}; the model's default stays the best known")
    day = date or datetime.now(UTC).date().isoformat()
    return Preset(
        name=name or f"{result.plan.model} {day}",
        family=family,
        model=result.plan.model,
        checkpoint=checkpoint,
        revision=revision,
        stacks=result.plan.depths,
        spec=verdict.winner,
        combine_space=combine_space,
        generation=generation,
        evidence=_evidence(result, verdict, day),
    )


def _evidence(result: SearchResult, verdict: Verdict, day: str) -> Evidence:
    return Evidence(
        improved=verdict.improved,
        reason=verdict.reason,
        baseline=result.plan.baseline,
        best_cfg=verdict.best_cfg,
        gain=_interval(verdict.gain),
        stg_gain=_interval(verdict.stg_gain) if verdict.stg_gain else None,
        cfg_gain=_interval(verdict.cfg_gain) if verdict.cfg_gain else None,
        scorers=tuple(_scorer(item) for item in verdict.scorers),
        guards=verdict.violations,
        relative_cost=verdict.forwards,
        evaluations=result.spent,
        budget=result.plan.budget,
        looks=verdict.looks,
        seed=result.plan.seed,
        versions=result.plan.versions,
        date=day,
        guard_values=tuple(_guard(item) for item in verdict.guards if item.measured),
        warning=verdict.warning,
    )


def _guard(item: GuardEvidence) -> GuardValue:
    return GuardValue(name=item.name, rule=item.rule, limit=item.limit, value=_interval(item.value), holds=item.holds)


def _interval(interval: Interval) -> GainInterval:
    return GainInterval(
        mean=interval.mean,
        low=interval.low if math.isfinite(interval.low) else None,
        high=interval.high if math.isfinite(interval.high) else None,
        level=interval.level,
        pairs=interval.pairs,
        clusters=interval.clusters,
    )


def _scorer(item: ScorerEvidence) -> ScorerGain:
    return ScorerGain(
        name=item.name,
        direction=item.direction,
        unit=item.unit,
        weights=item.weights,
        weight=item.weight,
        baseline=item.baseline,
        value=item.value,
        spread=item.spread,
        gain=_interval(item.gain),
        unscored=item.unscored,
    )
