"""Which held-out pairs choose the winner, and which ones, of other prompts, measure it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stg_tune.search.budget import select_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.records import Pair
    from stg_tune.search.budget import Division
    from stg_tune.search.plan import SearchPlan

CHOOSING = 3
"""One in so many held-out prompts may choose the winner; the others measure it."""
LEAST_APART = 3
"""Fewer held-out prompts cannot be divided: both parts see all of them."""
FEW_PROMPTS = 20
"""With fewer prompts in the confirmation the user is warned."""


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """The two uses of the held-out pairs."""

    select: tuple[Pair, ...]
    """Pairs that choose the winner among the finalists."""
    confirm: tuple[Pair, ...]
    """Pairs that measure it; as many as the budget pays for are used, from the front."""

    @property
    def warning(self) -> str:
        """What is wrong with the prompts, for the user; empty: nothing."""
        chosen, measured = (prompts_of(pairs) for pairs in (self.select, self.confirm))
        shared = len(set(chosen) & set(measured))
        if shared and len(measured) < LEAST_APART:
            return f"too few prompts for a choice and a confirmation apart: the result holds for these {shared} only"
        if shared:
            return (
                f"{shared} prompts of the confirmation have chosen the winner too, so its gain may be stated too high"
            )
        if len(measured) < FEW_PROMPTS:
            return (
                f"{len(measured)} prompts in the confirmation are few, so intervals are wide: give 40 prompts or more"
            )
        return ""

    def first(self, confirm: int) -> Holdout:
        """The same with only so many pairs in the confirmation."""
        return Holdout(select=self.select, confirm=self.confirm[:confirm])


def holdout_of(plan: SearchPlan, division: Division) -> Holdout:
    """Divide the held-out pairs, by prompts where there are enough of them.

    The choice gets one prompt for each of its pairs, but not more than a third of all, then further seeds of them. What
    the settings gain on a prompt has chosen the winner; another seed of that prompt would flatter it.

    Args:
        plan: Gives the held-out pairs, and the rules of the time when the run was begun.
        division: Of the run's first budget, so that the choice is the same however often the run is extended.
    """
    pairs = plan.holdout_pairs
    count = min(select_pairs(division.select), len(pairs) // 4)
    prompts = prompts_of(pairs)
    if plan.rules < 2 or len(prompts) < LEAST_APART:
        return Holdout(select=pairs[:count], confirm=pairs[count:])
    own = set(prompts[: min(count, len(prompts) // CHOOSING)])
    return Holdout(
        select=tuple(pair for pair in pairs if pair.prompt in own)[:count],
        confirm=tuple(pair for pair in pairs if pair.prompt not in own),
    )


def prompts_of(pairs: Sequence[Pair]) -> list[str]:
    """The prompts of pairs, each once, in their order."""
    return list(dict.fromkeys(pair.prompt for pair in pairs))
