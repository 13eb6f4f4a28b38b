"""What a search found, in the forms that report and preset take: the three do not know each other (no torch)."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

from stg_tune.folder import RunFolder
from stg_tune.preset import load as load_preset
from stg_tune.report import Clip, Finalist, Findings, Gain, Layer, Scorer, Trial, write_report
from stg_tune.search import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from stg_tune.records import Pair
    from stg_tune.search import SearchPlan
    from stg_tune.search.bench import Measurement
    from stg_tune.search.race import Race
    from stg_tune.search.result import SearchResult
    from stg_tune.search.screen import ScreenTable
    from stg_tune.search.statistics import Interval
    from stg_tune.search.verdict import ScorerEvidence, Verdict


CLIPS = 8
"""Held-out pairs that are filmed with the default and with the tuned setting."""


def report(directory: Path, out: Path | None = None) -> Path:
    """Write the dashboard of a run, finished or not; default ``DIR/report.html``.

    Raises:
        StgTuneError: No run, a damaged one, or a place that cannot be written.
    """
    folder, result = RunFolder.open(directory), snapshot(directory)
    preset = load_preset(folder.preset).to_dict() if folder.preset.exists() else None
    return write_report(findings_of(result, clips=_clips(folder, result), preset=preset), out or folder.report)


def filmed_pairs(plan: SearchPlan) -> tuple[Pair, ...]:
    """The last held-out pairs: no stage has chosen anything by them."""
    return plan.holdout_pairs[-CLIPS:]


def findings_of(
    result: SearchResult, *, clips: Sequence[Clip] = (), preset: Mapping[str, Any] | None = None
) -> Findings:
    """The findings of a run, finished or not.

    Args:
        result: What the search found.
        clips: Side-by-side videos.
        preset: The preset's JSON, when there is one.
    """
    plan, verdict = result.plan, result.verdict
    return Findings(
        model=plan.model,
        finished=result.finished,
        improved=verdict is not None and verdict.improved,
        default=plan.baseline,
        tuned=verdict.winner if verdict else None,
        tuned_gain=_gain(verdict.gain) if verdict else None,
        cfg=verdict.best_cfg if verdict else None,
        cfg_gain=_gain(verdict.cfg_gain) if verdict and verdict.cfg_gain else None,
        stg_gain=_gain(verdict.stg_gain) if verdict and verdict.stg_gain else None,
        cost=verdict.forwards if verdict else 0.0,
        broken=_broken(verdict),
        trials=tuple(_trials(result)),
        layers=tuple(_layers(result.screen, plan.space.screen.stg_scale)) if result.screen else (),
        depths=plan.depths,
        finalists=tuple(_finalists(result.race)) if result.race else (),
        scorers=tuple(_scorer(item) for item in verdict.scorers) if verdict else (),
        clips=tuple(clips),
        preset=preset,
        provenance=provenance(result),
    )


def provenance(result: SearchResult) -> dict[str, str]:
    """What was run, in reading order."""
    plan = result.plan
    prompts = [len({pair.prompt for pair in pairs}) for pairs in (plan.search_pairs, plan.holdout_pairs)]
    facts = {
        "model": plan.model,
        "search space": f"{plan.space.family}, {plan.space.hash()}",
        "denoising steps": str(plan.num_steps),
        "seed": str(plan.seed),
        "budget": plan.budget,
        "evaluations": f"{result.spent}, {result.failures} of them failed",
        "evaluation time": f"{result.seconds / 60:.1f} min",
        "prompts": f"{prompts[0]} to search on, {prompts[1]} held out, none in both"
        if _disjoint(result)
        else f"{prompts[0]}, with other seeds for search and held-out pairs",
        "fingerprint": plan.fingerprint(),
    }
    scorers = {f"scorer {kind.name}": f"{kind.direction}, weights {kind.weights}" for kind in plan.scorers}
    return {**facts, **scorers, **plan.versions}


def _clips(folder: RunFolder, result: SearchResult) -> list[Clip]:
    if result.verdict is None:
        return []
    kind = f"tuned-{result.verdict.winner.hash()}"
    clips = (
        Clip(prompt=pair.prompt, seed=pair.seed, baseline=folder.clip(pair, "default"), tuned=folder.clip(pair, kind))
        for pair in filmed_pairs(result.plan)
    )
    return [clip for clip in clips if clip.baseline.exists() and clip.tuned.exists()]


def _disjoint(result: SearchResult) -> bool:
    search, holdout = result.plan.search_pairs, result.plan.holdout_pairs
    return not {pair.prompt for pair in search} & {pair.prompt for pair in holdout}


def _gain(interval: Interval) -> Gain:
    return Gain(mean=interval.mean, low=interval.low, high=interval.high, pairs=interval.pairs, level=interval.level)


def _broken(verdict: Verdict | None) -> tuple[str, ...]:
    return tuple(name for name, value in verdict.violations.items() if value > 0) if verdict else ()


def _trials(result: SearchResult) -> Iterator[Trial]:
    if result.baseline is not None:
        yield _trial("baseline", result.baseline)
    yield from (_trial("published", measured) for measured in result.published.values())
    if result.cfg_line is not None:
        yield from (_trial("cfg", point) for point in result.cfg_line.points[1:])
    for trial in result.trials:
        if not trial.repeated:
            yield _trial("search", trial.measurement, pruned=trial.pruned)


def _trial(stage: str, measured: Measurement, *, pruned: bool = False) -> Trial:
    return Trial(
        stage=stage,
        spec=measured.spec,
        gains=tuple(measured.deltas.values()),
        effects=_mean_effects(measured),
        pruned=pruned,
        broken=measured.broken,
    )


def _mean_effects(measured: Measurement) -> dict[str, float]:
    terms = dict.fromkeys(term for row in measured.rows for term in row.effects)
    return {term: fmean(row.effects[term] for row in measured.rows if term in row.effects) for term in terms}


def _layers(screen: ScreenTable, scale: float) -> Iterator[Layer]:
    for score in screen.scores:
        if score.pairs and math.isfinite(score.gain):
            yield Layer(
                stack=score.stack,
                layer=score.layer,
                op=score.skip_op,
                scale=scale,
                gain=score.gain,
                error=score.standard_error,
                pairs=score.pairs,
            )


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
        gain=_gain(item.gain),
        unscored=item.unscored,
    )
