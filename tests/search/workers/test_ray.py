"""The pool over real Ray actors: the same result as in one process, whatever dies."""

import importlib.metadata
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.driver import run_search
from stg_tune.search.executor import Task
from stg_tune.search.workers.deadline import DeadlineRule
from stg_tune.search.workers.executor import RayExecutor, RaySettings
from stg_tune.search.workers.pool import PoolRule
from stg_tune.search.workers.staff import StaffRule

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # before Ray is imported; the token has a test of its own

pytestmark = pytest.mark.slow

RULE = PoolRule(deadline=DeadlineRule(factor=5, least=3.0, first=10.0), staff=StaffRule(back_off=(0.5,), patience=300))
SPEC = GuidanceSpec(cfg_scale=2.0)


@dataclass
class Scripted:
    """What an evaluation does is in the caption of its pair; ``once`` troubles leave a mark and do not come back."""

    marks: str

    def __call__(self, threads):
        return self.evaluate

    def identity(self):
        return {"numpy": importlib.metadata.version("numpy")}

    def evaluate(self, spec, pair):
        word, _, number = pair.prompt.partition(" ")
        if word.endswith("-once"):
            mark = Path(self.marks) / f"{word}-{number}"
            word = "fine" if mark.exists() else word.removesuffix("-once")
            mark.touch()
        getattr(self, word.replace("-", "_"))()
        return Evaluation(config=spec.hash(), pair=pair, scores={"a": spec.cfg_scale + pair.seed}, seconds=0.01)

    def fine(self):
        time.sleep(0.02)

    def segfault(self):
        os.kill(os.getpid(), signal.SIGSEGV)

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(self):
        time.sleep(1000)

    def hungry(self):
        """More memory than the process may have."""
        limit = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, limit[1]))
        try:
            bytearray(500_000_000)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)

    def black(self):
        raise FloatingPointError("black video")

    def bug(self):
        raise AttributeError("typo")


def tasks(*captions):
    return [
        Task(spec=SPEC, pair=Pair(prompt=caption, seed=number), role="search")
        for number, caption in enumerate(captions)
    ]


@pytest.fixture(scope="module")
def cluster():
    """A small Ray for all tests of this file but those that need their own."""
    from ray import cloudpickle

    from stg_tune.search.workers.cluster import LocalCluster

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    started = LocalCluster(cpus=4, gpus=2)  # Ray counts GPUs, it does not look for them
    yield "auto"
    started.close()


@pytest.fixture
def executor(cluster, tmp_path):
    settings = RaySettings(address=cluster, workers=2, cpus=1, gpus=0, rule=RULE)
    with RayExecutor(Scripted(str(tmp_path)), settings) as made:
        yield made


def results(executor, *captions):
    finished = list(executor.run(tasks(*captions)))
    assert len(finished) == len(captions)
    return {item.task.pair.prompt: item for item in finished}


def test_two_processes_share_the_work(executor):
    done = []
    for item in executor.run(tasks(*(f"fine {number}" for number in range(2000)))):
        done.append(item)
        if len({item.worker for item in done}) == 2:  # on a busy machine the second one comes late
            break
    assert len({item.worker for item in done}) == 2
    assert not any(item.evaluation.error for item in done)
    assert all(item.worker.rpartition(":")[2] != str(os.getpid()) for item in done)


def test_failures_of_a_configuration_have_their_kind(executor):
    done = results(executor, "fine 0", "hungry 1", "black 2", "fine 3", "fine 4")
    assert done["hungry 1"].evaluation.error.startswith("oom: ")
    assert done["black 2"].evaluation.error == "nan: black video"
    assert [word for word, item in done.items() if not item.evaluation.error] == ["fine 0", "fine 3", "fine 4"]


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(executor):
    done = results(executor, "fine 0", "segfault-once 1", "fine 2", "killed-once 3", "fine 4", "fine 5")
    assert not any(item.evaluation.error for item in done.values())
    assert len({item.worker for item in done.values()}) >= 3


def test_what_always_crashes_is_a_failure_and_the_rest_goes_on(executor):
    done = results(executor, "fine 0", "fine 1", "segfault 2", "fine 3")
    assert done["segfault 2"].evaluation.error.startswith("crash: 3 workers died at it")
    assert [word for word, item in done.items() if not item.evaluation.error] == ["fine 0", "fine 1", "fine 3"]


