"""What the votes say: a win rate with an interval for each question (standard library only)."""

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
    """Lower end of its interval."""
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
        counts = f"{self.wins} for, {self.losses} against, {_count(self.ties, 'tie')}"
        return (
            f"{self.question}: {judgement}, {self.rate:.0%} [{self.low:.0%}, {self.high:.0%}] (ties count half); "
            f"{counts}; {_count(self.voters, 'voter')}, {_count(self.pairs, 'pair')}"
        )


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
    points = [(vote.prompt, _points(vote, b)) for vote in votes]
    rate = fmean(value for _, value in points)
    low, high = wilson(rate, len(points) / design_effect(points), level=level)
    return Tally(
        question=question,
        a=a,
        b=b,
        wins=sum(value == 1 for _, value in points),
        losses=sum(value == 0 for _, value in points),
        ties=sum(value == 0.5 for _, value in points),
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


def design_effect(points: Sequence[tuple[str, float]]) -> float:
    """By how much the votes overstate their number, because several votes about one prompt resemble each other.

    The variance of the share with prompts as clusters over that of independent votes (Kish 1965, section 8.2); the
    interval then takes the number of votes divided by it (Korn and Graubard 1998, Survey Methodology 24, 193). At least
    1; where it cannot be estimated, the worst case: every further vote about a prompt says nothing new.

    Args:
        points: Prompt and outcome of each vote: 1 a win, 0 a loss, 0.5 a tie.
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
