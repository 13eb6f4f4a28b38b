"""Stored evaluations -> what they say pair by pair: tuned, CFG alone and published settings against the default."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.report import Arm, Gain, PairGain
from stg_tune.search.bench import Measurement
from stg_tune.search.differences import gain_between
from stg_tune.search.fidelity import FULL
from stg_tune.search.objective import Judge
from stg_tune.search.statistics import LEVEL, MARGIN, conclude, paired_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stg_tune.records import Evaluation, GuidanceSpec, Pair
    from stg_tune.search.result import SearchResult
    from stg_tune.search.statistics import Interval
    from stg_tune.search.storage import Row

Table = dict[str, dict[str, "Evaluation"]]
"""Hash of a setting -> key of a pair -> its evaluation."""


def by_setting(rows: Iterable[Row]) -> Table:
    """The stored evaluations for look-up; those of a cheaper fidelity are no evidence."""
    table: Table = {}
    for row in (row for row in rows if row.fidelity == FULL):
        table.setdefault(row.evaluation.config, {})[row.evaluation.pair.key] = row.evaluation
    return table


def gain_of(interval: Interval) -> Gain:
    """An interval of the search, in whatever unit, as a gain of the report."""
    return Gain(mean=interval.mean, low=interval.low, high=interval.high, pairs=interval.pairs, level=interval.level)


def concluded(interval: Interval) -> Gain:
    """The gain of a whole setting, in baseline standard deviations, with what it says."""
    return replace(gain_of(interval), conclusion=conclude(interval), margin=MARGIN)


def pair_gains(result: SearchResult, table: Table) -> tuple[PairGain, ...]:
    """Every confirmation pair, tuned against default, in the unit of the verdict."""
    verdict, race = result.verdict, result.race
    if verdict is None or race is None:
        return ()
    default, tuned = (_on(table, spec, race.confirm) for spec in (result.plan.baseline, verdict.winner))
    if not default or not tuned:
        return ()
    judge = _judge(result, default)
    return tuple(
        PairGain(prompt=row.pair.prompt, seed=row.pair.seed, gain=gain, scores=_both(default[key], row))
        for key, row in tuned.items()
        if key in default and (gain := judge.delta(row)) is not None
    )


def arms(result: SearchResult, table: Table) -> tuple[Arm, ...]:
    """The settings of the verdict on the confirmation pairs; published ones on all pairs, none of which chose them."""
    return (*_confirmed(result, table), *_published(result, table))


def _confirmed(result: SearchResult, table: Table) -> Iterator[Arm]:
    verdict, race = result.verdict, result.race
    if verdict is None or race is None:
        return
    words = "confirmation pairs"
    scorers = {item.name: gain_of(item.gain) for item in verdict.scorers}
    yield Arm(name="tuned", spec=verdict.winner, gain=concluded(verdict.gain), scorers=scorers, pairs=words)
    if verdict.cfg_gain is not None and verdict.best_cfg != verdict.winner:
        rows = [_on(table, spec, race.confirm) for spec in (result.plan.baseline, verdict.best_cfg)]
        own = _per_scorer(result, *rows, level=verdict.gain.level)
        yield Arm(name="CFG alone", spec=verdict.best_cfg, gain=concluded(verdict.cfg_gain), scorers=own, pairs=words)


def _published(result: SearchResult, table: Table) -> Iterator[Arm]:
    default = table.get(result.plan.baseline.hash(), {})
    confirm = {pair.key for pair in result.race.confirm} if result.race else set()
    for name, spec in result.plan.published.items():
        mine = {key: row for key, row in table.get(spec.hash(), {}).items() if key in default and key not in confirm}
        gain = _gain_over(result, {key: default[key] for key in mine}, mine)
        if gain is not None:
            yield Arm(
                name=f"published: {name}",
                spec=spec,
                gain=concluded(gain),
                scorers=_per_scorer(result, default, mine, level=LEVEL),
                pairs="search and selection pairs",
            )


def _gain_over(
    result: SearchResult, default: Mapping[str, Evaluation], mine: Mapping[str, Evaluation]
) -> Interval | None:
    """A setting over the default on the same pairs, as the verdict compares them; ``None`` with fewer than two."""
    judge = _judge(result, default)
    if sum(judge.delta(row) is not None for row in mine.values()) < 2:
        return None
    one, other = (
        Measurement(spec=result.plan.baseline, rows=tuple(rows.values()), deltas={}, violations={})
        for rows in (mine, default)
    )
    return gain_between(judge, one, other, level=LEVEL)


def _judge(result: SearchResult, default: Mapping[str, Evaluation]) -> Judge:
    plan = result.plan
    judge = Judge(objective=plan.space.objective, kinds=plan.kinds, spread=result.spread)
    return judge.with_baseline(default.values()).in_units_of([row.pair for row in default.values()])


def _on(table: Table, spec: GuidanceSpec, pairs: Sequence[Pair]) -> dict[str, Evaluation]:
    mine = table.get(spec.hash(), {})
    return {pair.key: mine[pair.key] for pair in pairs if pair.key in mine}


def _both(default: Evaluation, tuned: Evaluation) -> dict[str, tuple[float, float]]:
    return {name: (default.scores[name], value) for name, value in tuned.scores.items() if name in default.scores}


def _per_scorer(
    result: SearchResult, default: Mapping[str, Evaluation], mine: Mapping[str, Evaluation], *, level: float
) -> dict[str, Gain]:
    """Paired gains in each scorer's own unit, on the pairs that both have a score for."""
    found = {}
    for name, kind in result.plan.kinds.items():
        sign = 1.0 if kind.direction == "maximize" else -1.0
        both = [
            (sign * (row.scores[name] - default[key].scores[name]), row.pair.prompt)
            for key, row in mine.items()
            if key in default and name in row.scores and name in default[key].scores
        ]
        if len(both) > 1:
            gains, prompts = zip(*both, strict=True)
            found[name] = gain_of(paired_interval(gains, prompts, level=level))
    return found
