"""Ray Tune with ``OptunaSearch`` and ASHA over free slots, as a user would write it."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # before Ray is imported
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from benchmarks.rivals import GRACE, SLOTS, Court, slots
from stg_tune.search.encoding import Encoding
from stg_tune.search.tune import METRIC, GuidanceTrial, Problem
from stg_tune.search.workers.cluster import LocalCluster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.simulated import Simulator
    from stg_tune.records import GuidanceSpec
    from stg_tune.search import Evaluate, SearchPlan


@dataclass(frozen=True)
class Recipe:
    """How an actor comes by the simulator."""

    simulator: Simulator

    def __call__(self, threads: int) -> Evaluate:
        """The simulator itself."""
        del threads
        return self.simulator

    def identity(self) -> Mapping[str, str]:
        """Nothing decides its numbers but itself."""
        return {}


@dataclass(frozen=True)
class Drawn:
    """Numbers that were drawn already, in the place of an Optuna trial."""

    values: Mapping[str, Any]

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """What was drawn."""
        del choices
        return self.values[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """What was drawn."""
        del low, high, log
        return float(self.values[name])


class SlotTrial(GuidanceTrial):
    """One configuration in free slots, one pair a step."""

    plan: SearchPlan

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._spec = slots(Drawn(config), self.plan)
        self._rows = []


class Recorder(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Every result in the order in which it came; no more after ``budget``."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan = plan
        self.steps: list[tuple[GuidanceSpec, int]] = []

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        """Note which setting has been seen on how many pairs."""
        self.steps.append((slots(Drawn(trial.config), self.plan), int(result["pairs"])))


def space_of(plan: SearchPlan) -> dict[str, Any]:
    """The distributions behind ``slots``."""
    space = plan.space
    named = {
        f"{stack}.slot{i}": CategoricalDistribution([-1, *range(depth)])
        for stack, depth in plan.depths.items()
        for i in range(SLOTS)
    }
    ranges = {"cfg_scale": space.cfg_scale, "rescale": space.rescale, "start": space.start, "stop": space.stop}
    return {
        **named,
        "op": CategoricalDistribution(list(space.ops)),
        "stg_scale": FloatDistribution(space.stg_scale.low, space.stg_scale.high, log=True),
        **{name: FloatDistribution(item.low, item.high) for name, item in ranges.items()},
    }


def run_ray_tune(court: Court, seed: int, budget: int) -> Recorder:
    """Run it until the budget is used up; the recorder says what it did, in order."""
    plan = court.plan
    problem = Problem(
        encoding=Encoding(space=plan.space, orders={}, num_steps=plan.num_steps),
        judge=court.judge,
        pairs=plan.search_pairs,
        recipe=Recipe(court.simulator),
    )
    recorder = Recorder(plan)
    steps = budget - court.spent

    def enough(trial_id: str, result: Mapping[str, Any]) -> bool:
        del trial_id, result
        return len(recorder.steps) >= steps

    with tempfile.TemporaryDirectory() as folder, closing(LocalCluster(cpus=1, gpus=0)):
        tune.Tuner(
            type("BoundSlotTrial", (SlotTrial,), {"problem": problem, "plan": plan}),
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(
                    OptunaSearch(space=space_of(plan), metric=METRIC, mode="max", sampler=TPESampler(seed=seed)), 1
                ),
                scheduler=ASHAScheduler(
                    metric=METRIC, mode="max", grace_period=GRACE, reduction_factor=2, max_t=len(plan.search_pairs)
                ),
                num_samples=-(-steps // GRACE),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, callbacks=[recorder], stop=enough, verbose=0),
        ).fit()
    return recorder
