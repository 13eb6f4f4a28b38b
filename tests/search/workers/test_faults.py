"""A whole search whose workers die, hang and run out of memory finds what one without any trouble finds."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest

from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search.driver import run_search
from stg_tune.search.executor import Task
from stg_tune.search.plan import load_run
from stg_tune.search.stored import rows_of
from stg_tune.search.workers.crew import Arrived, Loaded, Lost
from stg_tune.search.workers.deadline import DeadlineRule
from stg_tune.search.workers.executor import RayExecutor, RaySettings
from stg_tune.search.workers.pool import PoolRule
from stg_tune.search.workers.ray_crew import RayCrew
from stg_tune.search.workers.staff import StaffRule

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # before Ray is imported; the token has a test of its own

pytestmark = pytest.mark.slow

SPARE = 3_000_000_000
"""Bytes that all workers may use together before Ray ends one of them."""
PIECE = 200_000_000
NEEDED = 3 * SPARE
"""Bytes that must be free for this."""


@dataclass
class Troubled:
    """Evaluates the landscape; at some evaluations, counted over all workers, something happens in its place."""

    landscape: Any
    folder: str
    troubles: dict[int, str]

    def __call__(self, threads):
        return self.evaluate

    def identity(self):
        return {}

    def evaluate(self, spec, pair):
        trouble = self.troubles.get(self.number())
        if trouble:
            getattr(self, trouble)()
        done = self.landscape(spec, pair)
        self.note("done", f"{done.config} {pair.key}")
        return done

    def number(self):
        number = 0
        while True:
            try:
                (Path(self.folder) / f"{number}.begun").touch(exist_ok=False)
            except FileExistsError:
                number += 1
            else:
                return number

    def note(self, name, line):
        with (Path(self.folder) / f"{name}.log").open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def segfault(self):
        os.kill(os.getpid(), signal.SIGSEGV)

    def hang(self):
        time.sleep(1000)

    def hungry(self):
        held = []
        while len(held) * PIECE < 2 * SPARE:
            held.append(b"x" * PIECE)
            time.sleep(0.05)
        time.sleep(5)


def memory():
    """(bytes of this machine, bytes that are free)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return sizes["MemTotal"], sizes["MemAvailable"]


@pytest.fixture(scope="module")
def cluster():
    """A small Ray that ends a worker when ``SPARE`` more is used than now."""
    from ray import cloudpickle

    from stg_tune.search.workers.cluster import LocalCluster

    total, free = memory()
    if free < NEEDED:
        pytest.skip(f"a worker that runs out of memory needs {NEEDED / 1e9:.0f} GB free, here are {free / 1e9:.1f} GB")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_memory_usage_threshold", f"{(total - free + SPARE) / total:.4f}")
        patch.setenv("RAY_memory_monitor_refresh_ms", "50")
        started = LocalCluster(cpus=4, gpus=0)
        yield "auto"
        started.close()


class Ours:
    """The cluster of the fixture, which is closed there."""

    def close(self) -> None:
        pass


def first(crew, kind):
    """The first event of a kind."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        for event in crew.wait(1.0):
            if isinstance(event, kind):
                return event
            assert isinstance(event, Arrived), event
    pytest.fail(f"no {kind.__name__}")


@pytest.mark.parametrize(("trouble", "fault"), [("hungry", "memory"), ("killed", "process"), ("segfault", "process")])
def test_a_worker_that_ray_ends_for_want_of_memory_is_told_from_one_that_died(
    cluster, landscape, tmp_path, trouble, fault
):
    recipe = Troubled(None, str(tmp_path), {0: trouble})
    crew = RayCrew(Ours(), recipe, workers=1, cpus=1, gpus=0)
    worker = crew.hire()
    first(crew, Loaded)
    crew.assign(worker, Task(spec=GuidanceSpec(cfg_scale=2.0), pair=Pair(prompt="p", seed=1), role="search"))
    lost = first(crew, Lost)
    crew.close()
    assert (lost.worker, lost.fault) == (worker, fault)
    assert ("exceeded threshold" in lost.message) == (fault == "memory")
    assert "Object store" not in lost.message


def test_a_worker_that_cannot_be_reached_is_not_taken_for_one_that_died():
    """Ray's own exceptions; it raises them when a connection breaks, which takes two machines."""
    from ray import exceptions
    from ray.core.generated.common_pb2 import ActorDiedErrorContext

    crew = RayCrew.__new__(RayCrew)
    crew._nodes = {}
    unavailable = exceptions.ActorUnavailableError("the connection is broken", actor_id=None)
    assert crew._fault(1, unavailable) == "network"
    assert crew._fault(1, exceptions.OutOfMemoryError("low on memory")) == "memory"
    assert crew._fault(1, exceptions.ActorDiedError()) == "process"
    context = ActorDiedErrorContext(
        error_message="The actor died because its node has died. Node Id: 1", actor_id=b"1" * 16
    )
    assert crew._fault(1, exceptions.ActorDiedError(context)) == "machine"


TROUBLES = {25: "killed", 60: "segfault", 90: "hang", 120: "hungry"}
RULE = PoolRule(deadline=DeadlineRule(least=8.0), staff=StaffRule(back_off=(1.0, 2.0, 4.0, 8.0)))


def test_a_search_under_which_everything_happens_once(cluster, landscape, make_plan, tmp_path):
    from ray import cloudpickle

    scene = landscape(name="d1", noise=0.4)
    cloudpickle.register_pickle_by_value(sys.modules[type(scene).__module__])
    plan = make_plan(scene, budget="150", prompts=200)
    calm = run_search(plan, scene, directory=tmp_path / "calm")
    marks, folder = tmp_path / "marks", tmp_path / "run"
    marks.mkdir()
    settings = RaySettings(address=cluster, workers=2, cpus=1, gpus=0, rule=RULE)
    with RayExecutor(Troubled(scene, str(marks), TROUBLES), settings) as executor:
        result = run_search(plan, executor=executor, directory=folder)

    assert (marks / f"{max(TROUBLES)}.begun").exists()
    assert [trial.measurement.config for trial in result.trials] == [trial.measurement.config for trial in calm.trials]
    assert result.verdict == calm.verdict
    assert result.spent == calm.spent
    stored = {(row.evaluation.config, row.evaluation.pair.key): row.evaluation for row in rows_of(folder)}
    assert not any(row.error for row in stored.values())
    done = [tuple(line.split()) for line in (marks / "done.log").read_text(encoding="utf-8").splitlines()]
    assert set(done) <= stored.keys(), "a finished pair was lost"
    again = len(done) - len(set(done))
    assert again <= 4 + 2 * len(TROUBLES), "two settings on purpose; self-tests, of those who replace others as well"
    study = optuna.load_study(study_name="synthetic", storage=load_run(folder).storage)
    assert {trial.state.name for trial in study.get_trials()} == {"COMPLETE"}