def test_a_hung_evaluation_is_stopped(executor):
    results(executor, *(f"fine {number}" for number in range(6)))
    begun = time.monotonic()
    done = results(executor, "hang 7", "hang-once 8", "fine 9")
    assert done["hang 7"].evaluation.error.startswith("timeout: no result after")
    assert not done["hang-once 8"].evaluation.error
    assert time.monotonic() - begun < 300, "an evaluation that hangs would hold the search for ever"


def test_a_bug_is_told_with_its_place(executor):
    with pytest.raises(StgTuneError, match=r"failed 3 times.*AttributeError: typo; in bug \(test_ray\.py:\d+\)"):
        results(executor, "fine 0", "bug 1", "fine 2")


def test_a_whole_search_gives_what_one_process_gives(cluster, landscape, make_plan, tmp_path):
    from ray import cloudpickle

    scene = landscape(name="d1", noise=0.4)
    cloudpickle.register_pickle_by_value(sys.modules[type(scene).__module__])

    class Recipe:
        def __call__(self, threads):
            return scene

        def identity(self):
            return {}

    plan = make_plan(scene, budget="150", prompts=200)
    inline = run_search(plan, scene, directory=tmp_path / "inline")
    settings = RaySettings(address=cluster, workers=2, cpus=1, gpus=0)
    with RayExecutor(Recipe(), settings) as executor:
        result = run_search(plan, executor=executor, directory=tmp_path / "ray")
    assert [t.measurement.config for t in result.trials] == [t.measurement.config for t in inline.trials]
    assert result.verdict == inline.verdict
    assert result.spent == inline.spent


def test_other_versions_over_there_are_refused(cluster, tmp_path):
    recipe = Scripted(str(tmp_path))
    executor = RayExecutor(recipe, RaySettings(address=cluster, workers=1, cpus=1, gpus=0, rule=RULE))
    executor._pool._identity = {"numpy": "0.1"}
    with executor, pytest.raises(StgTuneError, match=r"numpy is \d.* on .* and 0\.1 here"):
        list(executor.run(tasks("fine 0")))


@dataclass
class Seeing:
    """Tells which GPUs it may see."""

    def __call__(self, threads):
        return self.evaluate

    def identity(self):
        return {}

    def evaluate(self, spec, pair):
        time.sleep(0.3)
        return Evaluation(config=spec.hash(), pair=pair, unscored={"gpus": os.environ["CUDA_VISIBLE_DEVICES"]})


@pytest.mark.parametrize(
    ("share", "workers", "expected"),
    [
        (0, 2, ["", ""]),
        (0.5, 4, ["0", "0", "1", "1"]),
        (0.6, 2, ["0", "1"]),
        (1, 2, ["0", "1"]),
        (2, 1, ["0,1"]),
    ],
)
def test_every_worker_sees_the_gpus_that_it_has_and_no_others(cluster, share, workers, expected):
    settings = RaySettings(address=cluster, workers=None if share else workers, cpus=0.5, gpus=share)
    seen = {}
    with RayExecutor(Seeing(), settings) as executor:
        for item in executor.run(tasks(*(f"{number}" for number in range(200)))):
            seen[item.worker] = item.evaluation.unscored["gpus"]
            if len(seen) == workers:
                break
        assert executor.slots == workers
    assert sorted(seen.values()) == expected


@dataclass
class Full(Scripted):
    """A model that does not fit before the third attempt to load it."""

    def __call__(self, threads):
        attempt = len(list(Path(self.marks).glob("load-*")))
        (Path(self.marks) / f"load-{attempt}").touch()
        if attempt < 2:
            raise RuntimeError("CUDA out of memory")
        return self.evaluate


def test_a_model_that_does_not_load_at_first_is_loaded_later(cluster, tmp_path):
    rule = replace(RULE, staff=StaffRule(back_off=(1.0, 2.0), patience=300))
    begun = time.monotonic()
    with RayExecutor(Full(str(tmp_path)), RaySettings(address=cluster, workers=1, gpus=0, rule=rule)) as executor:
        (done,) = executor.run(tasks("fine 0"))
    assert not done.evaluation.error
    assert len(list(tmp_path.glob("load-*"))) == 3
    assert time.monotonic() - begun >= 3


def test_a_place_that_is_never_free(cluster, tmp_path):
    rule = replace(RULE, staff=StaffRule(patience=3))
    settings = RaySettings(address=cluster, workers=1, cpus=64, gpus=0, rule=rule)
    executor = RayExecutor(Scripted(str(tmp_path)), settings)
    with executor, pytest.raises(StgTuneError, match="no worker has come for 3 s"):
        list(executor.run(tasks("fine 0")))
