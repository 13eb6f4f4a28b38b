"""kill -9 of the driver, again and again: nothing that was finished is lost, and the result is the undisturbed one."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest

from stg_tune.search.plan import load_run
from stg_tune.search.stored import rows_of

HERE = Path(__file__).parent
KILLS = 20
LOCAL_RAY_KILLS = 2
"""Each brings a whole Ray of its own down with it."""

pytestmark = pytest.mark.slow


class Drivers:
    """Starts drivers one after the other."""

    def __init__(self, process):
        self._process = process

    def start(self, folder, executor="inline", seconds=0.01, address=None):
        request = {"folder": str(folder), "executor": executor, "seconds": seconds, "address": address}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def ended(self):
        return int(self._process.stdout.readline())


@contextmanager
def drivers():
    command = [sys.executable, str(HERE / "driver_process.py"), str(HERE / "conftest.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Drivers(process)
        finally:
            process.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(what a run without any trouble finds, its folder)."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with drivers() as start:
        start.start(folder, seconds=0)
        assert start.ended() == 0
    return json.loads((folder / "essence.json").read_text()), folder


def stored(folder):
    """Keys of the rows that are in the storage; none when the driver died before there was one."""
    if not (folder / "run.json").exists():
        return set()
    return {(row.evaluation.config, row.evaluation.pair.key) for row in rows_of(folder)}


def kill_again_and_again(start, folder, kills, wait, **how):
    """Kill the driver at random moments; the number of kills that hit it while it worked."""
    chance, hits, before = random.Random(7), 0, set()
    for _ in range(kills):
        pid = start.start(folder, **how)
        wait(folder, chance)
        try:
            subprocess.run(["kill", "-9", str(pid)], check=True, capture_output=True)
        except subprocess.CalledProcessError:  # it was faster: the count of hits will tell
            break
        hits += start.ended() == -signal.SIGKILL
        after = stored(folder)
        assert before <= after, "a finished pair was lost"
        before = after
    return hits


def check(folder, undisturbed, lost_at_most):
    expected, calm = undisturbed
    assert json.loads((folder / "essence.json").read_text()) == expected
    rows = stored(folder)
    assert rows >= stored(calm)
    begun = [tuple(line.split()) for line in (folder / "begun.log").read_text().splitlines()]
    assert len(begun) - len(set(begun)) <= lost_at_most
    study = optuna.load_study(study_name="synthetic", storage=load_run(folder).storage)
    assert {trial.state.name for trial in study.get_trials()} == {"COMPLETE"}
    assert len(study.get_trials()) == len({trial.number for trial in study.get_trials()})


def test_a_driver_that_is_killed_twenty_times(undisturbed, tmp_path):
    """At random moments: before it has begun, and after up to ten more pairs; a whole run takes three times as long."""
    folder = tmp_path / "run"

    def wait(folder, chance):
        goal, give_up = counted(folder) + chance.randint(0, 9), time.monotonic() + 60
        while counted(folder) < goal and time.monotonic() < give_up:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.2))

    with drivers() as start:
        hits = kill_again_and_again(start, folder, KILLS, wait, seconds=0.1)
        reached = counted(folder)
        start.start(folder, seconds=0)
        assert start.ended() == 0
    assert hits == KILLS
    assert reached >= 60  # in the search stage or later
    check(folder, undisturbed, lost_at_most=KILLS)


def test_a_driver_with_workers_that_is_killed(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = tmp_path / "run"

    def wait(folder, chance):
        """Until some more pairs are in, and a moment longer."""
        goal, give_up = len(stored(folder)) + 10, time.monotonic() + 60
        while len(stored(folder)) < goal and time.monotonic() < give_up:
            time.sleep(0.2)
        time.sleep(chance.uniform(0.0, 0.2))

    with drivers() as start:
        hits = kill_again_and_again(start, folder, LOCAL_RAY_KILLS, wait, executor="ray")
        start.start(folder, "ray")
        assert start.ended() == 0
    assert hits == LOCAL_RAY_KILLS
    # two in flight and one of the self-test a session, and two of the screen that two workers do once
    check(folder, undisturbed, lost_at_most=3 * (LOCAL_RAY_KILLS + 1) + 2)


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100_000_000})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster(monkeypatch):
    """Address of a Ray that outlives its drivers: to join it takes a fraction of the time that starting one does."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    command = [sys.executable, "-W", "ignore", "-c", CLUSTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        words = iter(process.stdout.readline, "")
        yield next(line.strip() for line in words if line.strip().rpartition(":")[2].isdigit())
        process.stdin.close()


def counted(folder):
    """Rows in the storage, without what it takes to read them."""
    try:
        with closing(sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True)) as base:
            return base.execute("select count(*) from evaluations").fetchone()[0]
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_a_driver_on_a_cluster_that_is_killed_twenty_times(undisturbed, tmp_path, cluster):
    """At random moments: while it joins, while workers load and test themselves, and after a few more pairs."""
    folder = tmp_path / "run"

    def wait(folder, chance):
        goal, give_up = counted(folder) + chance.choice((0, 1, 1, 2, 4)), time.monotonic() + 60
        while counted(folder) < goal and time.monotonic() < give_up:
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 0.3))

    with drivers() as start:
        hits = kill_again_and_again(start, folder, KILLS, wait, executor="ray", seconds=0.1, address=cluster)
        start.start(folder, "ray", address=cluster)
        assert start.ended() == 0
    assert hits == KILLS
    check(folder, undisturbed, lost_at_most=3 * (KILLS + 1) + 2)
