"""Findings -> maps: gain over layer and scale, gain over the scales of two stacks (standard library only)."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from stg_tune.report.words import describe, terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stg_tune.records import GuidanceSpec
    from stg_tune.report.findings import Findings, Layer

BANDS = 6
"""Bands of scale on the map of layers."""
GRID = 24
"""Points a side of the surface over two scales."""
LEAST_POINTS = 6
"""Configurations of each of two stacks that a surface needs."""


class MapCell(NamedTuple):
    """Configurations that skip one layer with about one strength."""

    stack: str
    layer: int
    band: int
    gain: float
    """Mean over the configurations, weighted by their pairs."""
    configurations: int
    pairs: int


class MapFacts(NamedTuple):
    """Gain over layer and scale."""

    depths: dict[str, int]
    edges: tuple[float, ...]
    """Limits of the bands of scale, ascending; one more than there are bands."""
    cells: tuple[MapCell, ...]


class SurfacePoint(NamedTuple):
    """One configuration by its strength in two stacks."""

    x: float
    y: float
    gain: float
    pairs: int
    label: str


class SurfaceFacts(NamedTuple):
    """Gain over the scales of two stacks."""

    stacks: tuple[str, str]
    points: tuple[SurfacePoint, ...]
    axes: tuple[tuple[float, ...], tuple[float, ...]]
    smooth: tuple[tuple[float | None, ...], ...]
    """Rows of smoothed gain, one a y; ``None`` where no configuration is near."""


class _Seen(NamedTuple):
    stack: str
    layer: int
    scale: float
    gain: float
    pairs: int


def map_facts(findings: Findings) -> MapFacts:
    """Mean gain of the configurations that skip a layer, by strength; single layers of the screen count as well."""
    seen = [*_from_trials(findings), *_from_screen(findings.layers, findings.screen_gain)]
    scales = sorted({item.scale for item in seen if item.scale > 0})
    if not scales:
        return MapFacts(dict(findings.depths), (), ())
    edges = _edges(scales[0], scales[-1])
    groups: defaultdict[tuple[str, int, int], list[_Seen]] = defaultdict(list)
    for item in seen:
        if item.scale > 0:
            groups[item.stack, item.layer, _band(item.scale, edges)].append(item)
    cells = (MapCell(*place, *_mean(items)) for place, items in sorted(groups.items()))
    return MapFacts(dict(findings.depths), edges, tuple(cells))


def surface_facts(findings: Findings) -> SurfaceFacts | None:
    """Gain over the scales of the two stacks skipped most often; ``None`` when fewer than two were."""
    used: defaultdict[str, int] = defaultdict(int)
    tried = [(trial, _scales(trial.spec)) for trial in findings.trials if trial.gains]
    for _, scales in tried:
        for stack in scales:
            used[stack] += 1
    often = sorted((stack for stack in used if used[stack] >= LEAST_POINTS), key=lambda stack: -used[stack])[:2]
    if len(often) < 2:
        return None
    first, second = sorted(often)
    points = tuple(
        SurfacePoint(
            scales.get(first, 0.0),
            scales.get(second, 0.0),
            fmean(trial.gains),
            len(trial.gains),
            describe(trial.spec),
        )
        for trial, scales in tried
        if set(scales) <= {first, second}
    )
    axes = _axis([point.x for point in points]), _axis([point.y for point in points])
    return SurfaceFacts((first, second), points, axes, _smoothed(points, *axes))


def _from_trials(findings: Findings) -> Iterator[_Seen]:
    for trial in findings.trials:
        if not trial.gains:
            continue
        gain, pairs = fmean(trial.gains), len(trial.gains)
        for term in terms(trial.spec):
            for stack, indices in term.skip_layers.items():
                yield from (_Seen(stack, layer, term.stg_scale, gain, pairs) for layer in indices)


def _from_screen(layers: Iterable[Layer], base: float) -> Iterator[_Seen]:
    for layer in layers:
        yield _Seen(layer.stack, layer.layer, layer.scale, base + layer.gain, layer.pairs)


def _edges(low: float, high: float) -> tuple[float, ...]:
    """Bands of equal ratio: strengths are searched on a log scale, and one value still needs a band around it."""
    if high <= low * 1.01:
        return low / 1.1, low * 1.1
    ratio = (high / low) ** (1 / BANDS)
    return tuple(low * ratio**index for index in range(BANDS + 1))


def _band(scale: float, edges: Sequence[float]) -> int:
    inner = edges[1:-1]
    return sum(scale >= edge for edge in inner)


def _mean(items: Sequence[_Seen]) -> tuple[float, int, int]:
    pairs = sum(item.pairs for item in items)
    return sum(item.gain * item.pairs for item in items) / pairs, len(items), pairs


def _scales(spec: GuidanceSpec) -> Mapping[str, float]:
    """Stack -> its strength; the largest when several terms skip it."""
    found: defaultdict[str, float] = defaultdict(float)
    for term in terms(spec):
        for stack in term.skip_layers:
            found[stack] = max(found[stack], term.stg_scale)
    return found


def _axis(values: Sequence[float]) -> tuple[float, ...]:
    low, high = min(values), max(values)
    step = ((high - low) or 1.0) / (GRID - 1)
    return tuple(low + step * index for index in range(GRID))


def _smoothed(
    points: Sequence[SurfacePoint], xs: Sequence[float], ys: Sequence[float]
) -> tuple[tuple[float | None, ...], ...]:
    """Mean of the points near by (Gaussian weights, an eighth of each axis wide), so that no single one stands out."""
    wide, high = (xs[-1] - xs[0]) / 8, (ys[-1] - ys[0]) / 8
    # thousands of configurations fall on few distinct places: each place is visited once
    places: defaultdict[tuple[float, float], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for point in points:
        place = places[_snapped(point.x, wide / 4), _snapped(point.y, high / 4)]
        place[0] += point.pairs
        place[1] += point.pairs * point.gain
    return tuple(tuple(_near(places, x / wide, y / high, wide, high) for x in xs) for y in ys)


def _snapped(value: float, step: float) -> float:
    return round(value / step) * step


def _near(
    places: Mapping[tuple[float, float], Sequence[float]], x: float, y: float, wide: float, high: float
) -> float | None:
    weight = value = 0.0
    nearest = math.inf
    for (at_x, at_y), (pairs, total) in places.items():
        distance = (at_x / wide - x) ** 2 + (at_y / high - y) ** 2
        nearest = min(nearest, distance)
        if distance < 9:
            near = math.exp(-distance / 2)
            weight, value = weight + near * pairs, value + near * total
    return value / weight if nearest <= 1 else None
