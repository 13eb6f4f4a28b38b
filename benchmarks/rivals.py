"""The ways of searching that ``benchmarks.efficiency`` compares, all on the same pairs, objective and evaluator.

Each gives its trail: after how many pair evaluations which setting it would have handed over. The others hand over the
best mean of a setting that they have seen on all pairs of a trial. How many pairs a trial should have is theirs to
choose, so each of them runs with few and with many. Ours hands over what it tells its user: the leader of its belief,
after fewer pairs too, and in the end the winner of its race.

The spaces differ in how layers are named, and in nothing else: operation, a strength for each stack, how terms are
joined, CFG, rescale and window are the same numbers for all.
"""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import optuna

from benchmarks.landscape import grid
from benchmarks.memory import search_in_memory
from stg_tune.search.encoding import Encoding
from stg_tune.search.objective import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.simulated import Simulator
    from stg_tune.records import Evaluation, GuidanceSpec, Pair
    from stg_tune.search import SearchPlan

    Layers = Mapping[str, tuple[int, ...]]
    Choose = Callable[[Any, SearchPlan], Layers]

FEW, MANY = 8, 24
"""Pairs of a trial of the others: as many as ``stg-tune search`` takes with a small and with a large budget."""
PATIENCE = 1.25
"""Proposals over those that the budget pays for: a repeated one is free, and some samplers repeat for ever."""
GRACE = 3
"""Pairs before ASHA may stop a trial; its decisions lie at this number and its doublings, up to ``MANY``."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A new best setting."""

    spent: int
    """Pair evaluations so far, those of the default included."""
    spec: GuidanceSpec
    """The setting that the method would hand over, by what it has measured itself."""


@dataclass
class Court:
    """Counts evaluations and remembers which setting looks best.

    Args:
        simulator: Evaluates.
        plan: Search pairs, objective, default.
        pairs: How many of the search pairs a trial has.
    """

    simulator: Simulator
    plan: SearchPlan
    pairs: int = MANY
    trail: list[Step] = field(default_factory=list)
    spent: int = 0

    def __post_init__(self) -> None:
        """Evaluate the default, as everybody must."""
        self._seen: dict[str, dict[str, Evaluation]] = {}
        self._best = 0.0
        rows = [self.evaluate(self.plan.baseline, pair) for pair in self.search_pairs]
        self.judge = Judge.calibrate(self.plan.space.objective, self.plan.kinds, rows)
        self.trail.append(Step(spent=self.spent, spec=self.plan.baseline))

    @property
    def search_pairs(self) -> tuple[Pair, ...]:
        """Those that a trial has."""
        return self.plan.search_pairs[: self.pairs]

    def evaluate(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        """One evaluation; known ones are free."""
        known = self._seen.setdefault(spec.hash(), {})
        if pair.key not in known:
            known[pair.key] = self.simulator(spec, pair)
            self.spent += 1
        return known[pair.key]

    def full(self, spec: GuidanceSpec) -> float:
        """Evaluate a setting on all pairs of a trial; gives its merit, and notes it when it is the best."""
        rows = [self.evaluate(spec, pair) for pair in self.search_pairs]
        gain, feasible = self.merit(rows)
        if feasible and gain > self._best:
            self._best = gain
            self.trail.append(Step(spent=self.spent, spec=spec))
        return gain if feasible else gain - self.judge.objective.penalty

    def close(self) -> list[Step]:
        """The trail to where the method has stopped."""
        return [*self.trail, Step(spent=self.spent, spec=self.trail[-1].spec)]

    def merit(self, rows: list[Evaluation]) -> tuple[float, bool]:
        """Mean paired gain, and whether every guard holds."""
        deltas = [delta for row in rows if (delta := self.judge.delta(row)) is not None]
        return fmean(deltas), all(value <= 0 for value in self.judge.violations(rows).values())


def published_grid(simulator: Simulator, plan: SearchPlan, seed: int, budget: int, *, pairs: int) -> list[Step]:
    """Every layer at scales 1, 2 and 3 beside the default's CFG, in a random order; it ends when all are seen."""
    court, every = Court(simulator, plan, pairs), list(grid(plan.space, plan.depths, plan.baseline))
    random.Random(seed).shuffle(every)
    for spec in every:
        if court.spent + pairs <= budget:
            court.full(spec)
    return court.close()


def with_optuna(
    simulator: Simulator, plan: SearchPlan, seed: int, budget: int, *, sampler: Any, choose: Choose, pairs: int
) -> list[Step]:
    """A sampler of Optuna as it comes, over layers that ``choose`` names."""
    court = Court(simulator, plan, pairs)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed))
    for _ in range(round(PATIENCE * budget / pairs)):
        if court.spent + pairs > budget:
            break
        trial = study.ask()
        study.tell(trial, court.full(spec_of(trial, plan, choose)))
    return court.close()


