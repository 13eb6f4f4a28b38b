"""Who races on held-out pairs after the trials: the best of them, and the best that CFG alone is believed to do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.search.encoding import is_cfg_only

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stg_tune.records import GuidanceSpec
    from stg_tune.search.belief import Belief
    from stg_tune.search.budget import Division
    from stg_tune.search.study import Trial

TRIAL_FINALISTS = 3
"""Best trials that race."""


def repeated_finalists(division: Division) -> int:
    """Evaluations that make the best trials again at full fidelity, after a search at a cheaper one."""
    return TRIAL_FINALISTS * division.search_pairs


def best_trials(trials: Sequence[Trial], belief: Belief) -> list[Trial]:
    """The trials with skip guidance of which most is expected and that surely enough keep the guards.

    Where these are fewer than ``TRIAL_FINALISTS``, those that keep the guards as measured follow, by their means. A
    stopped trial is taken only when no other is there.
    """
    stg = [trial for trial in trials if not trial.repeated and not is_cfg_only(trial.measurement.spec)]
    places = {item.config: place for place, (item, _) in enumerate(belief.ranking)}
    sure = [trial for trial in stg if trial.measurement.config in places]
    sure.sort(key=lambda trial: (trial.pruned, places[trial.measurement.config]))
    able = [trial for trial in stg if trial.measurement.feasible]
    able.sort(key=lambda trial: (not trial.pruned, trial.measurement.mean), reverse=True)
    rest = [trial for trial in able if trial.measurement.config not in places]
    ranked = (sure or able) if belief.strict else sure + rest
    whole = [trial for trial in ranked if not trial.pruned]
    return whole[:TRIAL_FINALISTS] or ranked[:1]


def best_cfg_only(belief: Belief, of_line: GuidanceSpec, chosen: Iterable[GuidanceSpec]) -> GuidanceSpec:
    """What skip guidance has to beat: the setting without it of which most is expected after the whole search.

    The CFG line sees a few settings only. A trial may have come by a better one, and the chosen settings without their
    skips are candidates as well: where CFG scale and rescale are what helps, skip guidance must not get the credit.

    Args:
        belief: After all trials.
        of_line: The best setting of the CFG line; it stays where nothing is expected to beat both it and the default.
        chosen: Settings that will race.
    """
    tried = [item.spec for item in belief.measured if is_cfg_only(item.spec)]
    candidates = [of_line, *tried, *map(without_skips, chosen)]
    best, worth = max(zip(candidates, belief.worth(candidates), strict=True), key=lambda item: item[1])
    return best if worth > 0 else of_line


def without_skips(spec: GuidanceSpec) -> GuidanceSpec:
    """The same CFG scales, rescale and restart without any skipped layer."""
    bare = [replace(segment, terms=(), combination="independent") for segment in spec.segments]
    return replace(spec, segments=tuple(item for item in bare if item.rescale or item.cfg_scale is not None))
