"""Findings -> facts: the numbers and sentences of the page, without any drawing (standard library only)."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from stg_tune.report.words import UNIT, describe, doubt, interval, judgement, net_of, plural, terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stg_tune.records import GuidanceSpec
    from stg_tune.report.findings import Findings, Gain, Layer


__all__ = [
    "GainRow",
    "HistoryPoint",
    "LayerFacts",
    "ScorerRow",
    "TermPoint",
    "Verdict",
    "describe",
    "gain_rows",
    "history_facts",
    "layer_facts",
    "mean_and_error",
    "scorer_rows",
    "term_facts",
    "verdict",
]


class Verdict(NamedTuple):
    """The outcome in words."""

    headline: str
    improved: bool
    sentences: tuple[str, ...]


class GainRow(NamedTuple):
    """One row of the gain plot."""

    label: str
    gain: Gain


class LayerFacts(NamedTuple):
    """Score against layer."""

    depths: dict[str, int]
    points: tuple[Layer, ...]
    chosen: dict[str, tuple[int, ...]]
    published: dict[str, tuple[tuple[str, str, int], ...]]
    """Name of a published setting -> its (stack, operation, layer)."""
    summary: str


class HistoryPoint(NamedTuple):
    """One configuration of the run."""

    number: int
    stage: str
    gain: float
    error: float
    best: float
    pairs: int
    counts: bool
    label: str
    spent: float
    """Work up to here, in videos with the default setting."""
    pruned: bool


class TermPoint(NamedTuple):
    """One term of one configuration."""

    term: str
    op: str
    scale: float
    effect: float | None
    gain: float
    pairs: int
    label: str


class ScorerRow(NamedTuple):
    """One scorer in words."""

    name: str
    unit: str
    weight: float
    baseline: float
    tuned: float
    gain: Gain
    judgement: str


def verdict(findings: Findings) -> Verdict:
    """Say whether the tuned setting is better, by how much, and whose doing that is."""
    if not findings.finished:
        return Verdict("Not finished", False, ("There is no held-out evidence yet: resume the run.",))
    headline = f"{findings.model} gets better" if findings.improved else f"No improvement found for {findings.model}"
    return Verdict(headline, findings.improved, tuple(_sentences(findings)))


def gain_rows(findings: Findings) -> tuple[GainRow, ...]:
    """The three gains that are always told apart and the published settings, the ones that exist."""
    rows = (
        ("tuned vs default", findings.tuned_gain),
        ("CFG retuned vs default", findings.cfg_gain),
        ("STG vs CFG retuned", findings.stg_gain),
        *((f"{arm.name} vs default", arm.gain) for arm in findings.arms if arm.name.startswith("published")),
    )
    return tuple(GainRow(label, gain) for label, gain in rows if gain is not None)


def layer_facts(findings: Findings) -> LayerFacts:
    """Gain of every measured single layer, a stack and an operation at a time."""
    points = tuple(sorted(findings.layers, key=lambda point: (point.stack, point.op, point.layer)))
    published = {name: _places(spec) for name, spec in findings.published.items()}
    return LayerFacts(dict(findings.depths), points, _chosen(findings.tuned), published, _best_layer(points))


def history_facts(findings: Findings) -> tuple[HistoryPoint, ...]:
    """Every scored configuration in order, with the best mean gain so far and the work spent up to it.

    Only configurations that saw all their pairs and keep the guards count for the best. The screen's work is spent
    before the first configuration of the search.
    """
    points: list[HistoryPoint] = []
    best, spent = -math.inf, 0.0
    screen = sum(layer.pairs * (layer.cost or 1.0) for layer in findings.layers)
    for number, trial in enumerate(findings.trials):
        if trial.stage == "search":
            spent, screen = spent + screen, 0.0
        spent += len(trial.gains) * (trial.cost or 1.0)
        if not trial.gains:
            continue
        mean, error = mean_and_error(trial.gains)
        counts = not (trial.pruned or trial.broken)
        best = max(best, mean) if counts else best
        label = "; ".join([describe(trial.spec), *(f"breaks {guard}" for guard in trial.broken)])
        pairs, pruned = len(trial.gains), trial.pruned
        points.append(HistoryPoint(number, trial.stage, mean, error, best, pairs, counts, label, spent, pruned))
    return tuple(points)


def term_facts(findings: Findings) -> tuple[TermPoint, ...]:
    """Every term of every scored configuration: scale, effect and the configuration's mean gain."""
    return tuple(
        TermPoint(
            term.name,
            term.skip_op,
            term.stg_scale,
            trial.effects.get(term.name),
            statistics.fmean(trial.gains),
            len(trial.gains),
            describe(trial.spec),
        )
        for trial in findings.trials
        if trial.gains
        for term in terms(trial.spec)
    )


