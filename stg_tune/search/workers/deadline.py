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
    """Times the running median; guidance with several terms costs up to three times plain CFG. A worker that has
    finished nothing yet must compile and fill caches: it gets as many times the slowest first evaluation of others."""
    least: float = 30.0
    """No evaluation is stopped before this."""
    first: float = 7200.0
    """Until an evaluation has finished, and at most for the first evaluation of a worker."""
    patience: float = 4.0
    """By how much the limit grows for a task that has hit it: on a machine that others slow down, evaluations of a
    fifth of the speed are no fault of their configuration."""
    patient: float = 300.0
    """No limit grows beyond this by patience alone."""


class Deadlines:
    """Turns durations into limits.

    Args:
        rule: The limits.
    """

    def __init__(self, rule: DeadlineRule) -> None:
        self._rule = rule
        self._usual: deque[float] = deque(maxlen=KEPT)
        self._first: deque[float] = deque(maxlen=KEPT)
        self._slowest_first = 0.0

    @property
    def known(self) -> bool:
        """Whether any evaluation has finished."""
        return bool(self._usual or self._first)

    def note(self, seconds: float, *, pairs: int = 1, fresh: bool = False) -> None:
        """``pairs`` evaluations took ``seconds`` each; ``fresh``: they were the first of their worker."""
        (self._first if fresh else self._usual).append(seconds)
        if fresh:
            self._slowest_first = max(self._slowest_first, seconds * pairs)

    def limit(self, *, fresh: bool, pairs: int = 1, again: bool = False) -> float:
        """Seconds that an evaluation of ``pairs`` may take.

        Args:
            fresh: It is the first of its worker.
            pairs: Evaluated together.
            again: The task has hit its limit before.
        """
        rule = self._rule
        if not self.known:
            return rule.first
        usual = max(rule.factor * self._median() * pairs, rule.least)
        warm = min(rule.factor * self._slowest_first, rule.first) if fresh else 0.0
        patient = min(rule.patience * usual, rule.patient) if again else 0.0
        return max(usual, warm, patient)

    def explain(self, limit: float) -> str:
        """The limit in words."""
        if not self.known:
            return f"no result after {limit:.0f} s, the limit until an evaluation has finished"
        return f"no result after {limit:.0f} s; the median of the others is {self._median():.1f} s"

    def _median(self) -> float:
        return median(self._usual or self._first)
