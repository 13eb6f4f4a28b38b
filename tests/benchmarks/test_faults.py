"""The parts of the benchmark on a stand-in for the search: it stores rows, has a worker below it, and can be killed."""

import json
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from benchmarks.faults import Blow, blows, compare, disturb, rows_of, workers_of, zombies_of

STAND_IN = """
import json, os, pathlib, sqlite3, subprocess, sys, time
run, forget = pathlib.Path(sys.argv[1]), "forget" in sys.argv
run.mkdir(exist_ok=True)
base = sqlite3.connect(run / "study.db")
base.execute("create table if not exists evaluations (config, pair, fidelity, scores, unique (config, pair, fidelity))")
base.execute("create table if not exists trials (state)")
(run / "run.json").write_text("{}")
if forget:
    base.execute("delete from evaluations where pair = '0'")
work = f"import time, os\\nwhile os.getppid() == {os.getpid()}: time.sleep(0.05)"
def hire():
    return subprocess.Popen(["ray::Worker.evaluate", "-c", work], executable=sys.executable)
worker = hire()
for number in range(base.execute("select count(*) from evaluations").fetchone()[0] + forget, 30):
    if worker.poll() is not None:
        worker = hire()
    base.execute("insert into evaluations values ('c', ?, 'full', ?)", (str(number), json.dumps({"a": number / 3})))
    base.commit()
    time.sleep(0.05)
base.execute("insert into trials values ('COMPLETE')")
base.commit()
worker.kill()
preset = {"guidance": {"cfg_scale": 2.0}, "evidence": {"gain": {"mean": 0.5}}, "name": str(time.time())}
(run / "preset.json").write_text(json.dumps(preset))
sys.exit(3 if "lost" in sys.argv else 0)
"""


def command(run, *words):
    return [sys.executable, "-c", STAND_IN, str(run), *words]


def strike(target, rows=3):
    return Blow(target=target, rows=rows, delay=0.01)


def test_kills_are_planned_by_the_seed_and_leave_half_of_the_budget():
    planned = blows(0, 20, 150)
    assert planned == blows(0, 20, 150) != blows(1, 20, 150)
    assert sorted(blow.target for blow in planned) == ["driver"] * 10 + ["worker"] * 10
    assert 20 < sum(blow.rows for blow in planned) < 150
    assert len(blows(0, 3, 150)) == 3


def test_a_disturbed_run_ends_and_is_what_it_would_have_been(tmp_path):
    calm, run = tmp_path / "calm", tmp_path / "run"
    assert disturb(calm, command(calm), [], []).sessions == 1
    damage = disturb(run, command(run), command(run), [strike("driver"), strike("worker"), strike("driver", 0)])
    assert damage.kills == {"driver": 2, "worker": 1}
    assert (damage.sessions, damage.lost, zombies_of(run)) == (3, set(), 0)
    found = compare(calm, run)
    assert (found["same_evaluations"], found["same_preset"], found["evaluations"]) == (True, True, 30)


def test_what_is_lost_or_different_is_seen(tmp_path):
    calm, run = tmp_path / "calm", tmp_path / "run"
    disturb(calm, command(calm, "lost"), [], [])
    damage = disturb(run, command(run), command(run, "forget"), [strike("driver")])
    assert damage.lost == {("c", "0", "full")}
    with sqlite3.connect(run / "study.db") as base:
        base.execute("update evaluations set scores = '{\"a\": 9.0}' where pair = '5'")
        base.execute("insert into trials values ('RUNNING')")
    preset = json.loads((run / "preset.json").read_text())
    (run / "preset.json").write_text(json.dumps({**preset, "guidance": {"cfg_scale": 2.5}}))
    found = compare(calm, run)
    assert (found["evaluations_only_undisturbed"], found["evaluations_with_other_scores"]) == (1, 1)
    assert not found["same_evaluations"]
    assert not found["same_preset"]
    assert zombies_of(run) == 1


def test_a_run_that_fails_by_itself_is_no_result(tmp_path):
    with pytest.raises(RuntimeError, match="ended with 1: no such luck"):
        disturb(tmp_path, [sys.executable, "-c", "raise SystemExit('no such luck')"], [], [])


def test_only_the_drivers_own_workers_are_hit(tmp_path):
    run = tmp_path / "run"
    with subprocess.Popen(command(run)) as driver, subprocess.Popen(command(tmp_path / "other")) as other:
        while not (rows_of(run) and workers_of(driver.pid) and workers_of(other.pid)):
            time.sleep(0.05)
        assert not set(workers_of(driver.pid)) & set(workers_of(other.pid))
        for process in (driver, other):
            process.send_signal(signal.SIGKILL)
    assert rows_of(tmp_path / "nothing here") == {}
