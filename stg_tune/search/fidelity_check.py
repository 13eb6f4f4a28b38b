"""May fewer steps stand for all of them? A few settings at both fidelities say whether they are ranked alike.

The question is about settings and pairs that are not among the few that are looked at, so both are resampled: a
two-way bootstrap (Owen 2007, *The pigeonhole bootstrap*) of Spearman's rank correlation. Resampling pairs alone would
say how well these ten settings are known, resampling settings alone would take a ranking by few noisy pairs for true.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from stg_tune.errors import StgTuneError
from stg_tune.search.bench import Bench
from stg_tune.search.encoding import Encoding
from stg_tune.search.executor import Task
from stg_tune.search.fidelity import FULL, HALF, MOST_COST, counts_as, steps_at
from stg_tune.search.objective import Judge
from stg_tune.search.screen import single_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stg_tune.records import Evaluation, GuidanceSpec, Pair
    from stg_tune.search.bench import Measurement
    from stg_tune.search.budget import Division
    from stg_tune.search.cfg_line import CfgLine
    from stg_tune.search.plan import SearchPlan

CFG_SETTINGS, SINGLE_LAYERS = 4, 6
"""Settings that are looked at: CFG-only ones, which the CFG line has measured already, and single layers."""
LEAST_SETTINGS = 6
"""Fewer settings that can be compared say nothing about ranks."""
LEAST_CORRELATION = 0.5
"""What the lower bound of the rank correlation must exceed."""
LEVEL = 0.95
"""One-sided confidence level of that bound."""
RESAMPLES = 2000
"""Bootstrap samples."""


@dataclass(frozen=True, kw_only=True)
class FidelityCheck:
    """What the check has found."""

    fidelity: str
    """What screen and trials are made with."""
    reason: str
    """Why, in words."""
    correlation: float | None = None
    """Spearman's rank correlation of mean paired gains between both fidelities; ``None``: not measured."""
    low: float | None = None
    """Its lower confidence bound."""
    cost: float | None = None
    """Median time of a cheaper evaluation over that of the same one at full fidelity."""
    settings: int = 0
    """Settings behind it."""
    pairs: int = 0
    """Pairs of each."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {**asdict(self), "least_correlation": LEAST_CORRELATION, "most_cost": MOST_COST}


def few_of(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """The pairs of the check: those on which the CFG line has measured its settings at full fidelity already."""
    return pairs[: max(len(pairs) // 2, 2)]


def check_cost(pairs: int) -> int:
    """Most evaluations of a check in a run with so many search pairs: the cheaper ones, and single layers at full."""
    few = max(pairs // 2, 2)
    cheap = pairs + (CFG_SETTINGS + SINGLE_LAYERS) * few
    return math.ceil(round(cheap * counts_as(HALF), 6)) + SINGLE_LAYERS * few


def pointless(plan: SearchPlan, division: Division, again: int) -> str:
    """Why a check cannot pay for itself, before anything is spent on it; empty when it can.

    Args:
        plan: Gives the steps.
        division: What there is to spend on screen and trials.
        again: Evaluations of the finalists that have to be made again at full fidelity.
    """
    if steps_at(HALF, plan.num_steps) == plan.num_steps:
        return f"{plan.num_steps} denoising steps cannot be fewer"
    room, cost = division.screen + division.search, check_cost(division.search_pairs) + again
    if (room - cost) / MOST_COST <= room:
        return (
            f"a check and the finalists once more would cost {cost} of the {room} evaluations of screen and trials, "
            "more than cheaper ones could save; a run that begins with a larger budget has room for it"
        )
    return ""


def run_check(
    full: Bench, plan: SearchPlan, line: CfgLine, pairs: Sequence[Pair]
) -> tuple[FidelityCheck, Bench | None]:
    """Measure the same settings at both fidelities.

    Args:
        full: Knows the baseline at full fidelity on ``pairs``.
        plan: Baseline, space, steps, seed.
        line: CFG-only settings, and the best of them, to which single layers are added.
        pairs: All search pairs.

    Returns:
        What was found, and a bench at the cheaper fidelity when it may be used, else ``None``.
    """
    tasks = [Task(spec=plan.baseline, pair=pair, role="search", fidelity=HALF) for pair in pairs]
    rows = list(full.ledger.run(tasks))
    try:
        judge = Judge.calibrate(plan.space.objective, plan.kinds, rows)
    except StgTuneError as error:
        return FidelityCheck(fidelity=FULL, reason=f"the default cannot be compared at {HALF}: {error}"), None
    cheap = Bench(full.ledger, judge, HALF)
    few = few_of(pairs)
    specs = settings_of(plan, line)
    found = compare(full.measure(specs, few), cheap.measure(specs, few), seed=plan.seed)
    return found, cheap if found.fidelity == HALF else None


def settings_of(plan: SearchPlan, line: CfgLine) -> list[GuidanceSpec]:
    """Settings for the check, the same in every session: some of the CFG line and evenly spaced single layers."""
    encoding = Encoding(space=plan.space, orders={}, num_steps=plan.num_steps)
    plain = [point.spec for point in line.points if point.spec != plan.baseline]
    layers = [encoding.single(line.best, *place) for place in single_layers(plan.space, plan.depths)]
    return _spaced(plain, CFG_SETTINGS) + _spaced(layers, SINGLE_LAYERS)


def compare(full: Sequence[Measurement], cheap: Sequence[Measurement], *, seed: int) -> FidelityCheck:
    """Rank correlation and cost of measurements of the same settings on the same pairs.

    Args:
        full: One a setting, at full fidelity.
        cheap: The same settings at the cheaper one.
        seed: Of the bootstrap.
    """
    keys = [key for key in full[0].deltas if all(key in item.deltas for item in (*full, *cheap))] if full else []
    size = {"settings": len(full), "pairs": len(keys)}
    if len(full) < LEAST_SETTINGS or len(keys) < 2:
        return FidelityCheck(fidelity=FULL, reason="too little could be compared", **size)
    gains = [np.array([[item.deltas[key] for key in keys] for item in side]) for side in (full, cheap)]
    correlation, low = rank_correlation(gains[0], gains[1], seed=seed)
    cost = _cost(full, cheap)
    reason = _reason(correlation, low, cost, len(full), len(keys))
    fidelity = HALF if low > LEAST_CORRELATION and cost < MOST_COST else FULL
    return FidelityCheck(fidelity=fidelity, reason=reason, correlation=correlation, low=low, cost=cost, **size)


def rank_correlation(
    one: NDArray[np.float64], other: NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Spearman's correlation of the rows' means, and its lower bound.

    Args:
        one: Gains, (settings, pairs).
        other: The same settings on the same pairs.
        seed: Of the bootstrap.
        resamples: Number of bootstrap samples.
    """
    dice = np.random.default_rng(seed)
    settings, pairs = one.shape
    rows = dice.integers(0, settings, (resamples, settings))[:, :, None]
    columns = dice.integers(0, pairs, (resamples, pairs))[:, None, :]
    drawn = _spearman(one[rows, columns].mean(-1), other[rows, columns].mean(-1))
    estimate = _spearman(one.mean(-1)[None], other.mean(-1)[None])
    return float(estimate[0]), float(np.quantile(drawn, 1 - LEVEL))


