"""Ray Tune with ``OptunaSearch`` and ASHA over free slots, as a user would write it.

Imported when Ray has been started (``benchmarks.rivals.ray_tune``): ``LocalCluster`` keeps Ray on this machine.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from benchmarks.rivals import GRACE, Court, slots, spec_of
from stg_tune.search.encoding import Encoding
from stg_tune.search.tune import METRIC, GuidanceTrial, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution

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
class Asked:
    """In the place of an Optuna trial: notes what is asked for, and answers with the first value."""

    space: dict[str, BaseDistribution] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """The first choice."""
        self.space[name] = CategoricalDistribution(choices)
        return choices[0]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The least number."""
        self.space[name] = IntDistribution(low, high)
        return low

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The least number."""
        self.space[name] = FloatDistribution(low, high, log=log)
        return low


@dataclass(frozen=True)
class Drawn:
    """In the place of an Optuna trial: numbers that were drawn already."""

    values: Mapping[str, Any]

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """What was drawn."""
        del choices
        return self.values[name]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """What was drawn."""
        del low, high
        return int(self.values[name])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """What was drawn."""
        del low, high, log
        return float(self.values[name])


def space_of(plan: SearchPlan) -> dict[str, BaseDistribution]:
    """The distributions behind free slots."""
    asked = Asked()
    spec_of(asked, plan, slots)
    return asked.space


class SlotTrial(GuidanceTrial):
    """One configuration in free slots, as many pairs a step as lie between two decisions of ASHA."""

    plan: SearchPlan

    def step(self) -> dict[str, Any]:
        """Evaluate the next pairs."""
        told: dict[str, Any] = {}
        for _ in range(GRACE):
            told = super().step()
        return told

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._spec = spec_of(Drawn(config), self.plan, slots)
        self._rows = []


class Recorder(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Every result in the order in which it came."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan = plan
        self.steps: list[tuple[GuidanceSpec, int]] = []

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        """Note which setting has been seen on how many pairs."""
        self.steps.append((spec_of(Drawn(trial.config), self.plan, slots), int(result["pairs"])))


class Enough(tune.Stopper):  # type: ignore[misc]  # Ray has no types
    """Ends everything after a number of evaluations."""

    def __init__(self, recorder: Recorder, evaluations: int) -> None:
        self.recorder, self.evaluations = recorder, evaluations

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether this trial is to end."""
        return self.stop_all()

    def stop_all(self) -> bool:
        """Whether all are."""
        return len(self.recorder.steps) * GRACE >= self.evaluations


def run_ray_tune(court: Court, seed: int, budget: int) -> Recorder:
    """Run it until the budget is used up; the recorder says what it did, in order."""
    plan = court.plan
    problem = Problem(
        encoding=Encoding(space=plan.space, orders={}, num_steps=plan.num_steps),
        judge=court.judge,
        pairs=court.search_pairs,
        recipe=Recipe(court.simulator),
    )
    recorder = Recorder(plan)
    evaluations = budget - court.spent
    search = OptunaSearch(space=space_of(plan), metric=METRIC, mode="max", sampler=TPESampler(seed=seed))
    scheduler = ASHAScheduler(
        metric=METRIC, mode="max", grace_period=1, reduction_factor=2, max_t=len(court.search_pairs) // GRACE
    )
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            type("BoundSlotTrial", (SlotTrial,), {"problem": problem, "plan": plan}),
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(search, 1),
                scheduler=scheduler,
                num_samples=-(-evaluations // GRACE),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=folder, callbacks=[recorder], stop=Enough(recorder, evaluations), verbose=0
            ),
        ).fit()
    return recorder
