"""The objective and the space inside Ray Tune."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.driver import run_search, snapshot

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # before Ray is imported

pytestmark = pytest.mark.slow


@dataclass
class Recipe:
    """The landscape, and a mark for every time that it is loaded."""

    scene: object
    marks: str

    def __call__(self, threads):
        (Path(self.marks) / f"{os.getpid()}-{len(list(Path(self.marks).iterdir()))}").touch()
        return self.scene

    def identity(self):
        return {}


@pytest.fixture(scope="module")
def run(landscape, make_plan, tmp_path_factory):
    scene = landscape(name="d1", noise=0.4)
    folder = tmp_path_factory.mktemp("run")
    run_search(make_plan(scene, budget="150", prompts=200), scene, directory=folder)
    return scene, folder


@pytest.fixture
def problem(run, tmp_path):
    from stg_tune.search.tune import problem_of

    scene, folder = run
    marks = tmp_path / "marks"
    marks.mkdir()
    return problem_of(folder, Recipe(scene, str(marks)))


def test_the_space_is_the_one_of_the_search(problem):
    from stg_tune.search.tune import search_space

    space = search_space(problem)
    knobs = {knob.name: knob for knob in problem.encoding.knobs()}
    assert space.keys() == knobs.keys()
    assert all((space[name].low, space[name].high) == (knob.low, knob.high) for name, knob in knobs.items())


def test_a_trial_reports_what_the_search_would_have_measured(run, problem):
    from stg_tune.search.tune import METRIC, trainable

    trial = next(trial for trial in snapshot(run[1]).trials if trial.params and not trial.pruned)
    made = trainable(problem)(config=dict(trial.params))
    reports = [made.train() for _ in problem.pairs]
    assert reports[-1]["done"]
    assert not reports[-2]["done"]
    assert reports[-1]["gain"] == pytest.approx(trial.measurement.mean)
    assert reports[-1]["config_hash"] == trial.measurement.config
    assert reports[-1]["feasible"] == trial.measurement.feasible
    lost = 0 if trial.measurement.feasible else problem.judge.objective.penalty
    assert reports[-1][METRIC] == pytest.approx(trial.measurement.mean - lost)


def test_a_reused_actor_keeps_the_model_and_a_checkpoint_the_pairs(run, problem, tmp_path):
    from stg_tune.search.tune import trainable

    one, other = [trial.params for trial in snapshot(run[1]).trials if trial.params][:2]
    made = trainable(problem)(config=dict(one))
    made.train()
    made.reset_config(dict(other))
    first = made.train()
    assert first["pairs"] == 1
    made.save_checkpoint(str(tmp_path))
    second = made.train()
    again = trainable(problem)(config=dict(other))
    again.load_checkpoint(str(tmp_path))
    assert again.train()["gain"] == second["gain"]
    assert len(list(Path(problem.recipe.marks).iterdir())) == 2


def test_a_run_that_has_no_order_of_layers_yet(landscape, make_plan, tmp_path):
    from stg_tune.search.tune import problem_of

    scene = landscape(name="d1")

    def stop_early(spec, pair):
        if len(scene.calls) == 10:
            raise KeyboardInterrupt
        return scene(spec, pair)

    with pytest.raises(KeyboardInterrupt):
        run_search(make_plan(scene, budget="150"), stop_early, directory=tmp_path)
    with pytest.raises(StgTuneError, match="has not ordered the layers yet"):
        problem_of(tmp_path, Recipe(scene, ""))


def test_ray_tune_with_optuna_and_asha(run, problem, tmp_path):
    import ray
    from optuna.samplers import TPESampler
    from ray import cloudpickle, tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    from stg_tune.search.tune import METRIC, search_space, trainable
    from stg_tune.search.workers.cluster import LocalCluster

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cloudpickle.register_pickle_by_value(sys.modules[type(run[0]).__module__])
    searcher = OptunaSearch(search_space(problem), metric=METRIC, mode="max", sampler=TPESampler(seed=1))
    cluster = LocalCluster(cpus=2, gpus=0)
    try:
        assert ray.is_initialized()
        found = tune.Tuner(
            trainable(problem),
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(searcher, max_concurrent=2),
                scheduler=ASHAScheduler(metric=METRIC, mode="max", grace_period=2, max_t=len(problem.pairs)),
                num_samples=12,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path / "results"), verbose=0),
        ).fit()
    finally:
        cluster.close()
    assert not found.errors
    pairs = [result.metrics["pairs"] for result in found]
    assert len(pairs) == 12
    assert max(pairs) == len(problem.pairs)
    assert min(pairs) < len(problem.pairs)
    assert len(list(Path(problem.recipe.marks).iterdir())) <= 4
    best = found.get_best_result(METRIC, "max")
    assert isinstance(run[0](GuidanceSpec(cfg_scale=2.0), Pair(prompt="p", seed=1)), Evaluation)
    assert best.metrics["config_hash"] == problem.encoding.decode(best.config).hash()
