"""What "better" means: paired differences to the baseline, in units of its spread, weighted, with guards."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from stg_tune.checks import between
from stg_tune.errors import StgTuneError
from stg_tune.search.statistics import small_sample_factor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stg_tune.records import Evaluation, Pair, ScoreKind

GuardRule = Literal["at_least_fraction", "at_most_fraction", "drop_at_most_sd"]
"""``at_least_fraction`` / ``at_most_fraction``: the mean over the pairs against the baseline's mean on the same pairs;
``drop_at_most_sd``: how many baseline standard deviations the mean may get worse."""
MOST_PRICE = 100.0
"""Baseline standard deviations; a price that no gain can pay is a slip of the pen."""
FAILED_PAIRS = "failed pairs"
"""Name of the guard that every objective has."""
UNMEASURED = 1.0
"""Violation of a guard that cannot be measured; how far it is broken is not known."""
LEAST_FOR_UNIT = 10
"""Fewer pairs are not taken for a new unit."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A limit that a configuration must keep, however good its objective is."""

    scorer: str
    """Whose score is limited."""
    rule: GuardRule
    """How the limit is formed."""
    value: float
    """The limit: a fraction of the baseline's mean, or baseline standard deviations."""
    why: str = ""
    """The reason, for people."""

    @property
    def name(self) -> str:
        """``motion at_least_fraction 0.95``."""
        return f"{self.scorer} {self.rule} {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Weights and guards; the value is a weighted mean of paired gains in baseline standard deviations."""

    weights: Mapping[str, float]
    """Scorer name -> weight, at least one above 0; they are divided by their sum."""
    guards: tuple[Guard, ...] = ()
    """Limits; a configuration that breaks one is infeasible."""
    penalty: float = 3.0
    """Baseline standard deviations that a pair loses when it could not be scored (never the value 0)."""
    price: float = 0.0
    """Baseline standard deviations, 0 to 100, that a pair loses for each time that a setting spends the denoiser work
    of the default's own video on top of it; work that is saved is paid back. 0: quality alone counts."""

    def __post_init__(self) -> None:
        """Check weights and price, and freeze them."""
        between(self.price, 0.0, MOST_PRICE, "objective.price")
        if not any(weight > 0 for weight in self.weights.values()):
            raise StgTuneError("objective.weights gives no scorer a weight above 0: nothing would be optimised")
        bad = [name for name, weight in self.weights.items() if not math.isfinite(weight) or weight < 0]
        if bad:
            raise StgTuneError(f"objective.weights.{bad[0]} must be a finite number >= 0, got {self.weights[bad[0]]!r}")
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through plain dictionaries (a mapping proxy cannot be pickled)."""
        return (Objective.from_dict, (self.to_dict(),))

    @property
    def scorers(self) -> tuple[str, ...]:
        """Names of the scorers that weights and guards speak of."""
        names = [name for name, weight in self.weights.items() if weight > 0] + [guard.scorer for guard in self.guards]
        return tuple(dict.fromkeys(names))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; ``from_dict`` reads it back."""
        guards = [{"scorer": g.scorer, "rule": g.rule, "value": g.value, "why": g.why} for g in self.guards]
        price = {"price": self.price} if self.price else {}  # left out: files and hashes from before it stay the same
        return {"weights": dict(self.weights), "guards": guards, "penalty": self.penalty, **price}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Objective:
        """Read a checked mapping (the ``objective`` part of a space file or of ``run.json``)."""
        guards = tuple(Guard(**guard) for guard in data.get("guards", ()))
        return cls(
            weights=dict(data["weights"]),
            guards=guards,
            penalty=float(data.get("penalty", 3.0)),
            price=float(data.get("price", 0.0)),
        )

    def check(self, kinds: Mapping[str, ScoreKind]) -> None:
        """Raise ``StgTuneError`` when a weight or guard names a scorer that does not exist."""
        unknown = [name for name in self.scorers if name not in kinds]
        if unknown:
            raise StgTuneError(
                f"the objective names the scorer {unknown[0]!r}, which is not there; "
                f"scorers are {', '.join(sorted(kinds))}"
            )


