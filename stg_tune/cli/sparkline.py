"""Score against layer in a line of characters, for ``stg-tune show``."""

from __future__ import annotations

import sys
from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stg_tune.report import Findings

BLOCKS, DIGITS = "▁▂▃▄▅▆▇█", "0123456789"
"""From the least gain to the greatest; digits where the terminal knows no block characters."""
UNKNOWN = "."
"""A layer that was not measured."""
CHOSEN = "^"
"""Stands under the layers of the tuned setting."""


class Row(NamedTuple):
    """One stack and one operation."""

    stack: str
    op: str
    gains: Mapping[int, float]


def layer_lines(findings: Findings, levels: str = BLOCKS) -> list[str]:
    """A line for each stack and operation, all on one scale, with the layers of the tuned setting marked under it.

    Args:
        findings: Of a run, finished or not.
        levels: Characters from the least to the greatest gain.
    """
    rows = _rows(findings)
    if not rows:
        return []
    every = [gain for row in rows for gain in row.gains.values()]
    low, high = min(every), max(every)
    width = max(len(f"{row.stack} {row.op}") for row in rows)
    lines = [f"Score against layer, {low:+.2f} to {high:+.2f}; {CHOSEN}: layers of the tuned setting"]
    for row in rows:
        depth = findings.depths.get(row.stack, max(row.gains) + 1)
        best = max(row.gains, key=lambda layer: row.gains[layer])
        spark = "".join(_level(row.gains.get(layer), low, high, levels) for layer in range(depth))
        lines.append(f"  {f'{row.stack} {row.op}':{width}}  {spark}  best: {best} ({row.gains[best]:+.2f})")
        chosen = _chosen(findings, row)
        if chosen:
            marks = "".join(CHOSEN if layer in chosen else " " for layer in range(depth)).rstrip()
            lines.append(f"  {'':{width}}  {marks}")
    return lines


def levels_for(encoding: str | None) -> str:
    """``BLOCKS`` where they can be written, else ``DIGITS``."""
    try:
        BLOCKS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return DIGITS
    return BLOCKS


def lines_for_terminal(findings: Findings) -> Sequence[str]:
    """``layer_lines`` in characters that standard output can write."""
    return layer_lines(findings, levels_for(sys.stdout.encoding))


def _rows(findings: Findings) -> list[Row]:
    """Where a layer was measured at several scales, the mean."""
    found: defaultdict[tuple[str, str], defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in findings.layers:
        found[point.stack, point.op][point.layer].append(point.gain)
    return [
        Row(stack, op, {layer: fmean(values) for layer, values in gains.items()})
        for (stack, op), gains in sorted(found.items())
    ]


def _level(gain: float | None, low: float, high: float, levels: str) -> str:
    if gain is None:
        return UNKNOWN
    share = (gain - low) / (high - low) if high > low else 0.5
    return levels[min(int(share * len(levels)), len(levels) - 1)]


def _chosen(findings: Findings, row: Row) -> set[int]:
    return set(_layers(findings, row))


def _layers(findings: Findings, row: Row) -> Iterator[int]:
    for segment in findings.tuned.segments if findings.tuned else ():
        for term in segment.terms:
            if term.stg_scale and term.skip_op == row.op:
                yield from term.skip_layers.get(row.stack, ())
