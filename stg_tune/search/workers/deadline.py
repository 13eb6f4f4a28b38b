"""How long one evaluation may take: a multiple of what the others took."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

KEPT = 201
"""Durations behind the running median."""


@dataclass(frozen=True, kw_only=True)
class DeadlineRule:
    """Limits in seconds of wall time."""

    factor: float = 5.0
    """Times the running median; guidance with several terms costs up to three times plain CFG."""
    least: float = 30.0
    """No evaluation is stopped before this."""
    first: float = 7200.0
    """The first evaluation of a worker, which may compile and fill caches, and all until one has finished."""


class Deadlines:
    """Turns durations into limits.

    Args:
        rule: The limits.
    """

    def __init__(self, rule: DeadlineRule) -> None:
        self._rule = rule
        self._known: deque[float] = deque(maxlen=KEPT)

    @property
    def known(self) -> bool:
        """Whether any evaluation has finished."""
        return bool(self._known)

    def note(self, seconds: float) -> None:
        """One more evaluation took ``seconds``."""
        self._known.append(seconds)

    def limit(self, *, fresh: bool, pairs: int = 1) -> float:
        """Seconds that the next evaluation of ``pairs`` may take; ``fresh``: it is the first of its worker."""
        if not self._known:
            return self._rule.first
        usual = max(self._rule.factor * median(self._known) * pairs, self._rule.least)
        return max(usual, self._rule.first) if fresh else usual

    def explain(self, limit: float) -> str:
        """The limit in words."""
        if not self._known:
            return f"no result after {limit:.0f} s, the limit of a first evaluation"
        return f"no result after {limit:.0f} s; the median of the others is {median(self._known):.1f} s"
