"""Paired means with confidence intervals that respect repeated looks and several seeds of one prompt.

The reasoning is in ``docs/statistics.md``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

LEVEL = 0.95
"""Confidence level of every interval that is shown."""
INTERIM_ERROR = 0.001
"""Two-sided error that each look before the last one may use (Haybittle 1971, Peto et al. 1976)."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    """The estimate."""
    low: float
    """Lower end (``-inf`` with fewer than two clusters)."""
    high: float
    """Upper end."""
    level: float
    """Two-sided confidence level of this interval (above ``LEVEL`` at an interim look)."""
    pairs: int
    """Pairs behind it."""
    clusters: int
    """Independent units behind it: distinct prompts."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form (an unknown end is ``null``)."""
        return {key: value if math.isfinite(value) else None for key, value in asdict(self).items()}


def paired_interval(deltas: Sequence[float], clusters: Sequence[Hashable], *, level: float = LEVEL) -> Interval:
    """Mean of paired differences with a cluster-robust t interval.

    Pairs of one cluster (several seeds of one prompt) may depend on each other in any way. The variance of the mean is
    ``G/(G-1) * sum_g (sum of residuals in g)^2 / n^2``, its quantile that of Student's t with ``G - 1`` degrees of
    freedom (Liang and Zeger 1986; Cameron and Miller 2015, section VI.D). With one pair a cluster this is the ordinary
    paired t interval. When all pairs share one cluster, the seeds are the units and the statement is about that prompt.

    Args:
        deltas: One difference a pair; at least one.
        clusters: The cluster of each pair, same length.
        level: Two-sided confidence level, 0 to 1.

    Raises:
        StgTuneError: No pair could be compared.
    """
    if len(deltas) == 0:
        raise StgTuneError("no pair could be compared: the default setting has no score on any of them")
    values = np.asarray(deltas, dtype=float)
    index: dict[Hashable, int] = {}
    codes = np.asarray([index.setdefault(cluster, len(index)) for cluster in clusters])
    units = codes if codes.max() > 0 else np.arange(len(values))
    sums = np.bincount(units, weights=values - values.mean())
    count = len(sums)
    if count < 2:
        low, high = -math.inf, math.inf
    else:
        error = math.sqrt(count / (count - 1) * float(sums @ sums)) / len(values)
        reach = float(stdtrit(count - 1, (1 + level) / 2)) * error
        low, high = values.mean() - reach, values.mean() + reach
    return Interval(
        mean=float(values.mean()),
        low=float(low),
        high=float(high),
        level=level,
        pairs=len(values),
        clusters=int(codes.max()) + 1,
    )


def look_level(look: int, looks: int, *, level: float = LEVEL) -> float:
    """Confidence level of the interval at one of several planned looks, so that all hold together with ``level``.

    Each look before the last takes ``INTERIM_ERROR`` of the error, the last one the rest; the sum of all errors is
    ``1 - level`` (Bonferroni), so an interval reported at whichever look the race stops has at least ``level``.

    Args:
        look: Which look, 1 to ``looks``.
        looks: Planned number of looks.
        level: Joint confidence level.
    """
    return 1 - INTERIM_ERROR if look < looks else level + INTERIM_ERROR * (looks - 1)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values; ``inf`` for fewer than two."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def clearly_below(deltas: Sequence[float], *, error: float = 0.1) -> bool:
    """Whether the mean of paired differences is below zero by a one-sided t test at ``error``."""
    if len(deltas) < 3:
        return False
    spread = standard_error(deltas)
    mean = float(np.mean(deltas))
    return mean < 0 and (spread == 0 or float(stdtr(len(deltas) - 1, mean / spread)) < error)
