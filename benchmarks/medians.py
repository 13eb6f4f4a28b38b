"""How far a median can be trusted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def median_interval(ordered: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Between which values of an ascending sample the median lies with probability ``level`` (binomial)."""
    count = len(ordered)
    tail, reach = 0.0, 0
    for below in range(count // 2):
        tail += math.comb(count, below) / 2**count
        if tail > (1 - level) / 2:
            break
        reach = below + 1
    outer = max(reach - 1, 0)
    return ordered[outer], ordered[count - 1 - outer]
