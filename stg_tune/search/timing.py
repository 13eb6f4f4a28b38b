"""A budget of time is kept: the search stage ends when what is left is needed for the evidence that follows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stg_tune.search.budget import BUDGETS, LEAST, Budget, divide
from stg_tune.search.fidelity import counts_as

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.search.storage import Row

LEAST_TRIALS = 4
"""Trials that are made however late it is; without any, no layer could be proposed."""
LEAST_CONFIRM = divide(LEAST, layers=1).confirm
"""Held-out pairs an arm that are compared however late it is: those of the smallest budget."""
MOST = 10 * BUDGETS["large"]
"""Evaluations that a time comes to at most."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How time has been used so far, and how long an evaluation takes now."""

    elapsed: float
    """Seconds that the run has worked, over all sessions."""
    worked: float
    """Seconds of evaluations, of all workers together."""
    seconds_each: float
    """Seconds of one evaluation on one worker, above 0."""
    slots: int
    """Workers."""

    def affordable(self, budget: Budget) -> float:
        """Evaluations that there is still time for; infinite when the budget is no time, below 0 when it is over."""
        if budget.seconds is not None:
            return (budget.seconds - self.elapsed) * self.slots / self.seconds_each
        if budget.worker_seconds is not None:
            return (budget.worker_seconds - self.worked) / self.seconds_each
        return math.inf


def confirmation(left: float, before: int, arms: int, planned: int) -> int:
    """Held-out pairs an arm for which there is still time.

    Args:
        left: Evaluations that there is time for.
        before: Those of the stages before the confirmation.
        arms: Settings that are compared.
        planned: Pairs when there is time enough.
    """
    return min(planned, max(int((left - before) / arms), LEAST_CONFIRM))


def is_longer(new: Budget, old: Budget) -> bool:
    """Whether a budget is more time than another; budgets of different kinds cannot be told, and pass."""
    for one, other in ((new.seconds, old.seconds), (new.worker_seconds, old.worker_seconds)):
        if one is not None and other is not None:
            return one > other
    return True


def extended(budget: Budget, rows: Sequence[Row], *, elapsed: float, slots: int) -> int:
    """A budget that is given to a run that has begun, in evaluations: those that are stored and what time is left for.

    Args:
        budget: Of the whole run; if it is a time, what an evaluation takes is the mean of ``rows``.
        rows: Everything stored, at least one.
        elapsed: Seconds that the run has worked; 0: unknown.
        slots: Workers, as far as they are known before the first of them has come.
    """
    if budget.evaluations is not None:
        return budget.evaluations
    done = sum(counts_as(row.fidelity) for row in rows)
    worked = sum(row.evaluation.seconds for row in rows)
    each = max(worked / done, 1e-9)
    workers = max(slots, round(worked / elapsed)) if elapsed else slots
    pace = Pace(elapsed=elapsed or worked / workers, worked=worked, seconds_each=each, slots=workers)
    return min(math.ceil(round(done, 6)) + max(int(pace.affordable(budget)), 0), MOST)
