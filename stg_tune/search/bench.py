"""Measures configurations against the baseline: the ledger and the judge in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from stg_tune.search.executor import Task
from stg_tune.search.fidelity import FULL
from stg_tune.search.objective import Judge, Objective
from stg_tune.search.statistics import Interval, paired_interval, standard_error

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from stg_tune.records import Evaluation, GuidanceSpec, Pair, ScoreKind
    from stg_tune.search.ledger import Ledger
    from stg_tune.search.storage import Role


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a configuration gave on some pairs, against the baseline on the same pairs."""

    spec: GuidanceSpec
    """The configuration."""
    rows: tuple[Evaluation, ...]
    """Its evaluations."""
    deltas: Mapping[str, float]
    """Pair key -> objective, in baseline standard deviations; pairs without a scored baseline are absent."""
    violations: Mapping[str, float]
    """Guard name -> by how much it is broken (``> 0`` is broken)."""
    breaches: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Guard name -> pair key -> what the pair adds to ``violations`` over the default's."""

    @property
    def mean(self) -> float:
        """Mean objective; ``-inf`` when no pair could be compared."""
        return fmean(self.deltas.values()) if self.deltas else float("-inf")

    @property
    def standard_error(self) -> float:
        """Standard error of ``mean`` over pairs."""
        return standard_error(list(self.deltas.values()))

    @property
    def feasible(self) -> bool:
        """Whether every guard holds."""
        return all(value <= 0 for value in self.violations.values())

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the broken guards."""
        return tuple(name for name, value in self.violations.items() if value > 0)

    @cached_property
    def config(self) -> str:
        """Hash of the configuration."""
        return self.spec.hash()

    @property
    def forwards(self) -> float:
        """Mean denoiser-forward equivalents a video."""
        return fmean(row.forwards for row in self.rows) if self.rows else 0.0

    def interval(self) -> Interval | None:
        """Mean with a 95 % interval; in-sample unless the pairs are held out."""
        if not self.deltas:
            return None
        keys = list(self.deltas)
        prompts = {row.pair.key: row.pair.prompt for row in self.rows}
        return paired_interval([self.deltas[key] for key in keys], [prompts[key] for key in keys])


class Bench:
    """Evaluates configurations on pairs and compares them with the baseline there.

    Args:
        ledger: Answers or evaluates.
        judge: Knows the baseline; ``know_baseline`` adds more pairs to it.
        fidelity: Of all evaluations, the baseline's included.
    """

    def __init__(self, ledger: Ledger, judge: Judge, fidelity: str = FULL) -> None:
        self.ledger = ledger
        self.judge = judge
        self.fidelity = fidelity

    @classmethod
    def calibrate(
        cls,
        ledger: Ledger,
        baseline: GuidanceSpec,
        pairs: Sequence[Pair],
        objective: Objective,
        kinds: Mapping[str, ScoreKind],
        fidelity: str = FULL,
    ) -> Bench:
        """Evaluate the baseline on the search pairs and take its spread as the unit."""
        objective.check(kinds)
        rows = list(ledger.run([Task(spec=baseline, pair=pair, role="search", fidelity=fidelity) for pair in pairs]))
        judge = Judge.calibrate(objective, kinds, rows)
        judge.refuse_unmeasured()
        return cls(ledger, judge, fidelity)

    def know_baseline(self, baseline: GuidanceSpec, pairs: Sequence[Pair], role: Role) -> None:
        """Evaluate the baseline on more pairs, so that they can be compared."""
        rows = list(self.ledger.run(self._tasks([baseline], pairs, role)))
        self.judge = self.judge.with_baseline(rows)

    def measure(self, specs: Sequence[GuidanceSpec], pairs: Sequence[Pair], role: Role = "search") -> list[Measurement]:
        """Evaluate every configuration on every pair, as one batch that all workers share."""
        rows = list(self.ledger.run(self._tasks(specs, pairs, role)))
        step = len(pairs)
        return [self.judged(spec, rows[at * step : (at + 1) * step]) for at, spec in enumerate(specs)]

    def measure_twice(self, specs: Sequence[GuidanceSpec], pairs: Sequence[Pair]) -> None:
        """Evaluate on search pairs, and again where there are several workers: what they say must be the same."""
        self.ledger.run_twice(self._tasks(specs, pairs, "search"))

    def follow(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> Generator[Evaluation, None, None]:
        """Evaluate one configuration pair by pair; closing the generator stops it."""
        return self.ledger.run(self._tasks([spec], pairs, "search", optional=True))

    def missing(self, specs: Sequence[GuidanceSpec], pairs: Sequence[Pair]) -> int:
        """How many evaluations ``measure`` would add to what the run has spent."""
        return self.ledger.missing(self._tasks(specs, pairs, "search"))

    def judged(self, spec: GuidanceSpec, rows: Sequence[Evaluation]) -> Measurement:
        """Compare evaluations that are there."""
        deltas = {row.pair.key: self.judge.delta(row) for row in rows}
        return Measurement(
            spec=spec,
            rows=tuple(rows),
            deltas={key: delta for key, delta in deltas.items() if delta is not None},
            violations=self.judge.violations(rows),
            breaches=self.judge.breaches(rows),
        )

    def _tasks(
        self, specs: Sequence[GuidanceSpec], pairs: Sequence[Pair], role: Role, *, optional: bool = False
    ) -> list[Task]:
        return [
            Task(spec=spec, pair=pair, role=role, fidelity=self.fidelity, optional=optional)
            for spec in specs
            for pair in pairs
        ]
