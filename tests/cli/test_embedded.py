"""The commands on the embedded model itself, as a newcomer runs them."""

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from stg_tune.cli import replay
from stg_tune.cli.main import main
from stg_tune.video import read_video

PROGRAM = "import sys; from stg_tune.cli.main import main; sys.exit(main(sys.argv[1:]))"
PROMPT = "a red seven moving left"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "seven.mp4"
    assert main(["generate", "--model", "open-sora-tiny", "--prompt", PROMPT, "--steps", "3", "-o", str(path)]) == 0
    return path


def test_generate_writes_a_video_of_the_models_size(film: Path) -> None:
    clip = read_video(film)
    assert clip.frames.shape == (17, 64, 64, 3)
    assert clip.fps == 8


def test_score_gives_every_scorer_as_a_table_and_as_json(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["score", str(film), "--prompt", PROMPT, "--json"]) == 0
    (scored,) = json.loads(capsys.readouterr().out)
    assert {"aesthetic", "alignment", "temporal_lpips", "imaging_quality", "motion"} <= set(scored["scores"])
    assert all(isinstance(value, float) for value in scored["scores"].values())
    assert main(["score", str(film), str(film), "--prompt", PROMPT]) == 0
    out = capsys.readouterr().out
    assert out.count("seven.mp4") == 2
    assert "temporal_lpips" in out
    assert "less is better" in out


def test_a_dry_run_shows_the_plan_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["search", "--model", "open-sora-tiny", "--dry-run", "--json", "--out", str(out)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert sum(plan["stages"].values()) == plan["evaluations"] <= 600
    assert 0 < plan["seconds_plain"] < plan["seconds"] <= plan["worker_seconds"] * 1.5
    assert plan["gpu_hours"] == 0
    assert not out.exists()
    assert main(["search", "--model", "open-sora-tiny", "--dry-run", "--workers", "2"]) == 0
    text = capsys.readouterr().out
    assert "2 workers (ray) on this machine" in text
    assert "of work" in text


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_says_how_to_go_on_and_keeps_every_pair(
    tmp_path: Path,
    workers: str,
    sent: signal.Signals,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = tmp_path / "run"
    words = ["search", "--model", "open-sora-tiny", "--budget", "150", "--workers", workers, "--out", str(folder)]
    returned, err = _stopped_by(sent, words, folder)
    assert returned == code
    assert f"stg-tune resume {folder}" in err
    assert "Traceback" not in err
    assert (folder / "driver.lock").read_bytes() == b""
    status = subprocess.run(
        [sys.executable, "-c", PROGRAM, "status", "--json", str(folder)], capture_output=True, text=True, check=True
    )
    state = json.loads(status.stdout)
    assert state["status"] == "interrupted"
    assert state["evaluations"] >= 2
    _replay_is_the_same(folder, capsys)


def test_a_run_whose_host_is_gone_is_resumed_with_takeover(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["search", "--model", "open-sora-tiny", "--budget", "150", "--workers", "1", "--out", str(folder)]
    assert _stopped_by(signal.SIGKILL, words, folder)[0] == -signal.SIGKILL
    (folder / "driver.lock").write_text('{"pid": 7, "host": "stg-tune-x7k2p"}', encoding="utf-8")
    (folder / "state.json").unlink()
    resume = [sys.executable, "-c", PROGRAM, "resume", str(folder), "--workers", "1"]
    refused = subprocess.run(resume, capture_output=True, text=True)
    assert refused.returncode == 1
    assert f"stg-tune resume {folder} --takeover" in refused.stderr
    assert _stopped_by(signal.SIGTERM, [*resume[3:], "--takeover"], folder)[0] == 143


def _stopped_by(sent: signal.Signals, words: list[str], folder: Path) -> tuple[int, str]:
    """Run a command until some pairs are in, and send a signal: its exit code and what it said."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "100"}
    ) as command:
        _wait_for_pairs(folder, command)
        command.send_signal(sent)
        _, err = command.communicate(timeout=120)
    return command.returncode, err


def _replay_is_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a run has stored comes out again, in another process and with another number of threads."""
    film, arguments = folder / "again.mp4", [str(folder), "default", "0"]
    capsys.readouterr()
    assert _replay("--json", "-o", str(film), *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same"]
    assert found["stored"]["scores"].keys() == found["now"]["scores"].keys() != set()
    assert read_video(film).frames.shape == (17, 64, 64, 3)
    with closing(sqlite3.connect(folder / "study.db")) as database, database:
        (scores,) = database.execute(
            "select scores from evaluations where pair = ?", (found["pair"]["key"],)
        ).fetchone()
        changed = json.dumps(json.loads(scores) | {"aesthetic": 99.0})
        database.execute("update evaluations set scores = ? where pair = ?", (changed, found["pair"]["key"]))
    assert _replay(*arguments) == 1
    out = capsys.readouterr().out
    assert "not the same: aesthetic 99 and" in out
    assert found["worker"] in out


def _replay(*words: str) -> int:
    parser = argparse.ArgumentParser()
    replay.add(parser.add_subparsers())
    arguments = parser.parse_args(["replay", *words])
    return arguments.run(arguments)


def _wait_for_pairs(folder: Path, search: subprocess.Popen[str]) -> None:
    """Until the run says that it has done some; it writes its state every two seconds."""
    give_up = time.monotonic() + 300
    while time.monotonic() < give_up and search.poll() is None:
        try:
            if json.loads((folder / "state.json").read_text(encoding="utf-8"))["done"] >= 2:
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.1)
    pytest.fail(f"no pair was evaluated; exit code {search.poll()}")
