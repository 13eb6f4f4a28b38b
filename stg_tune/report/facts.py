"""Findings -> facts: the numbers and sentences of the page, without any drawing (standard library only)."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stg_tune.records import GuidanceSpec, SkipTerm
    from stg_tune.report.findings import Findings, Gain, Layer

UNIT = "baseline standard deviations"
"""Unit of the gain of a whole setting."""


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
    """The three gains that are always told apart, the ones that exist."""
    rows = (
        ("tuned vs default", findings.tuned_gain),
        ("CFG retuned vs default", findings.cfg_gain),
        ("STG vs CFG retuned", findings.stg_gain),
    )
    return tuple(GainRow(label, gain) for label, gain in rows if gain is not None)


def layer_facts(findings: Findings) -> LayerFacts:
    """Gain of every measured single layer, a stack and an operation at a time."""
    points = sorted(findings.layers, key=lambda point: (point.stack, point.op, point.layer))
    return LayerFacts(dict(findings.depths), tuple(points), _chosen(findings.tuned))


def history_facts(findings: Findings) -> tuple[HistoryPoint, ...]:
    """Every scored configuration in order, with the best mean gain so far.

    Only configurations that saw all their pairs and keep the guards count for the best.
    """
    points: list[HistoryPoint] = []
    best = -math.inf
    for number, trial in enumerate(findings.trials):
        if not trial.gains:
            continue
        mean, error = mean_and_error(trial.gains)
        counts = not (trial.pruned or trial.broken)
        best = max(best, mean) if counts else best
        label = "; ".join([describe(trial.spec), *(f"breaks {guard}" for guard in trial.broken)])
        points.append(HistoryPoint(number, trial.stage, mean, error, best, len(trial.gains), counts, label))
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
    """Each scorer with a judgement: better, worse, or not told apart."""
    return tuple(
        ScorerRow(item.name, item.unit, item.weight, item.baseline, item.tuned, item.gain, judgement(item.gain))
        for item in findings.scorers
    )


def judgement(gain: Gain) -> str:
    """``better``, ``worse`` or ``not told apart``."""
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "not told apart"


def mean_and_error(values: tuple[float, ...]) -> tuple[float, float]:
    """Mean and standard error of the mean; the error of a single value is infinite (unknown, not zero)."""
    mean = statistics.fmean(values)
    return mean, statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def terms(spec: GuidanceSpec) -> Iterator[SkipTerm]:
    """Every term of every segment whose scale is not zero."""
    return (term for segment in spec.segments for term in segment.terms if term.stg_scale)


def describe(spec: GuidanceSpec) -> str:
    """A specification on one line: ``CFG 3; attention of spatial 4, 5 at 0.5 in [0, 0.8)``."""
    parts = [f"CFG {spec.cfg_scale:.3g}"]
    for segment in spec.segments:
        window = "" if (segment.start, segment.stop) == (0, 1) else f" in [{segment.start:.3g}, {segment.stop:.3g})"
        if segment.cfg_scale not in (None, spec.cfg_scale):
            parts.append(f"CFG {segment.cfg_scale:.3g}{window}")
        parts += [f"{_describe_term(term)}{window}" for term in segment.terms if term.stg_scale]
        if segment.rescale:
            parts.append(f"rescale {segment.rescale:.3g}{window}")
    return "; ".join(parts)


def interval(gain: Gain) -> str:
    """``+0.42 [+0.10, +0.74]``."""
    return f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def _sentences(findings: Findings) -> Iterator[str]:
    gain = findings.tuned_gain
    if gain is None or findings.tuned is None:
        yield "No setting was found that could race against the default."
        return
    yield (
        f"Against the default ({describe(findings.default)}) the tuned setting gains {interval(gain)} {UNIT} on "
        f"{gain.pairs} held-out pairs ({100 * gain.level:.3g} % interval){_doubt(gain)}."
    )
    yield f"The tuned setting is: {describe(findings.tuned)}{_cost(findings.cost)}."
    if findings.broken:
        yield f"It breaks the guard {', '.join(findings.broken)}, so it does not count as an improvement."
    yield _cfg_part(findings)
    if findings.stg_gain is not None:
        yield f"STG's own part, over the retuned CFG, is {interval(findings.stg_gain)}{_doubt(findings.stg_gain)}."


def _cfg_part(findings: Findings) -> str:
    if findings.cfg is None or findings.cfg_gain is None:
        return "No CFG scale without STG was found that beats the default."
    return (
        f"Retuning CFG alone ({describe(findings.cfg)}) gains {interval(findings.cfg_gain)}{_doubt(findings.cfg_gain)}."
    )


def _doubt(gain: Gain) -> str:
    if gain.low > 0:
        return ""
    return ": the videos get worse" if gain.high < 0 else ", not told apart from zero"


def _cost(cost: float) -> str:
    return f"; it costs {cost:.2f} times the denoiser work of the default" if cost else ""


def _chosen(spec: GuidanceSpec | None) -> dict[str, tuple[int, ...]]:
    chosen: defaultdict[str, set[int]] = defaultdict(set)
    for term in terms(spec) if spec is not None else ():
        for stack, indices in term.skip_layers.items():
            chosen[stack].update(indices)
    return {stack: tuple(sorted(indices)) for stack, indices in chosen.items()}


def _describe_term(term: SkipTerm) -> str:
    layers = " + ".join(f"{stack} {', '.join(map(str, indices))}" for stack, indices in term.skip_layers.items())
    branch = "" if term.branch == "cond" else f" on the {term.branch} branch"
    return f"{term.skip_op} of {layers} at {term.stg_scale:.3g}{branch}"