def scorer_rows(findings: Findings) -> tuple[ScorerRow, ...]:
    """Each scorer with a judgement, in its own unit: better, worse, or not told apart."""
    return tuple(
        ScorerRow(item.name, item.unit, item.weight, item.baseline, item.tuned, item.gain, judgement(item.gain))
        for item in findings.scorers
    )


def mean_and_error(values: tuple[float, ...]) -> tuple[float, float]:
    """Mean and standard error of the mean; the error of a single value is infinite (unknown, not zero)."""
    mean = statistics.fmean(values)
    return mean, statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def _sentences(findings: Findings) -> Iterator[str]:
    gain = findings.tuned_gain
    if gain is None or findings.tuned is None:
        yield "No setting was found that could race against the default."
        return
    if findings.reason:
        yield f"{findings.reason[0].upper()}{findings.reason[1:]}."
    yield (
        f"Against the default ({describe(findings.default)}) the tuned setting gains {interval(gain)} {UNIT} on "
        f"{gain.pairs} held-out pairs ({100 * gain.level:.3g} % interval){doubt(gain)}."
    )
    if findings.price and not findings.reason:  # a reason says it
        yield net_of(findings.price)
    yield f"The tuned setting is: {describe(findings.tuned)}{_cost(findings.cost)}."
    if findings.broken:
        yield f"It breaks the guard {', '.join(findings.broken)}, so it does not count as an improvement."
    unproved = [guard.name for guard in findings.guards if guard.state == "not proved"]
    if unproved:
        yield f"Not proved to hold, so it does not count as an improvement: the guard {', '.join(unproved)}."
    yield _cfg_part(findings)
    if findings.stg_gain is not None:
        yield f"STG's own part, over the retuned CFG, is {interval(findings.stg_gain)}{doubt(findings.stg_gain)}."
    yield from (_published_part(arm.name, arm.gain) for arm in findings.arms if arm.name.startswith("published"))
    if findings.published_note:
        yield findings.published_note


def _cfg_part(findings: Findings) -> str:
    if findings.cfg is None or findings.cfg_gain is None:
        return "No CFG scale without STG was found that beats the default."
    return (
        f"Retuning CFG alone ({describe(findings.cfg)}) gains {interval(findings.cfg_gain)}{doubt(findings.cfg_gain)}."
    )


def _published_part(name: str, gain: Gain) -> str:
    return f"The setting {name} gains {interval(gain)} on {plural(gain.pairs, 'pair')}{doubt(gain)}."


def _cost(cost: float) -> str:
    return f"; it costs {cost:.2f} times the denoiser work of the default" if cost else ""


def _best_layer(points: Sequence[Layer]) -> str:
    if not points:
        return ""
    best = max(points, key=lambda point: point.gain)
    error = f" ± {best.error:.2f}" if math.isfinite(best.error) else ""
    helpful = sum(point.gain - 2 * point.error > 0 for point in points)
    return (
        f"Best single block: {best.stack} {best.layer} ({best.op}), {best.gain:+.2f}{error}. "
        f"{helpful} of {len(points)} lie above zero by more than two standard errors."
    )


def _places(spec: GuidanceSpec) -> tuple[tuple[str, str, int], ...]:
    found = (
        (stack, str(term.skip_op), layer)
        for term in terms(spec)
        for stack, indices in term.skip_layers.items()
        for layer in indices
    )
    return tuple(dict.fromkeys(found))


def _chosen(spec: GuidanceSpec | None) -> dict[str, tuple[int, ...]]:
    chosen: defaultdict[str, set[int]] = defaultdict(set)
    for stack, _, layer in _places(spec) if spec is not None else ():
        chosen[stack].add(layer)
    return {stack: tuple(sorted(indices)) for stack, indices in chosen.items()}
