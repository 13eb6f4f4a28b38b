"""Findings -> prompts: where the tuned setting helps and where it hurts (standard library only)."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.report.findings import Findings, PairGain, Scorer

SHOWN = 5
"""Prompts at each end of the table."""
PANELS = 6
"""Scorers with a scatter of their own."""


class PromptRow(NamedTuple):
    """One prompt, all its seeds together."""

    prompt: str
    gain: float
    seeds: tuple[int, ...]


class PromptFacts(NamedTuple):
    """The two ends, and how many lie on which side."""

    best: tuple[PromptRow, ...]
    """Where it helps most, best first."""
    worst: tuple[PromptRow, ...]
    """Where it hurts most, or helps least, worst first; none of ``best`` is among them."""
    better: int
    total: int


class ScatterPoint(NamedTuple):
    """One pair in one scorer."""

    default: float
    tuned: float
    better: bool
    label: str


class ScatterFacts(NamedTuple):
    """One scorer on every confirmation pair."""

    scorer: str
    unit: str
    points: tuple[ScatterPoint, ...]
    better: int


def prompt_facts(findings: Findings) -> PromptFacts:
    """Prompts by their mean gain."""
    groups: defaultdict[str, list[PairGain]] = defaultdict(list)
    for pair in findings.prompts:
        groups[pair.prompt].append(pair)
    rows = sorted((_row(prompt, pairs) for prompt, pairs in groups.items()), key=lambda row: row.gain, reverse=True)
    best = tuple(rows[:SHOWN])
    worst = tuple(reversed(rows[SHOWN:][-SHOWN:]))
    return PromptFacts(best, worst, sum(row.gain > 0 for row in rows), len(rows))


def scatter_facts(findings: Findings) -> tuple[ScatterFacts, ...]:
    """Default against tuned for each scorer, those that weigh most first; at most ``PANELS`` scorers."""
    scorers = sorted(findings.scorers, key=lambda item: -item.weight)[:PANELS]
    facts = (_scatter(item, findings.prompts) for item in scorers)
    return tuple(item for item in facts if item.points)


def _row(prompt: str, pairs: Sequence[PairGain]) -> PromptRow:
    return PromptRow(prompt, fmean(pair.gain for pair in pairs), tuple(pair.seed for pair in pairs))


def _scatter(scorer: Scorer, pairs: Sequence[PairGain]) -> ScatterFacts:
    points = []
    for pair in pairs:
        if scorer.name not in pair.scores:
            continue
        default, tuned = pair.scores[scorer.name]
        better = tuned > default if scorer.more_is_better else tuned < default
        points.append(ScatterPoint(default, tuned, better, f"{pair.prompt} (seed {pair.seed})"))
    return ScatterFacts(scorer.name, scorer.unit, tuple(points), sum(point.better for point in points))
