"""The best setting without skip guidance: CFG scale and rescale get a search of their own, so that STG must beat it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stg_tune.search.encoding import build_spec, rescale_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stg_tune.records import GuidanceSpec, Pair
    from stg_tune.search.belief import Learner
    from stg_tune.search.bench import Bench, Measurement
    from stg_tune.search.ranges import Range
    from stg_tune.search.space import SearchSpace

GRID = 5
"""CFG scales of the first round, from one end of the range to the other."""
RESCALES = (0.35, 0.7)
"""Rescale factors tried at the best CFG scale, as fractions of the range."""
FINALS = 2
"""Settings that are measured on all search pairs."""


@dataclass(frozen=True, kw_only=True)
class CfgLine:
    """What CFG alone can do."""

    points: tuple[Measurement, ...]
    """Every CFG-only setting that was tried, the baseline first; in-sample."""
    best: GuidanceSpec
    """The best of them on the search pairs; the baseline when nothing is expected to beat it."""


def run_cfg_line(
    bench: Bench,
    space: SearchSpace,
    baseline: GuidanceSpec,
    pairs: Sequence[Pair],
    budget: int,
    learner: Learner | None = None,
) -> CfgLine:
    """Search CFG scale and rescale coarse to fine: a grid, the midpoints beside its best, rescale, a final.

    The final, on all pairs, holds the best point and the top of a parabola through all points. It is decided by what is
    to be expected after all points, the baseline's gain being 0 for certain: the best mean of a handful of pairs is
    mostly luck, and a bad CFG scale would spoil all that is tried on top of it.

    Args:
        bench: Measures.
        space: Ranges of ``cfg_scale`` and ``rescale``.
        baseline: The model's default; it is measured already and takes part for nothing.
        pairs: All search pairs; the rounds before the last use the first half.
        budget: Most evaluations.
        learner: Says what is to be expected; ``None``: the means decide, as in runs of ``SearchPlan.rules`` 1.
    """
    few = pairs[: max(len(pairs) // 2, 2)]
    known = {baseline.hash(): bench.measure([baseline], pairs)[0]}
    begun, kept = bench.ledger.spent, len(pairs) - len(few) if learner else 0

    def measure(specs: Iterable[GuidanceSpec], on: Sequence[Pair]) -> None:
        room = budget - (kept if on == few else 0)  # so that a final is always possible
        wanted: dict[str, GuidanceSpec] = {}
        for spec in specs:
            if spec.hash() in known and len(known[spec.hash()].rows) >= len(on):
                continue
            if bench.ledger.spent - begun + bench.missing([*wanted.values(), spec], on) <= room:
                wanted[spec.hash()] = spec
        for measured in bench.measure([*wanted.values()], on):  # together: all workers have something to do
            known[measured.config] = measured

    measure(_grid(space.cfg_scale), few)
    measure(_beside(_best(bench, known, few), space.cfg_scale), few)
    top = _best(bench, known, few)
    measure((build_spec(cfg_scale=top.cfg_scale, rescale=_at(space.rescale, part)) for part in RESCALES), few)
    ranked = sorted(known.values(), key=lambda point: _rank(bench, point, few), reverse=True)
    smooth = _smoothed(list(known.values()), space.cfg_scale, rescale_of(ranked[0].spec))
    measure([*smooth, *(point.spec for point in ranked[:FINALS])][:FINALS], pairs)
    finals = [point for point in known.values() if len(point.rows) == len(pairs)]
    if learner is None:
        best = max(finals, key=lambda point: (point.feasible, point.mean))
    else:
        worth = _expected(learner, known[baseline.hash()], list(known.values()))
        best = max(finals, key=lambda point: (point.feasible, worth[point.config]))
    return CfgLine(points=tuple(known.values()), best=best.spec)


def _expected(learner: Learner, baseline: Measurement, points: Sequence[Measurement]) -> dict[str, float]:
    """Setting -> expected gain over the baseline."""
    belief = learner.learn([point for point in points if point.config != baseline.config])
    gains = belief([point.spec for point in points]).gain.tolist()
    return {point.config: gain for point, gain in zip(points, gains, strict=True)} | {baseline.config: 0.0}


def _best(bench: Bench, known: dict[str, Measurement], pairs: Sequence[Pair]) -> GuidanceSpec:
    return max(known.values(), key=lambda point: _rank(bench, point, pairs)).spec


def _rank(bench: Bench, point: Measurement, pairs: Sequence[Pair]) -> tuple[bool, float]:
    """Feasible first, then the mean on ``pairs`` only (the baseline is known on more)."""
    keys = {pair.key for pair in pairs}
    same = bench.judged(point.spec, [row for row in point.rows if row.pair.key in keys])
    return same.feasible, same.mean


def _smoothed(points: Sequence[Measurement], scale: Range, rescale: float) -> list[GuidanceSpec]:
    """The top of a parabola through all points without rescale: one noisy point cannot decide alone."""
    plain = [point for point in points if point.deltas and not rescale_of(point.spec)]
    if len({point.spec.cfg_scale for point in plain}) < 4:
        return []
    scales, means = [point.spec.cfg_scale for point in plain], [point.mean for point in plain]
    curve, slope, _ = np.polyfit(scales, means, 2, w=[len(point.deltas) ** 0.5 for point in plain])
    if curve >= 0:
        return []
    return [build_spec(cfg_scale=scale.clip(float(-slope / (2 * curve))), rescale=rescale)]


def _grid(scale: Range) -> list[GuidanceSpec]:
    return [build_spec(cfg_scale=_at(scale, index / (GRID - 1))) for index in range(GRID)]


def _beside(best: GuidanceSpec, scale: Range) -> list[GuidanceSpec]:
    step = (scale.high - scale.low) / (GRID - 1) / 2
    cfg_scales = (scale.clip(best.cfg_scale - step), scale.clip(best.cfg_scale + step))
    return [build_spec(cfg_scale=cfg, rescale=rescale_of(best)) for cfg in cfg_scales]


def _at(item: Range, part: float) -> float:
    return (
        item.low * (item.high / item.low) ** part if item.scale == "log" else item.low + (item.high - item.low) * part
    )
