import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.search.driver import run_search
from stg_tune.search.lock import DriverLock

HOLD = """
import sys, time
from pathlib import Path
from stg_tune.search.lock import DriverLock
with DriverLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_driver_is_refused_with_the_first_ones_pid(tmp_path):
    with DriverLock(tmp_path), pytest.raises(StgTuneError, match=rf"pid {os.getpid()} on .*another --out"):
        DriverLock(tmp_path).__enter__()
    with DriverLock(tmp_path):
        pass


def test_the_lock_of_a_killed_driver_is_free(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StgTuneError, match=f"pid {holder.pid}"):
            DriverLock(tmp_path).__enter__()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with DriverLock(tmp_path):
        assert json.loads((tmp_path / "driver.lock").read_text())["pid"] == os.getpid()


def test_another_host_is_believed_unless_told_otherwise(tmp_path):
    (tmp_path / "driver.lock").write_text('{"pid": 7, "host": "elsewhere.example"}')
    with pytest.raises(StgTuneError, match=r"pid 7 on elsewhere\.example.*stg-tune resume \S+ --takeover"):
        DriverLock(tmp_path).__enter__()
    with DriverLock(tmp_path, takeover=True):
        pass
    with DriverLock(tmp_path):
        pass


def test_a_run_of_a_host_that_is_gone_goes_on_when_told_so_and_only_then(landscape, make_plan, tmp_path):
    scene = landscape(name="d1", noise=0.4)
    plan = make_plan(scene, budget="150", prompts=200)
    calm = run_search(plan, scene, directory=tmp_path / "calm")
    folder, fresh = tmp_path / "run", dataclasses.replace(scene, calls=[])
    killed = iter(range(40))

    def evaluate(spec, pair):
        if next(killed, None) is None:
            raise KeyboardInterrupt
        return fresh(spec, pair)

    with pytest.raises(KeyboardInterrupt):
        run_search(plan, evaluate, directory=folder)
    (folder / "driver.lock").write_text('{"pid": 7, "host": "stg-tune-x7k2p"}')  # as a pod that was killed leaves it
    with pytest.raises(StgTuneError, match=r"stg-tune-x7k2p.*--takeover"):
        run_search(plan, fresh, directory=folder)
    assert len(fresh.calls) == 40
    assert run_search(plan, fresh, directory=folder, takeover=True).verdict == calm.verdict
    assert len(fresh.calls) == len(set(fresh.calls))


def test_a_host_that_died_before_there_was_a_run_locks_nobody_out(landscape, make_plan, tmp_path):
    scene = landscape(name="d1", noise=0.4)
    (tmp_path / "driver.lock").write_text('{"pid": 7, "host": "stg-tune-x7k2p"}')
    assert run_search(make_plan(scene, budget="150", prompts=200), scene, directory=tmp_path).finished


def test_takeover_is_no_way_around_a_driver_that_lives(tmp_path):
    with DriverLock(tmp_path), pytest.raises(StgTuneError, match="another driver"):
        DriverLock(tmp_path, takeover=True).__enter__()


def test_rubbish_in_the_file_does_not_lock_anybody_out(tmp_path):
    for rubbish in ("{", "[1]", '"x"'):
        (tmp_path / "driver.lock").write_text(rubbish)
        with DriverLock(tmp_path):
            pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StgTuneError, match="cannot write to the run folder"):
        DriverLock(tmp_path / "file" / "run").__enter__()
