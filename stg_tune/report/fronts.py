"""Findings -> trade-offs: what quality costs in work and in motion (standard library only)."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Literal, NamedTuple

from stg_tune.report.words import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.report.findings import Findings, Trial

Kind = Literal["default", "published", "CFG only", "search", "tuned"]


class FrontPoint(NamedTuple):
    """One configuration."""

    x: float
    """Relative cost or relative motion."""
    gain: float
    pairs: int
    kind: Kind
    label: str
    best: bool
    """No other configuration is at least as good in both."""


class FrontFacts(NamedTuple):
    """Configurations and the front of those that nothing beats in both."""

    points: tuple[FrontPoint, ...]
    front: tuple[FrontPoint, ...]
    """From left to right."""


def cost_front(findings: Findings) -> FrontFacts:
    """Gain against denoiser work over that of the default; less work is better."""
    return _front(findings, [trial.cost or None for trial in findings.trials], less_is_better=True)


def motion_front(findings: Findings) -> FrontFacts:
    """Gain against motion over that of the default; more motion is better."""
    return _front(findings, [trial.motion for trial in findings.trials], less_is_better=False)


def _front(findings: Findings, values: Sequence[float | None], *, less_is_better: bool) -> FrontFacts:
    """Only whole trials that keep the guards: a mean over the first few pairs is no result."""
    tried = [
        (trial, value, _quality(trial, findings))
        for trial, value in zip(findings.trials, values, strict=True)
        if value is not None and trial.gains and not trial.pruned and not trial.broken
    ]
    sign = 1.0 if less_is_better else -1.0
    best: set[int] = set()
    top = float("-inf")
    for index in sorted(range(len(tried)), key=lambda index: (sign * tried[index][1], -tried[index][2])):
        if tried[index][2] > top:
            top = tried[index][2]
            best.add(index)
    points = tuple(
        FrontPoint(value, gain, len(trial.gains), _kind(trial, findings), describe(trial.spec), index in best)
        for index, (trial, value, gain) in enumerate(tried)
    )
    return FrontFacts(points, tuple(sorted(point for point in points if point.best)))


def _quality(trial: Trial, findings: Findings) -> float:
    """The gain before any price: a front must not pay for work on both axes."""
    return fmean(trial.gains) + (findings.price * (trial.cost - 1) if trial.cost else 0.0)


def _kind(trial: Trial, findings: Findings) -> Kind:
    if trial.stage == "baseline":
        return "default"
    if trial.spec == findings.tuned:
        return "tuned"
    if trial.stage == "published":
        return "published"
    return "CFG only" if trial.stage == "cfg" else "search"
