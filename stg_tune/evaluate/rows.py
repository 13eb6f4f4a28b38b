"""What a table is made of: one row a metric and setting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stg_tune.evaluate.arms import Arm
    from stg_tune.records import ScoreKind
    from stg_tune.search.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference in the unit of the metric: this setting minus another, on what both have."""

    mean: float
    """The estimate."""
    low: float | None
    """Lower end of its 95 % interval; ``None``: unbounded."""
    high: float | None
    """Upper end."""

    @classmethod
    def of(cls, interval: Interval) -> Difference:
        """The same, of a paired mean."""
        return cls(mean=interval.mean, low=finite_or_none(interval.low), high=finite_or_none(interval.high))

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON form."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one setting."""

    kind: ScoreKind
    """What is measured; beside the scores ``frechet_distance``, ``inception_score``, ``diversity``."""
    arm: Arm
    """The setting."""
    mean: float | None
    """Mean over the pairs that this setting and the baseline have, or the number of the set; ``None``: too few."""
    error: float | None
    """Standard error of it, clustered by prompt."""
    difference: Difference | None
    """To the baseline; ``None`` for the baseline itself."""
    alone: Difference | None
    """To the setting's own best CFG alone, where one is known."""
    samples: int
    """Pairs behind the mean; of diversity, prompts."""
    failed: int
    """Pairs of this setting without a video."""
    unscored: int
    """Pairs of this setting whose video could not be scored."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; what is unbounded or unknown is ``null``."""
        return {
            "metric": self.kind.name,
            "unit": self.kind.unit,
            "direction": self.kind.direction,
            "low": finite_or_none(self.kind.low),
            "high": finite_or_none(self.kind.high),
            "arm": self.arm.name,
            "curve": self.arm.curve,
            "scale": self.arm.scale,
            "mean": self.mean,
            "error": self.error,
            "difference": self.difference.to_dict() if self.difference else None,
            "difference_to_cfg_alone": self.alone.to_dict() if self.alone else None,
            "samples": self.samples,
            "failed": self.failed,
            "unscored": self.unscored,
        }


def finite_or_none(value: float) -> float | None:
    """``None`` in place of infinities and NaN, which JSON cannot say."""
    return value if math.isfinite(value) else None
