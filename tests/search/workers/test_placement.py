import pytest

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation
from stg_tune.search.executor import BatchingExecutor, InlineExecutor
from stg_tune.search.workers import sizing
from stg_tune.search.workers.cluster import places
from stg_tune.search.workers.executor import RayExecutor
from stg_tune.search.workers.placement import Placement, lay_out

GIB = 2**30


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with eight processors, two hyperthreads a core, and 10 GiB."""
    for number in range(8):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    limit = tmp_path / "memory.max"
    limit.write_text(str(10 * GIB))
    monkeypatch.setattr(sizing, "CPU_TOPOLOGY", tmp_path)
    monkeypatch.setattr(sizing, "MEMORY_LIMIT", limit)
    monkeypatch.setattr(sizing, "_meminfo", lambda: {"MemAvailable": 64 * GIB})
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    return limit


@pytest.mark.parametrize(
    ("wish", "gpus", "worker_gib", "expected"),
    [
        ({}, 0, 1, ("ray", 4, 0.0, 1.0)),
        ({}, 0, 4, ("ray", 2, 0.0, 2.0)),
        ({}, 0, 40, ("inline", 1, 0.0, 4.0)),
        ({}, 1, 1, ("inline", 1, 1.0, 4.0)),
        ({}, 2, 1, ("ray", 2, 1.0, 2.0)),
        ({"gpus": 0.5}, 2, 1, ("ray", 4, 0.5, 1.0)),
        ({"gpus": 0.6}, 2, 1, ("ray", 2, 0.6, 2.0)),
        ({"gpus": 0.4, "workers": 4}, 2, 1, ("ray", 4, 0.4, 1.0)),
        ({"gpus": 2}, 4, 1, ("ray", 2, 2.0, 2.0)),
        ({"gpus": 2}, 5, 1, ("ray", 2, 2.0, 2.0)),
        ({"gpus": 0}, 2, 1, ("ray", 4, 0.0, 1.0)),
        ({"workers": 1}, 0, 1, ("inline", 1, 0.0, 4.0)),
        ({"workers": 3}, 0, 1, ("ray", 3, 0.0, 1.0)),
        ({"workers": 1, "executor": "ray"}, 0, 1, ("ray", 1, 0.0, 4.0)),
        ({"executor": "inline"}, 2, 1, ("inline", 1, 1.0, 4.0)),
        ({"workers": 2, "cpus": 0.5}, 0, 1, ("ray", 2, 0.0, 0.5)),
        ({"address": "auto"}, 0, 1, ("ray", None, None, 1.0)),
        ({"address": "auto", "gpus": 1}, 0, 1, ("ray", None, 1.0, 1.0)),
        ({"address": "auto", "workers": 9}, 1, 1, ("ray", 9, None, 1.0)),
    ],
)
def test_what_is_left_open_is_filled_in(machine, wish, gpus, worker_gib, expected):
    layout = lay_out(Placement(**wish), gpus=gpus, worker_bytes=worker_gib * GIB)
    assert (layout.executor, layout.workers, layout.gpus, layout.cpus) == expected


def test_without_a_limit_the_machine_counts(machine):
    machine.write_text("max\n")
    assert sizing.free_memory() == 64 * GIB


def test_a_model_needs_memory_for_its_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "readme.md").write_bytes(b"x" * 1000)
    assert sizing.model_bytes(tmp_path) == sizing.PROCESS_BYTES + 1500
    assert sizing.model_bytes(None) == sizing.PROCESS_BYTES


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"workers": 0}, "--workers must be 1 or more, got 0"),
        ({"gpus": -1}, "--gpus-per-worker must be between"),
        ({"gpus": 1.5}, "--gpus-per-worker above 1 must be a whole number, got 1.5"),
        ({"cpus": float("nan")}, "--cpus-per-worker must be between"),
        ({"executor": "inline", "workers": 2}, "inline is one worker"),
        ({"executor": "inline", "address": "auto"}, "inline is one worker"),
    ],
)
def test_contradictions_are_refused(wish, message):
    with pytest.raises(StgTuneError, match=message):
        Placement(**wish)


@pytest.mark.parametrize(
    ("wish", "gpus", "message"),
    [
        ({"gpus": 1}, 0, "more than the 0 GPUs"),
        ({"workers": 3, "gpus": 0.5}, 1, "more than the"),
        ({"workers": 3, "gpus": 0.6}, 2, "3 workers with 0.6 GPUs each are more than the 2 GPUs"),
    ],
)
def test_what_this_machine_has_not_is_refused(wish, gpus, message):
    with pytest.raises(StgTuneError, match=message):
        lay_out(Placement(**wish), gpus=gpus, worker_bytes=1)


@pytest.mark.parametrize(
    ("gpus", "share", "workers"),
    [
        (2, 0.6, 2),
        (2, 0.5, 4),
        (2, 0.4, 4),
        (3, 1 / 3, 9),
        (2, 0.3333, 6),
        (8, 0.1, 80),
        (2, 1, 2),
        (5, 2, 2),
        (1, 2, 0),
    ],
)
def test_no_worker_has_parts_of_two_gpus(gpus, share, workers):
    assert sizing.workers_on(gpus, share) == workers
    assert places({"CPU": 99.0, "GPU": float(gpus)}, cpus=1, gpus=share) == workers
    assert sizing.gpus_under(workers, share) <= gpus
    assert sizing.workers_on(sizing.gpus_under(workers, share), share) >= workers


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers"), [(1, 0, 4), (3, 0, 1), (0.5, 0, 8), (0.5, 1, 2), (0, 0.5, 4), (0, 0, 0)]
)
def test_a_machine_of_a_cluster_has_places(cpus, gpus, workers):
    assert places({"CPU": 4.0, "GPU": 2.0}, cpus=cpus, gpus=gpus) == workers


class Recipe:
    def __call__(self, threads):
        return lambda spec, pair: Evaluation(config=spec.hash(), pair=pair)

    def identity(self):
        return {}


def test_the_executor_follows_and_ray_is_not_started_for_nothing(machine):
    one = lay_out(Placement(workers=1), gpus=0, worker_bytes=GIB)
    with one.open(Recipe(), lambda: Recipe()(1)) as executor:
        assert isinstance(executor, InlineExecutor)
    assert one.threads is None
    two = lay_out(Placement(workers=2), gpus=0, worker_bytes=GIB)
    with two.open(Recipe(), lambda: pytest.fail("a model in this process")) as executor:
        assert isinstance(executor, RayExecutor)
        assert executor.slots == 2
        assert list(executor.run([])) == []
    assert two.threads == 2


def test_the_model_says_how_many_pairs_a_worker_takes_at_once_and_the_user_has_the_last_word(machine):
    own = lay_out(Placement(workers=1), gpus=0, worker_bytes=GIB, batch=4)
    with own.open(Recipe(), lambda: Recipe()(1)) as executor:
        assert isinstance(executor, BatchingExecutor)
    assert lay_out(Placement(workers=1, batch=1), gpus=0, worker_bytes=GIB, batch=4).batch == 1
    with pytest.raises(StgTuneError, match="--batch must be between 1 and 64, got 0"):
        Placement(batch=0)
