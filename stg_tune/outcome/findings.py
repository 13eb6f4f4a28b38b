"""The result of a search as the findings of a report."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

from stg_tune.outcome.evidence import arms, by_setting, concluded, gain_of, pair_gains
from stg_tune.outcome.provenance import about_published, provenance, warnings
from stg_tune.report import Clip, Finalist, Findings, Guard, Knob, Layer, Scorer, Trial

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stg_tune.report import Ballot
    from stg_tune.search.bench import Measurement
    from stg_tune.search.race import Race
    from stg_tune.search.result import SearchResult
    from stg_tune.search.storage import Row
    from stg_tune.search.verdict import ScorerEvidence, Verdict


def findings_of(
    result: SearchResult,
    *,
    rows: Iterable[Row] = (),
    clips: Sequence[Clip] = (),
    preset: Mapping[str, Any] | None = None,
    exports: Sequence[tuple[str, str]] = (),
    votes: Sequence[Ballot] = (),
    knobs: Sequence[Knob] = (),
    effect_steps: Mapping[str, tuple[float | None, ...]] | None = None,
) -> Findings:
    """The findings of a run, finished or not.

    Args:
        result: What the search found.
        rows: The stored evaluations, for what is shown pair by pair.
        clips: Side-by-side videos.
        preset: The preset's JSON, when there is one.
        exports: (tool, command that writes the preset for it).
        votes: The blind vote.
        knobs: Importance of what was searched.
        effect_steps: Effect of the winner's terms in every step.
    """
    plan, verdict, table = result.plan, result.verdict, by_setting(rows)
    return Findings(
        model=plan.model,
        finished=result.finished,
        improved=verdict is not None and verdict.improved,
        reason=verdict.reason if verdict else "",
        default=plan.baseline,
        tuned=verdict.winner if verdict else None,
        tuned_gain=concluded(verdict.gain) if verdict else None,
        cfg=verdict.best_cfg if verdict else None,
        cfg_gain=concluded(verdict.cfg_gain) if verdict and verdict.cfg_gain else None,
        stg_gain=concluded(verdict.stg_gain) if verdict and verdict.stg_gain else None,
        cost=verdict.forwards if verdict else 0.0,
        broken=_broken(verdict),
        trials=tuple(_trials(result)),
        layers=tuple(_layers(result)),
        depths=plan.depths,
        finalists=tuple(_finalists(result.race)) if result.race else (),
        scorers=tuple(_scorer(item) for item in verdict.scorers) if verdict else (),
        clips=tuple(clips),
        preset=preset,
        provenance=provenance(result),
        published=dict(plan.published),
        published_note=about_published(result),
        arms=arms(result, table),
        prompts=pair_gains(result, table),
        knobs=tuple(knobs),
        effect_steps=dict(effect_steps or {}),
        guards=tuple(_guards(verdict)) if verdict else (),
        screen_gain=_screen_gain(result),
        exports=tuple(exports),
        votes=tuple(votes),
        warnings=tuple(warnings(result)),
        loras=tuple(_loras(plan.loras)),
        price=plan.space.objective.price,
    )


def _loras(identity: Mapping[str, str]) -> Iterator[str]:
    """As the command line takes them; the reader knows where the files are."""
    for name, what in identity.items():
        yield f"{name.removeprefix('lora ')}={what.rpartition(' at ')[2]}"


def _broken(verdict: Verdict | None) -> tuple[str, ...]:
    """Guards that the estimate breaks, or failed pairs; those that are merely not proved to hold are told apart."""
    if verdict is None:
        return ()
    unproved = {guard.name for guard in verdict.guards if not guard.broken}
    return tuple(name for name, value in verdict.violations.items() if value > 0 and name not in unproved)


def _guards(verdict: Verdict) -> Iterator[Guard]:
    for item in verdict.guards:
        state = "holds" if item.holds else "broken" if item.broken else "not proved"
        yield Guard(name=item.name, limit=item.limit, value=gain_of(item.value), state=state, why=item.why)


def _trials(result: SearchResult) -> Iterator[Trial]:
    if result.baseline is not None:
        yield _trial("baseline", result.baseline, result)
    yield from (_trial("published", measured, result) for measured in result.published.values())
    if result.cfg_line is not None:
        yield from (_trial("cfg", point, result) for point in result.cfg_line.points[1:])
    for trial in result.trials:
        if not trial.repeated:
            yield _trial("search", trial.measurement, result, pruned=trial.pruned)


def _trial(stage: str, measured: Measurement, result: SearchResult, *, pruned: bool = False) -> Trial:
    default = result.trial_baseline if stage == "search" else result.baseline
    return Trial(
        stage=stage,
        spec=measured.spec,
        gains=tuple(measured.deltas.values()),
        effects=_mean_effects(measured),
        pruned=pruned,
        broken=measured.broken,
        cost=_relative(measured.forwards, default),
        motion=_motion(measured, default) if "motion" in result.plan.kinds else None,
    )


def _mean_effects(measured: Measurement) -> dict[str, float]:
    terms = dict.fromkeys(term for row in measured.rows for term in row.effects)
    return {term: fmean(row.effects[term] for row in measured.rows if term in row.effects) for term in terms}


def _relative(forwards: float, default: Measurement | None) -> float:
    """Denoiser work over that of the default; 0 when unknown."""
    base = default.forwards if default else 0.0
    return forwards / base if base else 0.0


def _motion(measured: Measurement, default: Measurement | None) -> float | None:
    """Mean motion over that of the default on the same pairs."""
    if default is None:
        return None
    old = {row.pair.key: row.scores["motion"] for row in default.rows if "motion" in row.scores}
    both = [
        (row.scores["motion"], old[row.pair.key]) for row in measured.rows if _has_motion(row.scores, row.pair.key, old)
    ]
    total = sum(before for _, before in both)
    return sum(now for now, _ in both) / total if total > 0 else None


def _has_motion(scores: Mapping[str, float], key: str, old: Mapping[str, float]) -> bool:
    return "motion" in scores and key in old


def _layers(result: SearchResult) -> Iterator[Layer]:
    scale = result.plan.space.screen.stg_scale
    for score in result.screen.scores if result.screen else ():
        if score.pairs and math.isfinite(score.gain):
            yield Layer(
                stack=score.stack,
                layer=score.layer,
                op=score.skip_op,
                scale=scale,
                gain=score.gain,
                error=score.standard_error,
                pairs=score.pairs,
                effect=score.effect or None,
                cost=_relative(score.forwards, result.trial_baseline),
            )


def _screen_gain(result: SearchResult) -> float:
    """Gain over the default of the CFG-only setting that the screen added single layers to."""
    if result.screen is None or result.cfg_line is None:
        return 0.0
    wanted = result.screen.reference
    means = [point.mean for point in result.cfg_line.points if point.spec == wanted and point.deltas]
    return means[0] if means else 0.0


def _finalists(race: Race) -> Iterator[Finalist]:
    for item in race.finalists:
        standings = [heat.standing[item.name] for heat in race.heats if item.name in heat.standing]
        yield Finalist(
            name=item.name,
            spec=item.spec,
            in_sample=item.in_sample.mean,
            held_out=standings[-1] if standings else None,
        )


def _scorer(item: ScorerEvidence) -> Scorer:
    return Scorer(
        name=item.name,
        unit=item.unit,
        weight=item.weight,
        baseline=item.baseline,
        tuned=item.value,
        gain=gain_of(item.gain),
        unscored=item.unscored,
        more_is_better=item.direction == "maximize",
    )