def _spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row of (samples, settings); 0 where one side does not vary."""
    from scipy.stats import rankdata  # here: most runs have no use for it

    x, y = (rankdata(side.round(12), axis=-1) for side in (one, other))
    x, y = (side - side.mean(-1, keepdims=True) for side in (x, y))
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    covariance: NDArray[np.float64] = (x * y).sum(-1)
    covariance[scale > 0] /= scale[scale > 0]
    return np.where(scale > 0, covariance, 0.0)


def _cost(full: Sequence[Measurement], cheap: Sequence[Measurement]) -> float:
    shares = [
        quick.seconds / slow.seconds
        for before, after in zip(full, cheap, strict=True)
        for slow, quick in zip(before.rows, after.rows, strict=True)
        if _timed(slow) and _timed(quick)
    ]
    return median(shares) if shares else math.inf


def _timed(row: Evaluation) -> bool:
    return row.seconds > 0 and not row.error


def _reason(correlation: float, low: float, cost: float, settings: int, pairs: int) -> str:
    measured = (
        f"{settings} settings on {pairs} pairs have a rank correlation of {correlation:.2f} between {HALF} and "
        f"{FULL}, at least {low:.2f} ({100 * LEVEL:g} %), at {cost:.2f} of the time"
    )
    needed = f"needed: more than {LEAST_CORRELATION:g} and less than {MOST_COST:g}"
    return f"{measured}; {needed}"


def _spaced(items: Sequence[GuidanceSpec], count: int) -> list[GuidanceSpec]:
    """At most ``count`` of the items, from all over the list."""
    count = min(count, len(items))
    return [items[(2 * at + 1) * len(items) // (2 * count)] for at in range(count)]
