"""Every single layer on its own: which layers are worth offering to the search, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from stg_tune.records import GuidanceSpec, Pair, SkipOp
from stg_tune.search.encoding import Encoding, Orders, Params
from stg_tune.search.statistics import standard_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.search.bench import Bench, Measurement
    from stg_tune.search.space import SearchSpace

LEAST_PAIRS = 2
"""Pairs of one layer, at least."""

SINGLES = 3
"""Best single layers that the search begins with."""
TESTED = 2
"""Settings of the screen that two workers evaluate, because the default does not exercise what skips."""

Place = tuple[str, SkipOp, int]
"""(stack, operation, layer)."""


@dataclass(frozen=True, kw_only=True)
class LayerScore:
    """What skipping one layer did."""

    stack: str
    """Its stack."""
    skip_op: SkipOp
    """How it was skipped."""
    layer: int
    """Its index."""
    gain: float
    """Mean paired difference to the same setting without the term, in baseline standard deviations."""
    standard_error: float
    """Of ``gain`` over pairs."""
    pairs: int
    """Pairs behind it; 0: not measured, ``gain`` lies between its measured neighbours."""
    effect: float
    """Mean ``||c - p|| / ||c||`` of the term; 0 when unknown."""
    forwards: float
    """Mean denoiser-forward equivalents a video."""


@dataclass(frozen=True, kw_only=True)
class ScreenTable:
    """The screen's result."""

    reference: GuidanceSpec
    """The CFG-only setting that every layer was added to."""
    scores: tuple[LayerScore, ...]
    """One a (stack, op, layer), in that order."""
    orders: Orders
    """(stack, op) -> layers, best first."""
    measured: tuple[Measurement, ...] = ()
    """The measurements behind ``scores``."""


def single_layers(space: SearchSpace, depths: Mapping[str, int]) -> list[Place]:
    """Every (stack, op, layer) that the space allows."""
    stacks = {name: stack for name, stack in space.stacks.items() if stack.max_layers}
    return [(name, op, layer) for name, stack in stacks.items() for op in stack.ops for layer in range(depths[name])]


