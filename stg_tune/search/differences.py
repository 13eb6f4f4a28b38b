"""Gains between two settings, and guards, as intervals that own up to the uncertainty of their unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stg_tune.search.objective import UNMEASURED, positive
from stg_tune.search.statistics import Interval, one_sided, paired_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.records import Evaluation
    from stg_tune.search.bench import Measurement
    from stg_tune.search.objective import Guard, GuardRule, Judge

Parts = dict[str, float]
"""Scorer -> gain, in baseline standard deviations."""


@dataclass(frozen=True, kw_only=True)
class GuardEvidence:
    """A guard on the confirmation pairs."""

    name: str
    """``motion at_least_fraction 0.95``."""
    scorer: str
    """Whose score is limited."""
    rule: GuardRule
    """How the limit is formed."""
    limit: float
    """The least (``at_most_fraction``: the greatest) ``value`` that is allowed."""
    value: Interval
    """The mean over the default's mean or, for ``drop_at_most_sd``, the gain in baseline standard deviations; not a
    number, without ends, when the default has no score to hold it against.

    Each end by itself holds with ``1 - (1 - value.level) / 2``, which is 95 % in a run with one look."""
    why: str
    """The reason for the guard, for people."""

    @property
    def measured(self) -> bool:
        """Whether any pair can be compared; what cannot be measured is not proved."""
        return self.value.pairs > 0

    @property
    def reach(self) -> float:
        """How far the interval reaches over the limit; ``> 0``: it is not proved that the guard holds."""
        if not self.measured:
            return UNMEASURED
        return self.value.high - self.limit if self.rule == "at_most_fraction" else self.limit - self.value.low

    @property
    def holds(self) -> bool:
        """Proved: the whole interval is on the allowed side."""
        return self.reach <= 0

    @property
    def broken(self) -> bool:
        """Even the estimate is on the other side."""
        return self.value.mean > self.limit if self.rule == "at_most_fraction" else self.value.mean < self.limit

    @property
    def surely_broken(self) -> bool:
        """The whole interval is on the other side."""
        return self.value.low > self.limit if self.rule == "at_most_fraction" else self.value.high < self.limit


def gain_between(judge: Judge, one: Measurement, other: Measurement, *, level: float) -> Interval:
    """Objective of ``one`` over ``other``, net of its price, on the pairs that both were measured on.

    The unit is itself measured on these pairs. Its error moves the gain by ``-m (z^2 - 1) / 2`` a pair, to first order
    (m: mean gain of a scorer, z: standard score of the default on the pair); with it in the differences the interval
    holds for the gain in true standard deviations. The estimate stays as it is, and around a gain of 0 so do the ends.

    Args:
        judge: Knows the default on these pairs, and has its unit from them.
        one: The setting in question.
        other: What it is compared with.
        level: Two-sided confidence level.
    """
    others = {row.pair.key: row for row in other.rows}
    rows = [row for row in one.rows if row.pair.key in others]
    differences = [_minus(judge.parts(row), judge.parts(others[row.pair.key])) for row in rows]
    shifts = _unit_errors(judge, rows, differences)
    values = [judge.weighted(_minus(mine, shift)) for mine, shift in zip(differences, shifts, strict=True)]
    charges = [judge.charge(row) - judge.charge(others[row.pair.key]) for row in rows]
    kept = [
        (value - charge, row.pair.prompt)
        for value, charge, row in zip(values, charges, rows, strict=True)
        if value is not None
    ]
    return paired_interval([value for value, _ in kept], [prompt for _, prompt in kept], level=level)


def check_guard(judge: Judge, guard: Guard, rows: Sequence[Evaluation], *, level: float) -> GuardEvidence:
    """Where a setting stands to a guard; without a pair that can be compared it is not proved to hold.

    Args:
        judge: Knows the default on these pairs.
        guard: The limit.
        rows: The setting's evaluations.
        level: With which each end of the interval holds by itself.
    """
    drop = guard.rule == "drop_at_most_sd"
    return GuardEvidence(
        name=guard.name,
        scorer=guard.scorer,
        rule=guard.rule,
        limit=-guard.value if drop else guard.value,
        value=_guarded(judge, guard, rows, one_sided(level)),
        why=guard.why,
    )


def _guarded(judge: Judge, guard: Guard, rows: Sequence[Evaluation], level: float) -> Interval:
    known = judge.comparable(guard.scorer, rows)
    if not known:
        return Interval(mean=math.nan, low=-math.inf, high=math.inf, level=level, pairs=0, clusters=0)
    prompts = [row.pair.prompt for row in rows if row.pair.key in known]
    pairs = [known[row.pair.key] for row in rows if row.pair.key in known]
    drop = guard.rule == "drop_at_most_sd"
    values = _drops(judge, guard.scorer, pairs) if drop else _ratios(guard, pairs)
    return paired_interval(values, prompts, level=level)


def _minus(mine: Mapping[str, float], other: Mapping[str, float]) -> Parts:
    return {name: value - other.get(name, 0.0) for name, value in mine.items()}


def _unit_errors(judge: Judge, rows: Sequence[Evaluation], differences: Sequence[Parts]) -> list[Parts]:
    """How much each pair, through the unit, moves each scorer's gain; zero on average."""
    errors: list[Parts] = [{} for _ in rows]
    for name in judge.kinds:
        at = [i for i, parts in enumerate(differences) if name in parts]
        if not at:
            continue
        mean = float(np.mean([differences[i][name] for i in at]))
        squares = _squares([judge.baseline[rows[i].pair.key].scores[name] for i in at])
        for i, square in zip(at, squares, strict=True):
            errors[i][name] = mean * (square - 1) / 2
    return errors


def _squares(values: Sequence[float]) -> list[float]:
    """Squared standard scores; 1 each when nothing varies."""
    squares = (np.asarray(values) - np.mean(values)) ** 2
    mean = float(squares.mean())
    return [float(square) / mean for square in squares] if mean > 0 else [1.0] * len(values)


def _drops(judge: Judge, name: str, pairs: Sequence[tuple[float, float]]) -> list[float]:
    spread = judge.spread.get(name, 0.0)
    if spread <= 0:  # the default never varies: any loss is beyond every number of deviations
        return [float(np.sign(judge.sign(name) * (new - old))) * judge.objective.penalty for new, old in pairs]
    return [judge.sign(name) * (new - old) / spread for new, old in pairs]


def _ratios(guard: Guard, pairs: Sequence[tuple[float, float]]) -> list[float]:
    """The ratio of means, and what each pair adds to its error (delta method)."""
    new, old = (np.asarray(column) for column in zip(*pairs, strict=True))
    reference = positive(guard, float(old.mean()))
    ratio = float(new.mean()) / reference
    return [float(value) for value in ratio + (new - ratio * old) / reference]