def bits(trial: Any, plan: SearchPlan) -> Layers:
    """Whether each layer is skipped."""
    return {
        stack: tuple(layer for layer in range(depth) if trial.suggest_categorical(f"{stack}.{layer}", [False, True]))
        for stack, depth in plan.depths.items()
    }


def slots(trial: Any, plan: SearchPlan) -> Layers:
    """For each stack how many layers, none to as many as our own space allows, and a slot for each that names it."""
    chosen: dict[str, tuple[int, ...]] = {}
    for stack, depth in plan.depths.items():
        most = plan.space.stacks[stack].max_layers
        count = trial.suggest_int(f"k_{stack}", 0, most)
        named = [trial.suggest_categorical(f"{stack}.slot{i}", list(range(depth))) for i in range(most)]
        chosen[stack] = tuple(sorted(set(named[:count])))
    return chosen


def spec_of(trial: Any, plan: SearchPlan, choose: Choose) -> GuidanceSpec:
    """The setting of a trial: its layers, and for all else the numbers that our own optimiser proposes too."""
    layers = choose(trial, plan)
    orders = {(stack, op): chosen for stack, chosen in layers.items() for op in plan.space.ops}
    encoding = Encoding(space=plan.space, orders=orders, num_steps=plan.num_steps)
    params: dict[str, float] = {}
    for stack, chosen in layers.items():
        params |= {f"k_{stack}": len(chosen), f"offset_{stack}": 0}
    for knob in encoding.knobs():
        if knob.name in params:
            continue
        if knob.whole:
            params[knob.name] = trial.suggest_int(knob.name, int(knob.low), int(knob.high))
        else:
            params[knob.name] = trial.suggest_float(knob.name, knob.low, knob.high, log=knob.log)
    return encoding.decode(params)


def ours(simulator: Simulator, plan: SearchPlan, seed: int, budget: int) -> list[Step]:
    """``stg-tune search``: CFG line, screen, surrogate over ranked layers, and the choice on held-out pairs."""
    del seed, budget  # both are in the plan
    tally = _Tally(simulator)
    trail = [Step(spent=0, spec=plan.baseline)]
    race = search_in_memory(plan, tally.evaluate, lambda spec: trail.append(Step(spent=tally.spent, spec=spec))).race
    if race is not None and race.winner is not None:
        trail.append(Step(spent=tally.before(race.confirm), spec=race.winner.spec))
    return trail


@dataclass
class _Tally:
    """Counts evaluations, and remembers how many there were when a pair was first touched."""

    simulator: Simulator
    spent: int = 0
    _when: dict[str, int] = field(default_factory=dict)

    def evaluate(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        self.spent += 1
        self._when.setdefault(pair.key, self.spent)
        return self.simulator(spec, pair)

    def before(self, confirm: tuple[Pair, ...]) -> int:
        """Evaluations before the first confirmation pair was touched."""
        return min((self._when[pair.key] for pair in confirm if pair.key in self._when), default=self.spent + 1) - 1


def ray_tune(simulator: Simulator, plan: SearchPlan, seed: int, budget: int) -> list[Step]:
    """Ray Tune with ``OptunaSearch`` and ASHA over free slots, one trial at a time."""
    from stg_tune.search.workers.cluster import LocalCluster

    court = Court(simulator, plan)
    with closing(LocalCluster(cpus=1, gpus=0)):
        from benchmarks.rival_ray import run_ray_tune  # imports Ray, which has to be told first to stay on this machine

        steps = run_ray_tune(court, seed, budget).steps
    for spec, pairs in steps:
        for pair in court.search_pairs[pairs - GRACE : pairs]:
            court.evaluate(spec, pair)
        if pairs == len(court.search_pairs):
            court.full(spec)
    return court.close()


_SAMPLERS: dict[str, dict[str, Any]] = {
    "random search": {"sampler": optuna.samplers.RandomSampler, "choose": slots},
    "TPE, include-bits": {"sampler": optuna.samplers.TPESampler, "choose": bits},
    "TPE, free slots": {"sampler": optuna.samplers.TPESampler, "choose": slots},
}
OURS = "stg-tune"
GRID = "published grid"
RAY = "Ray Tune, OptunaSearch + ASHA"
METHODS: dict[str, Any] = {
    OURS: ours,
    **{f"{GRID}, {pairs} pairs": partial(published_grid, pairs=pairs) for pairs in (FEW, MANY)},
    **{
        f"{name}, {pairs} pairs": partial(with_optuna, pairs=pairs, **how)
        for name, how in _SAMPLERS.items()
        for pairs in (FEW, MANY)
    },
    RAY: ray_tune,
}
