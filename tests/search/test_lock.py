import json
import os
import signal
import subprocess
import sys

import pytest

from stg_tune.errors import StgTuneError
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
    with pytest.raises(StgTuneError, match=r"pid 7 on elsewhere\.example.*delete"):
        DriverLock(tmp_path).__enter__()
    with DriverLock(tmp_path, takeover=True):
        pass
    with DriverLock(tmp_path):
        pass


def test_rubbish_in_the_file_does_not_lock_anybody_out(tmp_path):
    for rubbish in ("{", "[1]", '"x"'):
        (tmp_path / "driver.lock").write_text(rubbish)
        with DriverLock(tmp_path):
            pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StgTuneError, match="cannot write to the run folder"):
        DriverLock(tmp_path / "file" / "run").__enter__()
