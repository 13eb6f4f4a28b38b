"""What the votes say: a win rate with an interval for each question."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from stg_tune.vote.votes import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.vote.votes import Vote

LEVEL = 0.95
"""Confidence level of the intervals."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The answers to one question about one comparison."""

    question: str
    """A name of ``QUESTIONS``."""
    a: str
    """The setting that the other is compared with."""
    b: str
    """The setting whose wins are counted."""
    wins: int
    """Votes for ``b``."""
    losses: int
    """Votes for ``a``."""
    ties: int
    """Votes that saw no difference."""
    voters: int
    """People who answered."""
    pairs: int
    """Pairs that were answered."""
    rate: float
    """Share of wins, ties counted half; 0.5 is no preference."""
    low: float
    """Lower end of its interval; about people in general, with one voter about that voter only."""
    high: float
    """Upper end."""
    level: float
    """Two-sided confidence level."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return asdict(self)

    def words(self) -> str:
        """One sentence."""
        judgement = "preferred" if self.low > 0.5 else "the other is preferred" if self.high < 0.5 else "not told apart"
        if self.voters == 1:
            judgement = f"{judgement} (this voter's preference, nobody else was asked)"
        counts = f"{self.wins} for, {self.losses} against, {_count(self.ties, 'tie')}"
        return (
            f"{self.question}: {judgement}, {self.rate:.0%} [{self.low:.0%}, {self.high:.0%}] (ties count half); "
            f"{counts}; {_count(self.voters, 'voter')}, {_count(self.pairs, 'pair')}"
        )


@dataclass(frozen=True, kw_only=True)
class Point:
    """One vote as a number."""

    prompt: str
    """What was asked for."""
    voter: str
    """Who."""
    value: float
    """1 a win, 0 a loss, 0.5 a tie."""


def tally(votes: Sequence[Vote], a: str, b: str, *, level: float = LEVEL) -> tuple[Tally, ...]:
    """Count the votes about ``a`` and ``b``, one result for each question that somebody answered.

    Votes that were cast with the settings the other way round count too.

    Args:
        votes: Any votes.
        a: Name of a setting.
        b: Name of the setting whose wins are counted.
        level: Two-sided confidence level.
    """
    mine = [vote for vote in votes if {vote.a, vote.b} == {a, b}]
    answers = {name: [vote for vote in mine if vote.question == name] for name, _ in QUESTIONS}
    return tuple(_tally(name, found, a, b, level) for name, found in answers.items() if found)


def _tally(question: str, votes: Sequence[Vote], a: str, b: str, level: float) -> Tally:
    points = [Point(prompt=vote.prompt, voter=vote.voter, value=_points(vote, b)) for vote in votes]
    rate = fmean(point.value for point in points)
    low, high = wilson(rate, effective_votes(points, level=level), level=level)
    return Tally(
        question=question,
        a=a,
        b=b,
        wins=sum(point.value == 1 for point in points),
        losses=sum(point.value == 0 for point in points),
        ties=sum(point.value == 0.5 for point in points),
        voters=len({vote.voter for vote in votes}),
        pairs=len({vote.pair for vote in votes}),
        rate=rate,
        low=low,
        high=high,
        level=level,
    )


def _points(vote: Vote, b: str) -> float:
    if vote.choice == "tie":
        return 0.5
    return float((vote.a if vote.choice == "a" else vote.b) == b)


def wilson(rate: float, trials: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22, 209), within [0, 1].

    Args:
        rate: Observed share, 0 to 1.
        trials: Independent trials behind it, above 0; need not be whole.
        level: Two-sided confidence level.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def effective_votes(points: Sequence[Point], *, level: float = LEVEL) -> float:
    """Independent votes that say as much: votes about one prompt resemble each other, and so do those of one voter.

    Both come together as in Cameron, Gelbach and Miller 2011 (J. Bus. Econ. Stat. 29, 238): the variance with prompts
    as clusters, plus the one with voters as clusters, less that of independent votes. Few prompts or voters are known
    badly, so the number shrinks by ``(t of votes - 1 / t of clusters - 1)^2``, the smaller number of clusters counting
    (Korn and Graubard 1998, Survey Methodology 24, 193). With one voter the statement is about that voter, and only
    prompts are clusters.

    Args:
        points: The votes.
        level: Two-sided confidence level of the interval.
    """
    parts = [[(point.prompt, point.value) for point in points]]
    if len({point.voter for point in points}) > 1:
        parts.append([(point.voter, point.value) for point in points])
    effect = 1 + sum(design_effect(part) - 1 for part in parts)
    fewest = min(len({group for group, _ in part}) for part in parts)
    return len(points) / effect * _few(len(points), fewest, level)


def _few(count: int, clusters: int, level: float) -> float:
    from scipy.special import stdtrit  # here: the page is served without it

    if clusters < 2:
        return 1.0  # the worst case is in the design effect already
    share = (1 + level) / 2
    return float(stdtrit(count - 1, share) / stdtrit(clusters - 1, share)) ** 2


def design_effect(points: Sequence[tuple[str, float]]) -> float:
    """By how much the votes overstate their number, because several votes about one prompt resemble each other.

    The variance of the share with prompts as clusters over that of independent votes (Kish 1965, section 8.2). At least
    1; where it cannot be estimated, the worst case: every further vote about a prompt says nothing new.

    Args:
        points: Prompt (or voter) and outcome of each vote: 1 a win, 0 a loss, 0.5 a tie.
    """
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for prompt, value in points:
        groups[prompt].append(value)
    count, clusters = len(points), len(groups)
    rate = fmean(value for _, value in points)
    if clusters < 2 or rate in (0, 1):
        return count / clusters
    spread = sum(sum(value - rate for value in group) ** 2 for group in groups.values())
    return max(1.0, clusters / (clusters - 1) * spread / (count * rate * (1 - rate)))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
