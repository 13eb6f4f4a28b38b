"""A guidance setting as numbers that a regression can compare: what is done to each block, and how strongly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stg_tune.records import GuidanceSpec, Segment, SkipOp
    from stg_tune.search.space import SearchSpace

CFG, RESCALE, CFG_STEP = 0, 1, 2
"""Columns that say what CFG does: its scale, rescale, and the step between two segments."""
SKIPPING = slice(3, 9)
"""Columns that say how skip guidance is spread: place and length of its window, strength in all, number of blocks,
orthogonal terms, steps made again by restart sampling."""
GENERAL = 9
"""Columns before those of the blocks."""
REACH = 0.08
"""Part of a stack's depth over which the effects of neighbouring blocks are alike."""
OTHER_OP = 0.3
"""Correlation of two operations on the same block."""
LEAST_CFG = 0.2
"""Smaller CFG scales count as this one; the column is logarithmic."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Numbers of a setting, of the order of one within the space."""

    space: SearchSpace
    """Its ranges are the units."""
    depths: Mapping[str, int]
    """Stack name -> number of blocks."""

    def __call__(self, specs: Sequence[GuidanceSpec]) -> NDArray[np.float64]:
        """One row a setting: ``GENERAL`` columns, then one for each of ``blocks``."""
        return np.array([self._row(spec) for spec in specs]).reshape(len(specs), GENERAL + len(self.blocks))

    @cached_property
    def blocks(self) -> tuple[tuple[str, SkipOp, int], ...]:
        """(stack, operation, layer) of every column after the general ones."""
        return tuple(
            (name, op, layer)
            for name in self.space.stacks
            for op in self.space.ops
            for layer in range(self.depths[name])
        )

    @cached_property
    def likeness(self) -> NDArray[np.float64]:
        """Prior correlation of the blocks' effects, (blocks, blocks): by distance within a stack, and by operation."""
        return np.array([[self._alike(one, other) for other in self.blocks] for one in self.blocks])

    def _alike(self, one: tuple[str, SkipOp, int], other: tuple[str, SkipOp, int]) -> float:
        if one[0] != other[0]:
            return 0.0
        reach = max(REACH * self.depths[one[0]], 0.5)
        return (1.0 if one[1] == other[1] else OTHER_OP) * math.exp(-abs(one[2] - other[2]) / reach)

    def _row(self, spec: GuidanceSpec) -> list[float]:
        acting = [part for part in spec.segments if any(term.stg_scale for term in part.terms)]
        places = self._places(acting)
        blocks = [places.get(block, 0.0) for block in self.blocks]
        length = sum(part.stop - part.start for part in acting)
        tilted = [part for part in acting if part.combination == "orthogonal" and len(part.terms) > 1]
        return [
            *self._cfg(spec),
            sum((part.start + part.stop - 1) * (part.stop - part.start) for part in acting),
            length,
            sum(blocks),
            length * math.log1p(len(places)),
            sum(part.stop - part.start for part in tilted),
            math.log1p(spec.restart.count * (spec.restart.stop - spec.restart.start)) if spec.restart else 0.0,
            *blocks,
        ]

    def _cfg(self, spec: GuidanceSpec) -> tuple[float, float, float]:
        """Mean logarithm of the CFG scale in units of its range, mean rescale, and the greatest step of the former."""
        unit = self._unit
        whole = math.log(max(spec.cfg_scale, LEAST_CFG)) / unit
        parts = [
            (part.stop - part.start, math.log(max(part.cfg_scale, LEAST_CFG)) / unit - whole)
            for part in spec.segments
            if part.cfg_scale is not None
        ]
        rescale = sum((part.stop - part.start) * part.rescale for part in spec.segments)
        step = max((step for _, step in parts), key=abs, default=0.0)
        return whole + sum(length * step for length, step in parts), rescale, step

    @cached_property
    def _unit(self) -> float:
        scale = self.space.cfg_scale
        return math.log(max(scale.high, LEAST_CFG) / max(scale.low, LEAST_CFG)) or 1.0

    @cached_property
    def _weak(self) -> float:
        """A strength from which on more of it counts by its logarithm."""
        return math.sqrt(max(self.space.stg_scale.low, 0.01) * self.space.stg_scale.high) / 2

    def _places(self, parts: Sequence[Segment]) -> dict[tuple[str, SkipOp, int], float]:
        """Strength at each block, over the whole schedule."""
        found: dict[tuple[str, SkipOp, int], float] = {}
        for part in parts:
            for term in part.terms:
                weight = (part.stop - part.start) * math.log1p(term.stg_scale / self._weak)
                for stack, layers in term.skip_layers.items():
                    for layer in layers:
                        key = (stack, term.skip_op, layer)
                        found[key] = found.get(key, 0.0) + weight
        return found
