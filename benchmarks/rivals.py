"""The ways of searching that ``benchmarks.efficiency`` compares, all on the same pairs, objective and evaluator.

Each gives its trail: after how many pair evaluations which setting it would have handed over. The others hand over the
best mean of a setting that they have seen on all search pairs, so that nobody wins by two easy pairs; ours hands over
what it tells its user: the leader of its belief, after fewer pairs too, and in the end the winner of its race.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import optuna

from benchmarks.landscape import grid
from benchmarks.memory import search_in_memory
from stg_tune.records import GuidanceSpec, SkipTerm
from stg_tune.search.encoding import build_spec
from stg_tune.search.objective import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.simulated import Simulator
    from stg_tune.records import Evaluation, Pair
    from stg_tune.search import SearchPlan

    Decode = Callable[[Any, SearchPlan], GuidanceSpec]

SLOTS = 3
"""Layers of a stack that the free slots may name; as many as our own space allows."""
GRACE = 3
"""Pairs before ASHA may stop a trial."""


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
    """

    simulator: Simulator
    plan: SearchPlan
    trail: list[Step] = field(default_factory=list)
    spent: int = 0

    def __post_init__(self) -> None:
        """Evaluate the default, as everybody must."""
        self._seen: dict[str, dict[str, Evaluation]] = {}
        self._best = 0.0
        rows = [self.evaluate(self.plan.baseline, pair) for pair in self.plan.search_pairs]
        self.judge = Judge.calibrate(self.plan.space.objective, self.plan.kinds, rows)
        self.trail.append(Step(spent=self.spent, spec=self.plan.baseline))

    def evaluate(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        """One evaluation; known ones are free."""
        known = self._seen.setdefault(spec.hash(), {})
        if pair.key not in known:
            known[pair.key] = self.simulator(spec, pair)
            self.spent += 1
        return known[pair.key]

    def full(self, spec: GuidanceSpec) -> float:
        """Evaluate a setting on all search pairs; gives its merit, and notes it when it is the best."""
        rows = [self.evaluate(spec, pair) for pair in self.plan.search_pairs]
        gain, feasible = self.merit(rows)
        if feasible and gain > self._best:
            self._best = gain
            self.trail.append(Step(spent=self.spent, spec=spec))
        return gain if feasible else gain - self.judge.objective.penalty

    def merit(self, rows: list[Evaluation]) -> tuple[float, bool]:
        """Mean paired gain, and whether every guard holds."""
        deltas = [delta for row in rows if (delta := self.judge.delta(row)) is not None]
        return fmean(deltas), all(value <= 0 for value in self.judge.violations(rows).values())


def published_grid(simulator: Simulator, plan: SearchPlan, seed: int, budget: int) -> list[Step]:
    """Every layer at scales 1, 2 and 3 beside the default's CFG, in a random order."""
    court, every = Court(simulator, plan), list(grid(plan.space, plan.depths, plan.baseline))
    random.Random(seed).shuffle(every)
    for spec in every:
        if court.spent < budget:
            court.full(spec)
    return court.trail


def random_search(simulator: Simulator, plan: SearchPlan, seed: int, budget: int) -> list[Step]:
    """Free slots and all other numbers, drawn at random."""
    return _optuna(simulator, plan, budget, optuna.samplers.RandomSampler(seed=seed), slots)


def tpe_bits(simulator: Simulator, plan: SearchPlan, seed: int, budget: int) -> list[Step]:
    """Optuna's TPE as it comes, one include-bit a layer."""
    return _optuna(simulator, plan, budget, optuna.samplers.TPESampler(seed=seed), bits)


def tpe_slots(simulator: Simulator, plan: SearchPlan, seed: int, budget: int) -> list[Step]:
    """Optuna's TPE as it comes, free slots."""
    return _optuna(simulator, plan, budget, optuna.samplers.TPESampler(seed=seed), slots)


def _optuna(
    simulator: Simulator, plan: SearchPlan, budget: int, sampler: optuna.samplers.BaseSampler, decode: Decode
) -> list[Step]:
    court = Court(simulator, plan)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while court.spent + len(plan.search_pairs) <= budget:
        trial = study.ask()
        study.tell(trial, court.full(decode(trial, plan)))
    return court.trail


def bits(trial: Any, plan: SearchPlan) -> GuidanceSpec:
    """Whether each layer is skipped; one term for all of them."""
    chosen = {
        stack: tuple(layer for layer in range(depth) if trial.suggest_categorical(f"{stack}.{layer}", [False, True]))
        for stack, depth in plan.depths.items()
    }
    return _spec(trial, plan, {stack: layers for stack, layers in chosen.items() if layers})


def slots(trial: Any, plan: SearchPlan) -> GuidanceSpec:
    """For each stack a few slots that name a layer or nothing; one term for all of them."""
    chosen: dict[str, tuple[int, ...]] = {}
    for stack, depth in plan.depths.items():
        named = {trial.suggest_categorical(f"{stack}.slot{i}", [-1, *range(depth)]) for i in range(SLOTS)} - {-1}
        if named:
            chosen[stack] = tuple(sorted(named))
    return _spec(trial, plan, chosen)


def _spec(trial: Any, plan: SearchPlan, chosen: Mapping[str, tuple[int, ...]]) -> GuidanceSpec:
    space = plan.space
    op = trial.suggest_categorical("op", list(space.ops))
    scale = trial.suggest_float("stg_scale", space.stg_scale.low, space.stg_scale.high, log=True)
    cfg = trial.suggest_float("cfg_scale", space.cfg_scale.low, space.cfg_scale.high)
    rescale = trial.suggest_float("rescale", space.rescale.low, space.rescale.high)
    start = trial.suggest_float("start", space.start.low, space.start.high)
    stop = trial.suggest_float("stop", space.stop.low, space.stop.high)
    if not chosen:
        return build_spec(cfg_scale=cfg, rescale=rescale)
    term = SkipTerm(name="joint", skip_layers=chosen, skip_op=op, stg_scale=float(f"{scale:.2g}"))
    first = round(start * plan.num_steps) / plan.num_steps
    after = max(round(stop * plan.num_steps) / plan.num_steps, first + 1 / plan.num_steps)
    return build_spec(cfg_scale=cfg, rescale=rescale, terms=(term,), window=(first, after))


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
    from benchmarks.rival_ray import run_ray_tune  # starts Ray

    court = Court(simulator, plan)
    for spec, pairs in run_ray_tune(court, seed, budget).steps:
        court.evaluate(spec, plan.search_pairs[pairs - 1])
        if pairs == len(plan.search_pairs):
            court.full(spec)
    return court.trail


METHODS: dict[str, Any] = {
    "stg-tune": ours,
    "published grid": published_grid,
    "random search": random_search,
    "TPE, include-bits": tpe_bits,
    "TPE, free slots": tpe_slots,
    "Ray Tune, OptunaSearch + ASHA": ray_tune,
}
