"""What a search will cost, from three timed evaluations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stg_tune.search.budget import ARMS
from stg_tune.search.driver import preview
from stg_tune.search.encoding import Encoding
from stg_tune.search.executor import Task, attempt
from stg_tune.search.screen import single_layers

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.records import GuidanceSpec
    from stg_tune.search.budget import Division
    from stg_tune.search.executor import Evaluate
    from stg_tune.search.plan import SearchPlan


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of wall time of one evaluation on one worker, generation and scores."""

    plain: float
    """Without skip guidance."""
    guided: float
    """With one skipped layer."""
    first: float
    """The very first, which warms up."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan will cost."""

    division: Division
    """Evaluations of each stage."""
    timing: Timing
    """Seconds of one evaluation."""
    workers: int
    """Workers that share them."""
    worker_seconds: float
    """Time of all workers together."""

    @property
    def seconds(self) -> float:
        """Wall time when the workers are always busy, each as fast as the one that was timed."""
        return self.timing.first + self.worker_seconds / self.workers


def probe(
    evaluate: Evaluate, plan: SearchPlan, *, batch: int = 1, clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """Time the default twice, the first time to warm up, and a setting that skips the middle layer of a stack.

    Args:
        evaluate: Generates and scores.
        plan: What is to be done.
        batch: Pairs that a worker takes at once; the time is that of one of them.
        clock: Seconds.

    Raises:
        Exception: What ``evaluate`` raises, failures of the configuration apart.
    """
    specs = (plan.baseline, plan.baseline, _guided(plan))
    first, *more = plan.search_pairs[:batch]
    seconds = []
    for spec in specs:
        begun = clock()
        attempt(evaluate, Task(spec=spec, pair=first, more=tuple(more), role="search"))
        seconds.append((clock() - begun) / (1 + len(more)))
    return Timing(first=seconds[0], plain=seconds[1], guided=seconds[2])


def estimate(plan: SearchPlan, timing: Timing, *, workers: int) -> Estimate:
    """The cost of a plan: the default and CFG-only settings at the plain price, everything else at the guided one."""
    division = preview(plan, seconds_each=timing.plain, slots=workers)
    plain = division.search_pairs + division.cfg + (ARMS - 1) * division.confirm
    guided = division.total - plain
    together = plain * timing.plain + guided * timing.guided
    return Estimate(division=division, timing=timing, workers=workers, worker_seconds=together)


def _guided(plan: SearchPlan) -> GuidanceSpec:
    places = single_layers(plan.space, plan.depths)
    if not places:
        return plan.baseline
    stack, op, layer = places[len([place for place in places if place[:2] == places[0][:2]]) // 2]
    return Encoding(space=plan.space, orders={}, num_steps=plan.num_steps).single(plan.baseline, stack, op, layer)