def run_screen(
    bench: Bench,
    space: SearchSpace,
    depths: Mapping[str, int],
    reference: GuidanceSpec,
    pairs: Sequence[Pair],
    budget: int,
) -> ScreenTable:
    """Try single layers: all when the budget allows, else evenly strided ones and then the neighbours of the best.

    What is left of the budget doubles the pairs of the best layers, whose order matters most.

    Args:
        bench: Measures.
        space: Stacks, operations, strength.
        depths: Stack name -> number of blocks.
        reference: The CFG-only setting that the layers are added to.
        pairs: Search pairs; the first few are used.
        budget: Most evaluations.
    """
    encoding = Encoding(space=space, orders={}, num_steps=1)
    begun = bench.ledger.spent
    places = single_layers(space, depths)
    each = min(max(budget // max(len(places), 1), LEAST_PAIRS), len(pairs))
    few = pairs[:each]
    plain = bench.measure([reference], few)[0]
    known: dict[Place, Measurement] = {}

    def measure(wanted: Sequence[Place]) -> None:
        affordable = max((budget - (bench.ledger.spent - begun)) // each, 0)
        batch = [place for place in wanted if place not in known][:affordable]
        specs = [encoding.single(reference, *place) for place in batch]
        known.update(zip(batch, bench.measure(specs, few), strict=True))

    room = budget // each
    stride = 1 if len(places) <= room else -(-len(places) * 3 // (room * 2))
    strided = [place for place in places if place[2] % stride == stride // 2]
    bench.measure_twice([encoding.single(reference, *place) for place in strided[:TESTED]], few[:1])
    measure(strided)
    while bench.ledger.spent - begun + each <= budget and len(known) < len(places):
        measure([_next_neighbour(known, places)])
    deeper = pairs[: 2 * each]
    room = budget - (bench.ledger.spent - begun) - bench.missing([reference], deeper)
    top = _best_first(known, plain)[: max(room // max(len(deeper) - each, 1), 0)]
    if len(deeper) > each and top:
        plain = bench.measure([reference], deeper)[0]
        known.update(zip(top, bench.measure([known[place].spec for place in top], deeper), strict=True))
    scores = tuple(_score(place, known, plain) for place in places)
    return ScreenTable(reference=reference, scores=scores, orders=rank(scores), measured=tuple(known.values()))


def rank(scores: Sequence[LayerScore]) -> Orders:
    """Layers of each (stack, op), best first; of equal gains the later layer: prefix reuse makes it cheaper."""
    groups: dict[tuple[str, SkipOp], list[LayerScore]] = {}
    for score in scores:
        groups.setdefault((score.stack, score.skip_op), []).append(score)
    return {
        group: tuple(item.layer for item in sorted(items, key=lambda item: (item.gain, item.layer), reverse=True))
        for group, items in groups.items()
    }


def suggest(table: ScreenTable, encoding: Encoding) -> list[Params]:
    """Where the search begins: the best single layers, the best two of one stack, the best of every stack at once."""
    measured = [score for score in table.scores if score.pairs]
    best = sorted(measured, key=lambda score: (score.gain, score.layer), reverse=True)[:SINGLES]
    wanted = [(score.skip_op, {score.stack: (_rank_of(score, table), 1)}) for score in best]
    if best:
        wanted.append((best[0].skip_op, {best[0].stack: (0, 2)}))
        everywhere: dict[str, tuple[int, int]] = {stack: (0, 1) for stack, op in table.orders if op == best[0].skip_op}
        wanted.append((best[0].skip_op, everywhere))
    found = [encoding.params_for(table.reference, op, ranks) for op, ranks in wanted]
    return [params for params in found if params is not None]


def _rank_of(score: LayerScore, table: ScreenTable) -> int:
    return list(table.orders[score.stack, score.skip_op]).index(score.layer)


def _best_first(known: Mapping[Place, Measurement], plain: Measurement) -> list[Place]:
    return sorted(known, key=lambda place: fmean(_gains(known[place], plain) or [float("-inf")]), reverse=True)


def _next_neighbour(known: Mapping[Place, Measurement], places: Sequence[Place]) -> Place:
    """The unmeasured layer whose nearest measured layer of the same (stack, op) is best."""

    def promise(place: Place) -> tuple[float, int]:
        near = [other for other in known if other[:2] == place[:2]]
        if not near:
            return float("inf"), 0
        closest = min(near, key=lambda other: abs(other[2] - place[2]))
        return known[closest].mean, -abs(closest[2] - place[2])

    return max((place for place in places if place not in known), key=promise)


def _score(place: Place, known: Mapping[Place, Measurement], plain: Measurement) -> LayerScore:
    stack, op, layer = place
    measured = known.get(place)
    if measured is None:
        return LayerScore(
            stack=stack,
            skip_op=op,
            layer=layer,
            gain=_between(place, known, plain),
            standard_error=float("inf"),
            pairs=0,
            effect=0.0,
            forwards=0.0,
        )
    gains = _gains(measured, plain)
    effects = [value for row in measured.rows for value in row.effects.values()]
    return LayerScore(
        stack=stack,
        skip_op=op,
        layer=layer,
        gain=fmean(gains) if gains else float("-inf"),
        standard_error=standard_error(gains),
        pairs=len(gains),
        effect=fmean(effects) if effects else 0.0,
        forwards=measured.forwards,
    )


def _gains(measured: Measurement, plain: Measurement) -> list[float]:
    return [delta - plain.deltas[key] for key, delta in measured.deltas.items() if key in plain.deltas]


def _between(place: Place, known: Mapping[Place, Measurement], plain: Measurement) -> float:
    """Linear interpolation between the measured neighbours on both sides."""
    same = {other[2]: item for other, item in known.items() if other[:2] == place[:2]}
    below = max((layer for layer in same if layer < place[2]), default=None)
    above = min((layer for layer in same if layer > place[2]), default=None)
    ends = [layer for layer in (below, above) if layer is not None]
    if not ends:
        return float("-inf")
    gain = {layer: fmean(_gains(same[layer], plain) or [float("-inf")]) for layer in ends}
    if below is None or above is None:
        return gain[ends[0]]
    part = (place[2] - below) / (above - below)
    return (1 - part) * gain[below] + part * gain[above]
