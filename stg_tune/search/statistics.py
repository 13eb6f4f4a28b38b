"""Paired means with confidence intervals that respect repeated looks and several seeds of one prompt.

The reasoning is in ``docs/statistics.md``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

LEVEL = 0.95
"""Confidence level of every interval that is shown."""
INTERIM_ERROR = 0.001
"""Most two-sided error that each look before the last one may use (Haybittle 1971, Peto et al. 1976)."""
MARGIN = 0.2
"""Baseline standard deviations that count as no difference: a small effect (Cohen, *Power analysis*, 1988)."""

Conclusion = Literal["better", "worse", "equivalent", "no worse", "undecided"]
"""What an interval says: ``equivalent``: less than ``MARGIN`` apart; ``no worse``: at most ``MARGIN`` worse."""


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
        reach = _quantile_of_t((1 + level) / 2, count - 1) * error
        low, high = values.mean() - reach, values.mean() + reach
    return Interval(
        mean=float(values.mean()),
        low=float(low),
        high=float(high),
        level=level,
        pairs=len(values),
        clusters=int(codes.max()) + 1,
    )


def conclude(interval: Interval, *, margin: float = MARGIN) -> Conclusion:
    """The strongest statement that one interval allows.

    All statements are read off the same interval, so they hold together with its level and none costs another error
    (two one-sided tests at half of the error each: Schuirmann 1987; non-inferiority: lower end above ``-margin``).

    Args:
        interval: Of a gain; positive is better.
        margin: How much counts as no difference, in the unit of the interval.
    """
    if interval.low > 0:
        return "better"
    if interval.high < 0:
        return "worse"
    if interval.low > -margin:
        return "equivalent" if interval.high < margin else "no worse"
    return "undecided"


def one_sided(level: float) -> float:
    """Level of the two-sided interval each end of which holds with ``level`` by itself: 0.9 for 0.95."""
    return 1 - 2 * (1 - level)


def small_sample_factor(count: int) -> float:
    """``J`` of Hedges 1981: a gain over the standard deviation of ``count`` values is ``1/J`` too large on average."""
    return 1 - 3 / (4 * (count - 1) - 1)


def look_level(look: int, looks: int, *, level: float = LEVEL) -> float:
    """Confidence level of the interval at one of several planned looks, so that all hold together with ``level``.

    Each look before the last takes ``INTERIM_ERROR`` of the error, or its share of one half when that is less, as in
    the later verdicts of an extended run; the last look takes the rest. The sum of all errors is ``1 - level``
    (Bonferroni), so an interval reported at whichever look the race stops has at least ``level``.

    Args:
        look: Which look, 1 to ``looks``.
        looks: Planned number of looks.
        level: Joint confidence level.
    """
    interim = min(INTERIM_ERROR, (1 - level) / (2 * looks))
    return 1 - interim if look < looks else level + interim * (looks - 1)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values; ``inf`` for fewer than two."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def clearly_below(deltas: Sequence[float], *, error: float = 0.1) -> bool:
    """Whether the mean of paired differences is below zero by a one-sided t test at ``error``."""
    if len(deltas) < 3:
        return False
    spread = standard_error(deltas)
    mean = float(np.mean(deltas))
    return mean < 0 and (spread == 0 or _share_of_t(mean / spread, len(deltas) - 1) < error)


def _quantile_of_t(share: float, freedom: int) -> float:
    from scipy.special import stdtrit  # here: the names of a space are asked for without scipy

    return float(stdtrit(freedom, share))


def _share_of_t(value: float, freedom: int) -> float:
    from scipy.special import stdtr

    return float(stdtr(freedom, value))
