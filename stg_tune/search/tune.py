"""For users who live in Ray Tune: the same objective as a ``Trainable``, the same space for ``OptunaSearch``.

    problem = problem_of(Path("runs/mine"), recipe)
    tuner = ray.tune.Tuner(
        trainable(problem),
        tune_config=ray.tune.TuneConfig(
            search_alg=OptunaSearch(search_space(problem), metric=METRIC, mode="max"),
            scheduler=ASHAScheduler(metric=METRIC, mode="max", grace_period=2, max_t=len(problem.pairs)),
            reuse_actors=True,
        ),
    )

It is an integration, not the engine of ``stg-tune search``: Ray Tune takes the mean over the pairs that a trial has
seen for its value, however few, so the best trial must be compared again on other pairs (``stg-tune search`` does).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ray import tune

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.driver import snapshot
from stg_tune.search.encoding import Encoding
from stg_tune.search.executor import Task, attempt
from stg_tune.search.objective import Judge
from stg_tune.search.proposals import distribution
from stg_tune.search.study import FAILED_VALUE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution

    from stg_tune.search.executor import Evaluate
    from stg_tune.search.workers.crew import Recipe

METRIC = "merit"
"""Mean paired gain in baseline standard deviations, less the penalty when a guard is broken; more is better."""
ROWS = "rows.json"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Everything that a trial needs; small, because it is sent to each worker."""

    encoding: Encoding
    """Numbers <-> settings."""
    judge: Judge
    """Knows the baseline on the pairs."""
    pairs: tuple[Pair, ...]
    """One a step, in this order."""
    recipe: Recipe
    """How a worker comes by its evaluator."""
    threads: int = 1
    """Threads of one worker."""


def problem_of(directory: Path, recipe: Recipe, *, threads: int = 1) -> Problem:
    """The problem of a run: its space over the layers as its screen has ordered them, its search pairs, its baseline.

    Args:
        directory: Folder of a run that has got past its screen.
        recipe: How a worker comes by its evaluator; ``stg_tune.studio.ModelRecipe`` for the models of this package.
        threads: Threads of one worker.

    Raises:
        StgTuneError: The run has not been screened yet.
    """
    found = snapshot(directory)
    if found.baseline is None or found.screen is None:
        raise StgTuneError(f"the run in {directory} has not ordered the layers yet: let it go on until the search")
    plan, rows = found.plan, found.baseline.rows
    return Problem(
        encoding=Encoding(space=plan.space, orders=dict(found.screen.orders), num_steps=plan.num_steps),
        judge=Judge(
            objective=plan.space.objective,
            kinds=plan.kinds,
            spread=found.spread,
            baseline={row.pair.key: row for row in rows},
        ),
        pairs=tuple(row.pair for row in rows),
        recipe=recipe,
        threads=threads,
    )


def search_space(problem: Problem) -> dict[str, BaseDistribution]:
    """The space as Optuna distributions, as ``OptunaSearch(space=...)`` takes them."""
    return {knob.name: distribution(knob) for knob in problem.encoding.knobs()}


def trainable(problem: Problem) -> Any:
    """A ``ray.tune.Trainable`` for this problem: one pair a step, the model is loaded once an actor."""
    return type("BoundGuidanceTrial", (GuidanceTrial,), {"problem": problem})


class GuidanceTrial(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """One configuration, one pair a step; reports ``merit``, ``gain``, ``delta``, ``feasible``, ``pairs``, ..."""

    problem: Problem
    """What it is about; ``trainable`` fills it in."""

    def setup(self, config: Mapping[str, float]) -> None:
        """Load the model; a reused actor does not come here again."""
        self._rows: list[Evaluation] = []
        self._evaluate: Evaluate = self.problem.recipe(self.problem.threads)
        self._begin(config)

    def step(self) -> dict[str, Any]:
        """Evaluate the next pair."""
        pair = self.problem.pairs[len(self._rows)]
        self._rows += attempt(self._evaluate, Task(spec=self._spec, pair=pair, role="search"))
        judge = self.problem.judge
        deltas = [delta for row in self._rows if (delta := judge.delta(row)) is not None]
        feasible = all(value <= 0 for value in judge.violations(self._rows).values())
        gain = fmean(deltas) if deltas else FAILED_VALUE
        return {
            METRIC: gain if feasible else gain - judge.objective.penalty,
            "gain": gain,
            "delta": judge.delta(self._rows[-1]),
            "feasible": feasible,
            "pairs": len(self._rows),
            "config_hash": self._spec.hash(),
            "spec": json.dumps(self._spec.to_dict()),
            "done": len(self._rows) == len(self.problem.pairs),
        }

    def reset_config(self, new_config: Mapping[str, float]) -> bool:
        """Take the next configuration with the same model."""
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep the pairs that were seen."""
        rows = [asdict(row) for row in self._rows]
        (Path(checkpoint_dir) / ROWS).write_text(json.dumps(rows), encoding="utf-8")

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on after the pairs that were seen."""
        rows = json.loads((Path(checkpoint) / ROWS).read_text(encoding="utf-8"))
        self._rows = [Evaluation(**row | {"pair": Pair(**row["pair"])}) for row in rows]

    def _begin(self, config: Mapping[str, float]) -> None:
        self._spec: GuidanceSpec = self.problem.encoding.decode(config)
        self._rows = []
