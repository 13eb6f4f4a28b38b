"""What ``state.json`` says, and that a torn, old or hostile one says nothing wrong."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stg_tune.serve.state import LOST, NO_STATE, RunState, read_state

STATE = {
    "status": "running",
    "message": "",
    "stage": "search",
    "done": 12,
    "total": 60,
    "stage_done": 2,
    "stage_total": 9,
    "seconds_left": 61.5,
    "workers": 2,
    "best": {"name": "trial 3", "held_out": False, "gain": {"mean": 0.5, "low": 0.1, "high": None}},
    "current": [{"cfg_scale": 3.0, "segments": []}, "nonsense", {"cfg_scale": "x"}],
}


def _write(folder: Path, state: Any, *, pid: int | None = None, host: str | None = None) -> None:
    (folder / "state.json").write_text(state if isinstance(state, str) else json.dumps(state))
    if pid is not None:
        (folder / "driver.lock").write_text(json.dumps({"pid": pid, "host": host or socket.gethostname()}))


def _dead() -> int:
    """The number of a process that was."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_running_search_is_told_in_words(tmp_path: Path) -> None:
    _write(tmp_path, STATE, pid=os.getpid())
    state = read_state(tmp_path)
    assert (state.status, state.stage, state.done, state.total, state.workers) == ("running", "search", 12, 60, 2)
    assert state.best == "trial 3: +0.50 [+0.10, ?] in-sample"
    assert state.current == ("CFG 3",)
    assert json.dumps(state.to_dict())


@pytest.mark.parametrize("lock", ["", "{torn", '{"pid": "x", "host": "y"}', "[]"])
def test_a_driver_that_left_no_name_is_gone(tmp_path: Path, lock: str) -> None:
    _write(tmp_path, STATE)
    (tmp_path / "driver.lock").write_text(lock)
    assert read_state(tmp_path).status == LOST


def test_a_killed_driver_is_seen_and_the_way_on_is_said(tmp_path: Path) -> None:
    _write(tmp_path, STATE, pid=_dead())
    state = read_state(tmp_path)
    assert state.status == LOST
    assert f"stg-tune resume {tmp_path}" in state.message


def test_a_driver_on_another_host_counts_as_alive(tmp_path: Path) -> None:
    _write(tmp_path, STATE, pid=_dead(), host="elsewhere")
    assert read_state(tmp_path).status == "running"


def test_a_finished_run_needs_no_driver(tmp_path: Path) -> None:
    _write(tmp_path, {**STATE, "status": "finished"}, pid=_dead())
    assert read_state(tmp_path).status == "finished"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 100_000, '{"status": 3}', '{"done": 1}'])
def test_what_cannot_be_read_is_no_state(tmp_path: Path, text: str) -> None:
    _write(tmp_path, text)
    assert read_state(tmp_path) == RunState(status=NO_STATE)


def test_fields_of_the_wrong_kind_are_left_out(tmp_path: Path) -> None:
    wrong = {name: {"a": [1]} for name in STATE} | {"status": "finished", "done": -1, "total": True, "workers": 1.5}
    _write(tmp_path, wrong)
    assert read_state(tmp_path) == RunState(status="finished")


def test_no_folder_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "no") == RunState()