def parse_objective(text: str) -> float:
    """The price that ``--objective`` means: 0 for ``quality``, 0.1 for ``cost=0.1``."""
    word, _, number = text.strip().lower().partition("=")
    if word == "quality" and not number:
        return 0.0
    try:
        price = float(number) if word == "cost" else math.nan
    except ValueError:
        price = math.nan
    if not 0 < price <= MOST_PRICE:
        raise StgTuneError(
            f"objective {text!r} is not understood; give quality, or cost=0.1: baseline standard deviations (more than "
            f"0, up to {MOST_PRICE:g}) that the denoiser work of one more default video must gain"
        )
    return price


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Turns evaluations into paired gains, once the baseline is known."""

    objective: Objective
    """Weights and guards."""
    kinds: Mapping[str, ScoreKind]
    """Scorer name -> direction and meaning."""
    spread: Mapping[str, float]
    """Scorer name -> between-pair standard deviation of the baseline, in the scorer's unit: the unit of all gains."""
    baseline: Mapping[str, Evaluation] = field(default_factory=dict)
    """Pair key -> the baseline's evaluation."""

    @classmethod
    def calibrate(cls, objective: Objective, kinds: Mapping[str, ScoreKind], baseline: Sequence[Evaluation]) -> Judge:
        """Measure the baseline's spread; a baseline that fails or does not vary is an ``StgTuneError``."""
        objective.check(kinds)
        _refuse_failing(baseline)
        if objective.price and not any(row.forwards > 0 for row in baseline):
            raise StgTuneError(
                f"the objective has a price of {objective.price:g} for denoiser work, but the evaluations do not say "
                "how much there was (Evaluation.forwards is 0); use the objective quality"
            )
        needed = {name for name, weight in objective.weights.items() if weight > 0}
        measure = {name: _spread if name in needed else _spread_or_zero for name in kinds}
        spread = {name: of(name, baseline) for name, of in measure.items()}
        judge = cls(objective=objective, kinds=kinds, spread=spread)
        return judge.with_baseline(baseline)

    def with_baseline(self, rows: Iterable[Evaluation]) -> Judge:
        """The same judge that knows the baseline on more pairs (the spread stays)."""
        return replace(self, baseline={**self.baseline, **{row.pair.key: row for row in rows}})

    def in_units_of(self, pairs: Iterable[Pair]) -> Judge:
        """The same judge with the baseline's spread on ``pairs``, corrected so that gains in it are unbiased.

        The few pairs of a search give a standard deviation that is a quarter off, and a gain over it that is a tenth
        too large on average; a verdict takes its unit from its own pairs (Glass's delta with the correction of Hedges
        1981). A scorer that hardly varies on ``pairs`` keeps its unit.
        """
        rows = [self.baseline[pair.key] for pair in pairs]
        return replace(self, spread={name: self._unit(name, rows) for name in self.spread})

    def _unit(self, name: str, rows: Sequence[Evaluation]) -> float:
        values = _values(name, rows)
        if len(values) < LEAST_FOR_UNIT or _hardly_varies(values):
            return self.spread[name]
        return stdev(values) / small_sample_factor(len(values))

    def parts(self, row: Evaluation) -> dict[str, float]:
        """Gain per scorer against the baseline on the same pair, in baseline standard deviations; positive is better.

        A scorer that could score the baseline but not this row counts as ``-penalty``; a scorer that could not score
        the baseline, or never varies, is left out.
        """
        reference = self.baseline[row.pair.key]
        return {
            name: self._part(name, row, reference)
            for name in self.kinds
            if name in reference.scores and self.spread.get(name, 0.0) > 0 and not reference.error
        }

    def delta(self, row: Evaluation) -> float | None:
        """The objective of one pair, net of its price, or ``None`` when the baseline itself has no score there."""
        quality = self.weighted(self.parts(row))
        return None if quality is None else quality - self.charge(row)

    def charge(self, row: Evaluation) -> float:
        """What the objective takes off for denoiser work beyond the baseline's; 0 for a pair that failed."""
        before = self.baseline[row.pair.key].forwards
        if not self.objective.price or row.error or row.forwards <= 0 or before <= 0:
            return 0.0
        return self.objective.price * (row.forwards / before - 1)

    def weighted(self, parts: Mapping[str, float]) -> float | None:
        """The objective of gains per scorer, before any price; ``None`` when no scorer with a weight is among them."""
        weights = {name: weight for name, weight in self.objective.weights.items() if weight > 0 and name in parts}
        total = sum(weights.values())
        return sum(weight * parts[name] for name, weight in weights.items()) / total if total else None

    def violations(self, rows: Sequence[Evaluation]) -> dict[str, float]:
        """Guard name -> by how much it is broken (``> 0`` is broken), plus the share of failed pairs."""
        broken = {guard.name: self._violation(guard, rows) for guard in self.objective.guards}
        return {**broken, FAILED_PAIRS: fmean(bool(row.error) for row in rows) if rows else 0.0}

    def breaches(self, rows: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
        """Guard name -> pair key -> what the pair adds to the violation, that of the default taken off.

        The mean over pairs is the violation less that of the default.
        """
        return {guard.name: self._breaches(guard, rows) for guard in self.objective.guards}

    def _breaches(self, guard: Guard, rows: Sequence[Evaluation]) -> dict[str, float]:
        known = self.comparable(guard.scorer, rows)
        if guard.rule == "drop_at_most_sd" or not known:
            sign, unit = self.sign(guard.scorer), 1.0
        else:
            sign = 1.0 if guard.rule == "at_least_fraction" else -1.0
            unit = positive(guard, fmean(old for _, old in known.values()))
        return {key: sign * (old - new) / unit for key, (new, old) in known.items()}

    def refuse_unmeasured(self) -> None:
        """Raise ``StgTuneError`` when no pair has a score of the default that a guard needs: it could not be proved."""
        for guard in self.objective.guards:
            if not any(guard.scorer in row.scores for row in self.baseline.values()):
                raise StgTuneError(
                    f"the guard {guard.name!r} cannot be measured: {guard.scorer} gave the default no score on any of "
                    f"{len(self.baseline)} pairs; mend the scorer, or take the guard out of the search space (--space)"
                )

    def _part(self, name: str, row: Evaluation, reference: Evaluation) -> float:
        if row.error or name not in row.scores:
            return -self.objective.penalty
        return self.sign(name) * (row.scores[name] - reference.scores[name]) / self.spread[name]

    def comparable(self, name: str, rows: Iterable[Evaluation]) -> dict[str, tuple[float, float]]:
        """Pair key -> (value, baseline's value), where the row did not fail and the baseline has a score.

        A row without a score counts as ``penalty`` standard deviations worse, so that a guard cannot be kept by videos
        that cannot be scored.
        """
        loss = self.sign(name) * self.objective.penalty * self.spread.get(name, 0.0)
        known = [(row, self.baseline[row.pair.key].scores) for row in rows if not row.error]
        return {row.pair.key: (row.scores.get(name, old[name] - loss), old[name]) for row, old in known if name in old}

    def _violation(self, guard: Guard, rows: Sequence[Evaluation]) -> float:
        both = self.comparable(guard.scorer, rows).values()
        if all(row.error for row in rows):
            return 0.0  # the failed pairs are a violation of their own
        if not both or not any(guard.scorer in row.scores for row in rows):
            return UNMEASURED
        mean, reference = (fmean(column) for column in zip(*both, strict=True))
        if guard.rule == "drop_at_most_sd":
            return -self.sign(guard.scorer) * (mean - reference) - guard.value * self.spread[guard.scorer]
        ratio = mean / positive(guard, reference)
        return guard.value - ratio if guard.rule == "at_least_fraction" else ratio - guard.value

    def sign(self, name: str) -> float:
        """1 when more is better, else -1."""
        return 1.0 if self.kinds[name].direction == "maximize" else -1.0


def positive(guard: Guard, reference: float) -> float:
    """The baseline's mean, of which a guard allows a fraction; ``StgTuneError`` when that has no meaning."""
    if reference <= 0:
        raise StgTuneError(
            f"guard {guard.name!r}: the baseline's mean {guard.scorer} is {reference:.3g}, a fraction of it has no "
            "meaning; use the rule drop_at_most_sd"
        )
    return reference


def _refuse_failing(baseline: Sequence[Evaluation]) -> None:
    failed = [row for row in baseline if row.error]
    if len(failed) * 2 > len(baseline):
        raise StgTuneError(
            f"the model's own default setting fails on {len(failed)} of {len(baseline)} pairs, nothing can be compared "
            f"with it; first failure: {failed[0].error}"
        )


def _values(name: str, rows: Sequence[Evaluation]) -> list[float]:
    return [row.scores[name] for row in rows if name in row.scores and not row.error]


def _spread_or_zero(name: str, rows: Sequence[Evaluation]) -> float:
    values = _values(name, rows)
    return stdev(values) if len(values) > 1 else 0.0


def _hardly_varies(values: Sequence[float]) -> bool:
    return len(values) < 2 or stdev(values) <= 1e-9 * max(abs(value) for value in values)


def _spread(name: str, rows: Sequence[Evaluation]) -> float:
    values = _values(name, rows)
    if _hardly_varies(values):
        raise StgTuneError(
            f"scorer {name!r} gave the baseline {len(values)} usable scores with standard deviation "
            f"{_spread_or_zero(name, rows):.3g} on {len(rows)} pairs: it cannot be compared; use more varied prompts "
            "or drop it from the objective"
        )
    return stdev(values)
