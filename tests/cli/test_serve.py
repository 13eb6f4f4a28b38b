"""``serve`` and ``vote`` as commands: what is wrong is said before a server starts, and Ctrl-C is a normal end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stg_tune.cli.main import main
from stg_tune.outcome import filmed_pairs
from stg_tune.records import Pair
from stg_tune.search import load_run, snapshot
from stg_tune.vote import Vote, VoteFile

PROGRAM = "import sys; from stg_tune.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def filmed(finished_run: Path, tmp_path: Path) -> Path:
    """A run with clips of the right names."""
    folder = shutil.copytree(finished_run, tmp_path / "run")
    winner = snapshot(folder).verdict.winner.hash()
    shutil.rmtree(folder / "videos", ignore_errors=True)
    (folder / "videos").mkdir()
    for pair in filmed_pairs(load_run(folder).plan):
        for kind in ("default", f"tuned-{winner}"):
            (folder / "videos" / f"{pair.key}-{kind}.mp4").write_bytes(kind.encode())
    return folder


@pytest.fixture
def voted(filmed: Path) -> Path:
    winner = f"tuned-{snapshot(filmed).verdict.winner.hash()}"
    for number, choice in enumerate("bbbat"):
        pair = Pair(prompt=f"a \x1b[31mred {number}", seed=number)
        own = {"pair": pair.key, "prompt": pair.prompt, "seed": pair.seed}
        place = {"voter": "Ada", "a": "default", "b": winner, "question": "quality", "left": "a", "time": "now"}
        vote = Vote(**own, **place, choice="tie" if choice == "t" else choice)
        VoteFile(filmed / "votes.json").cast(vote, {"default": "CFG 2", winner: "CFG 3\x1b[31m"})
    return filmed


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("command", ["serve", "vote"])
def test_a_folder_without_a_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run.json" in _fails([command, str(tmp_path)], capsys)


@pytest.mark.parametrize("command", ["serve", "vote"])
def test_a_port_that_is_none(command: str, finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "0 to 65535" in _fails([command, str(finished_run), "--port", "70000"], capsys)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--preset", "one.json"], "twice"),
        (["--preset", "mochi/publishd", "--preset", "mochi/published"], "mochi/published"),
        (["--preset", "mochi/published", "--preset", "mochi/published"], "not for open-sora-tiny"),
        (["--pairs", "0"], "--pairs"),
        (["--pairs", "9999"], "--pairs"),
        (["--voter", ""], "--voter"),
        (["--voter", "a\x1b[31m"], "--voter"),
        (["--export", "votes.xls"], "--export votes.csv"),
    ],
)
def test_a_vote_that_cannot_be_held(
    more: list[str], said: str, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in _fails(["vote", str(finished_run), *more], capsys)


def test_a_run_without_a_verdict_has_nothing_to_vote_on(stopped_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--preset A --preset B" in _fails(["vote", str(stopped_run)], capsys)


def test_the_result_in_words_and_as_data(voted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vote", str(voted), "--result"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "quality: not told apart" in out
    assert "3 for, 1 against, 1 tie; 1 voter, 5 pairs" in out
    assert main(["vote", str(voted), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert (row["wins"], row["losses"], row["ties"]) == (3, 1, 1)
    assert row["low"] < row["rate"] < row["high"]


def test_show_tells_what_people_said(voted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(voted)]) == 0
    assert "Blind votes" in capsys.readouterr().out
    (voted / "votes.json").write_text("{torn")
    assert main(["show", str(voted)]) == 0
    assert "votes.json is damaged" in capsys.readouterr().err


def test_votes_are_written_for_other_programs(voted: Path, tmp_path: Path) -> None:
    assert main(["vote", str(voted), "--export", str(tmp_path / "votes.csv")]) == 0
    assert (tmp_path / "votes.csv").read_text().count("Ada") == 5
    assert main(["vote", str(voted), "--export", str(tmp_path / "votes.json")]) == 0
    assert len(json.loads((tmp_path / "votes.json").read_text())) == 5


@pytest.fixture
def program(filmed: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Starts a command in a process of its own; whatever happens, it ends."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def _start(arguments: list[str], started: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", PROGRAM, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    started.append(process)
    return process


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = next(line for line in process.stdout if "http://" in line)
    return line.split()[0]


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as reply:
        content: bytes = reply.read()
        return content


def test_a_page_and_a_booth_are_served_until_ctrl_c(filmed: Path, program: list[subprocess.Popen[str]]) -> None:
    page = _start(["serve", str(filmed), "--port", "0"], program)
    booth = _start(["vote", str(filmed), "--port", "0", "--voter", "Ada"], program)
    state = json.loads(_get(_url(page) + "state"))
    assert state["status"] == "finished"
    url = _url(booth)
    ballot = json.loads(_get(url + "ballot"))
    assert len(ballot["items"]) == 8
    body = json.dumps({"item": 0, "question": "quality", "side": "left"}).encode()
    request = urllib.request.Request(url + "vote", body, {"X-Stg-Tune-Token": ballot["token"]})
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.status == 200
    assert len(VoteFile(filmed / "votes.json").votes()) == 1
    for process in (page, booth):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "stopped" in out
        assert err == ""
