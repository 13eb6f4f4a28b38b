"""What the held-out comparison says: gains with intervals, guards, and one word: improved or not."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.statistics import Interval, paired_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.records import Direction, Evaluation, GuidanceSpec
    from stg_tune.search.bench import Measurement
    from stg_tune.search.objective import Judge


@dataclass(frozen=True, kw_only=True)
class Arms:
    """The settings that are compared at the end."""

    baseline: GuidanceSpec
    """The model's default."""
    winner: GuidanceSpec
    """Chosen before; the verdict is about it and no other."""
    best_cfg: GuidanceSpec
    """The best setting without skip guidance (may be the baseline)."""
    best_stg: GuidanceSpec | None
    """The best setting with skip guidance (usually the winner)."""

    def distinct(self) -> list[GuidanceSpec]:
        """Every setting once, the baseline first."""
        specs = [self.baseline, self.winner, self.best_cfg, *([self.best_stg] if self.best_stg else [])]
        return list({spec.hash(): spec for spec in specs}.values())


@dataclass(frozen=True, kw_only=True)
class ScorerEvidence:
    """One scorer on the confirmation pairs."""

    name: str
    """The scorer."""
    direction: Direction
    """Which way is better."""
    unit: str
    """Unit of the numbers."""
    weights: str
    """Checksum of the scorer's weights."""
    weight: float
    """Weight in the objective; 0: reported only."""
    baseline: float
    """Mean of the default."""
    value: float
    """Mean of the winner."""
    spread: float
    """Between-pair standard deviation of the default on the search pairs (the unit of the objective)."""
    gain: Interval
    """Paired gain in the scorer's unit, positive is better; pairs that both settings have a score for."""
    unscored: int
    """Pairs that the winner has no score for."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The held-out result."""

    improved: bool
    """The lower bound of ``gain`` is above 0 and every guard holds."""
    reason: str
    """The same in one sentence."""
    winner: GuidanceSpec
    """What the verdict is about."""
    best_cfg: GuidanceSpec
    """The best setting without skip guidance."""
    gain: Interval
    """Objective of the winner over the default, in baseline standard deviations."""
    stg_gain: Interval | None
    """Objective of the best setting with skip guidance over the best without; ``None``: nothing to compare."""
    cfg_gain: Interval | None
    """Objective of the best CFG-only setting over the default; ``None``: the default is the best."""
    scorers: tuple[ScorerEvidence, ...]
    """Each scorer apart."""
    violations: Mapping[str, float]
    """Guard -> by how much the winner breaks it (``> 0`` is broken)."""
    forwards: float
    """Denoiser-forward equivalents a video of the winner over those of the default; 0 when unknown."""
    look: int
    """At which look the race stopped."""
    looks: int
    """Planned looks; all intervals hold together for all of them."""

    @property
    def clear(self) -> bool:
        """Nothing more to learn: the gain is decided, and so is the part that STG has in it."""
        undecided = [item for item in (self.gain, self.stg_gain) if item is not None and item.low <= 0 <= item.high]
        return self.gain.high < 0 or not undecided


def judge_arms(
    judge: Judge, arms: Arms, measured: Sequence[Measurement], *, level: float, look: int = 1, looks: int = 1
) -> Verdict:
    """Compare the arms on the pairs they were all measured on.

    Args:
        judge: Knows the baseline on those pairs.
        arms: Which setting plays which part.
        measured: One for each of ``arms.distinct()``.
        level: Two-sided confidence level of every interval.
        look: Which planned look this is.
        looks: Number of planned looks.
    """
    by_config = {item.config: item for item in measured}
    default, winner, cfg = (by_config[spec.hash()] for spec in (arms.baseline, arms.winner, arms.best_cfg))
    stg = by_config[arms.best_stg.hash()] if arms.best_stg else None
    gain = _difference(winner, default, level)
    return Verdict(
        improved=gain.low > 0 and winner.feasible,
        reason=_reason(gain, winner),
        winner=arms.winner,
        best_cfg=arms.best_cfg,
        gain=gain,
        stg_gain=_difference(stg, cfg, level) if stg is not None else None,
        cfg_gain=None if cfg is default else _difference(cfg, default, level),
        scorers=tuple(
            _evidence(judge, name, winner, level) for name in judge.kinds if _comparable(judge, name, winner)
        ),
        violations=winner.violations,
        forwards=winner.forwards / default.forwards if default.forwards else 0.0,
        look=look,
        looks=looks,
    )


def _difference(one: Measurement, other: Measurement, level: float) -> Interval:
    prompts = {row.pair.key: row.pair.prompt for row in one.rows}
    keys = [key for key in one.deltas if key in other.deltas]
    return paired_interval(
        [one.deltas[key] - other.deltas[key] for key in keys], [prompts[key] for key in keys], level=level
    )


def _reason(gain: Interval, winner: Measurement) -> str:
    if winner.broken:
        return f"the chosen setting breaks the guard {winner.broken[0]!r}"
    kind = "retuned CFG alone" if is_cfg_only(winner.spec) else "the chosen setting"
    if gain.low > 0:
        return f"{kind} is better than the default on held-out pairs"
    if gain.high < 0:
        return f"{kind} is worse than the default on held-out pairs"
    return f"{kind} cannot be told from the default on held-out pairs"


def _both(judge: Judge, name: str, winner: Measurement) -> list[Evaluation]:
    reference = judge.baseline
    scored = (row for row in winner.rows if name in row.scores and not row.error)
    return [row for row in scored if name in reference[row.pair.key].scores and not reference[row.pair.key].error]


def _comparable(judge: Judge, name: str, winner: Measurement) -> bool:
    return bool(_both(judge, name, winner))


def _evidence(judge: Judge, name: str, winner: Measurement, level: float) -> ScorerEvidence:
    kind = judge.kinds[name]
    rows = _both(judge, name, winner)
    sign = 1.0 if kind.direction == "maximize" else -1.0
    old = [judge.baseline[row.pair.key].scores[name] for row in rows]
    new = [row.scores[name] for row in rows]
    gains = [sign * (after - before) for before, after in zip(old, new, strict=True)]
    return ScorerEvidence(
        name=name,
        direction=kind.direction,
        unit=kind.unit,
        weights=kind.weights,
        weight=judge.objective.weights.get(name, 0.0),
        baseline=fmean(old),
        value=fmean(new),
        spread=judge.spread[name],
        gain=paired_interval(gains, [row.pair.prompt for row in rows], level=level),
        unscored=len(winner.rows) - len(rows),
    )
