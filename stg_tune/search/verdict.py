"""What the held-out comparison says: gains with intervals, guards, and one word: improved or not."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from stg_tune.search.differences import GuardEvidence, check_guard, gain_between
from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.objective import FAILED_PAIRS
from stg_tune.search.statistics import MARGIN, Conclusion, Interval, conclude, paired_interval

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
    """Between-pair standard deviation of the default on the confirmation pairs (the unit of the gains)."""
    gain: Interval
    """Paired gain in the scorer's unit, positive is better; pairs that both settings have a score for."""
    unscored: int
    """Pairs that the winner has no score for."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The held-out result."""

    improved: bool
    """The lower bound of ``gain`` is above 0 and every guard is proved to hold."""
    reason: str
    """The same in one sentence."""
    winner: GuidanceSpec
    """What the verdict is about."""
    best_cfg: GuidanceSpec
    """The best setting without skip guidance."""
    best_stg: GuidanceSpec | None
    """The best setting with skip guidance, which ``stg_gain`` is about: the winner, or the best of the others."""
    gain: Interval
    """Objective of the winner over the default, in baseline standard deviations."""
    stg_gain: Interval | None
    """Objective of the best setting with skip guidance over the best without; ``None``: nothing to compare."""
    cfg_gain: Interval | None
    """Objective of the best CFG-only setting over the default; ``None``: the default is the best."""
    scorers: tuple[ScorerEvidence, ...]
    """Each scorer apart."""
    guards: tuple[GuardEvidence, ...]
    """Each guard with its interval."""
    violations: Mapping[str, float]
    """Guard -> how far its interval reaches over the limit (``> 0``: not proved to hold), and the share of failed
    pairs."""
    forwards: float
    """Denoiser-forward equivalents a video of the winner over those of the default; 0 when unknown."""
    look: int
    """At which look the race stopped."""
    looks: int
    """Planned looks; all intervals hold together for all of them."""
    price: float = 0.0
    """Price of denoiser work (``Objective.price``) that all gains are net of; 0: they are quality alone."""
    warning: str = ""
    """What is wrong with the held-out prompts, for the user; empty: nothing."""

    @property
    def hopeless(self) -> bool:
        """No further pair can make it an improvement: the gain is below 0, a guard is broken, or a pair has failed."""
        failed = self.violations.get(FAILED_PAIRS, 0.0) > 0
        return failed or self.gain.high < 0 or any(guard.surely_broken for guard in self.guards)

    @property
    def clear(self) -> bool:
        """The gain is decided, and so is the part that STG has in it.

        A race that stops at that states too large a gain on average, so only runs of ``SearchPlan.rules`` 1 do.
        """
        undecided = [item for item in (self.gain, self.stg_gain) if item is not None and item.low <= 0 <= item.high]
        open_guards = [guard for guard in self.guards if not guard.holds and not guard.broken]
        return self.gain.high < 0 or not (undecided or open_guards)

    @property
    def conclusion(self) -> Conclusion:
        """The winner against the default, guards apart: better, worse, equivalent, no worse, or undecided."""
        return conclude(self.gain)

    @property
    def stg_conclusion(self) -> Conclusion | None:
        """Skip guidance against the best CFG-only setting; ``None``: nothing to compare."""
        return conclude(self.stg_gain) if self.stg_gain is not None else None

    @property
    def stg_proved(self) -> bool:
        """The winner has skip guidance, is an improvement, and is better than the best CFG-only setting as well.

        It is asked only of an improvement, so both claims together are wrong no more often than one.
        """
        return self.improved and not is_cfg_only(self.winner) and self.stg_conclusion == "better"


def judge_arms(
    judge: Judge,
    arms: Arms,
    measured: Sequence[Measurement],
    *,
    level: float,
    look: int = 1,
    looks: int = 1,
    warning: str = "",
) -> Verdict:
    """Compare the arms on the pairs they were all measured on.

    Args:
        judge: Knows the baseline on those pairs, and has its unit from them (``Judge.in_units_of``).
        arms: Which setting plays which part.
        measured: One for each of ``arms.distinct()``.
        level: Two-sided confidence level of every interval.
        look: Which planned look this is.
        looks: Number of planned looks.
        warning: What is wrong with the prompts of the pairs.
    """
    by_config = {item.config: item for item in measured}
    default, winner, cfg = (by_config[spec.hash()] for spec in (arms.baseline, arms.winner, arms.best_cfg))
    stg = by_config[arms.best_stg.hash()] if arms.best_stg else None
    gain = gain_between(judge, winner, default, level=level)
    guards = tuple(check_guard(judge, guard, winner.rows, level=level) for guard in judge.objective.guards)
    violations = {**winner.violations, **{guard.name: guard.reach for guard in guards}}
    return Verdict(
        improved=gain.low > 0 and all(value <= 0 for value in violations.values()),
        reason=_reason(gain, arms.winner, guards, winner.violations)
        + _net_of(judge.objective.price)
        + (_STOPPED if look < looks else ""),
        winner=arms.winner,
        best_cfg=arms.best_cfg,
        best_stg=arms.best_stg,
        gain=gain,
        stg_gain=gain_between(judge, stg, cfg, level=level) if stg is not None else None,
        cfg_gain=None if cfg is default else gain_between(judge, cfg, default, level=level),
        scorers=tuple(
            _evidence(judge, name, winner, level) for name in judge.kinds if _comparable(judge, name, winner)
        ),
        guards=guards,
        violations=violations,
        forwards=winner.forwards / default.forwards if default.forwards else 0.0,
        look=look,
        looks=looks,
        price=judge.objective.price,
        warning=warning,
    )


_DIFFERENCE = {
    "worse": "is worse than the default on held-out pairs",
    "equivalent": f"and the default are equivalent on held-out pairs (less than {MARGIN:g} deviations apart)",
    "no worse": f"is not shown to be better than the default on held-out pairs; at most {MARGIN:g} deviations worse",
    "undecided": "cannot be told from the default on held-out pairs",
}


def _reason(
    gain: Interval, spec: GuidanceSpec, guards: Sequence[GuardEvidence], violations: Mapping[str, float]
) -> str:
    unmeasured = [guard.name for guard in guards if not guard.measured]
    unproved = [guard.name for guard in guards if not guard.holds and not guard.broken]
    broken = [name for name, value in violations.items() if value > 0 and name not in unmeasured]
    kind = "retuned CFG alone" if is_cfg_only(spec) else "the chosen setting"
    found = conclude(gain)
    if broken:
        return f"{kind} breaks the guard {broken[0]!r}"
    if found != "better":
        return f"{kind} {_DIFFERENCE[found]}"
    if unmeasured:
        return (
            f"{kind} gains, but the guard {unmeasured[0]!r} cannot be measured on held-out pairs, so nothing is proved"
        )
    if unproved:
        return f"{kind} gains, but held-out pairs do not prove that it keeps the guard {unproved[0]!r}"
    return f"{kind} is better than the default on held-out pairs"


_STOPPED = " (stopped early, so a loss is stated somewhat too large and a gain too large)"


def _net_of(price: float) -> str:
    work = "standard deviations for the denoiser work of one more default video"
    return f" (gains are net of a price of {price:g} {work})" if price else ""


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
