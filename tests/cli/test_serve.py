"""``serve`` and ``vote`` as commands: what is wrong is said before a server starts, and Ctrl-C is a normal end."""

import html
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from stg_tune import models
from stg_tune.cli.main import main
from stg_tune.export import export, targets
from stg_tune.outcome import filmed_pairs, report
from stg_tune.preset import from_result, load, save
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search import load_run, snapshot
from stg_tune.vote import Vote, VoteFile, tally

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


def _preset(run: Path, **changes: object) -> Path:
    """The preset of a finished run, as the search writes it."""
    entry, steps = models.entry("open-sora-tiny"), load_run(run).plan.num_steps
    generation = replace(entry.defaults, num_inference_steps=steps)
    found = from_result(snapshot(run), family="open-sora", checkpoint="embedded", generation=generation)
    save(replace(found, **changes), run / "preset.json")
    return run / "preset.json"


def test_votes_go_into_the_evidence_of_the_preset(voted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load(_preset(voted))
    assert main(["vote", str(voted), "--into-preset"]) == 0
    assert "evidence of 5 votes" in capsys.readouterr().out
    after = load(voted / "preset.json")
    (count,) = after.evidence.votes
    (told,) = tally(VoteFile(voted / "votes.json").votes(), "default", f"tuned-{before.spec.hash()}")
    assert told.to_dict() == {**asdict(count), "a": told.a, "b": told.b}
    assert after.hash() == before.hash()  # what comes out is the same
    assert replace(after, evidence=replace(after.evidence, votes=())) == before
    assert "votes" not in before.to_dict()["evidence"]  # presets without votes look as they always did
    assert main(["vote", str(voted), "--into-preset", str(voted / "preset.json")]) == 0
    assert load(voted / "preset.json") == after  # counted anew, not added
    capsys.readouterr()
    assert main(["presets", "show", str(voted / "preset.json")]) == 0
    assert "vote quality  70% [30%, 93%] prefer it to the default" in (shown := capsys.readouterr().out)
    assert "3 for, 1 against, 1 ties; voters 1, pairs 5" in shown
    assert '"wins": 3' in html.unescape(report(voted).read_text())  # the preset on the page has them too


def test_exports_do_not_know_the_votes(voted: Path) -> None:
    silent = load(_preset(voted))
    main(["vote", str(voted), "--into-preset"])
    asked = load(voted / "preset.json")
    assert asked != silent
    for target in targets():
        if asked.family in target.families:
            assert export(asked, target.name, lossy=True).text == export(silent, target.name, lossy=True).text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evidence": None}, "has no evidence that votes could be added to"),
        ({"spec": GuidanceSpec(cfg_scale=9.0)}, "nobody has voted between the default and the setting of"),
        ({"model": "open-sora"}, "has another model (open-sora) than the run"),
        ({"generation": models.entry("open-sora").defaults}, "has another number of steps (30) than the run"),
    ],
)
def test_votes_that_are_no_evidence_for_a_preset(
    changes: dict[str, object], said: str, voted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _preset(voted, **changes).read_bytes()
    assert said in _fails(["vote", str(voted), "--into-preset"], capsys)
    assert (voted / "preset.json").read_bytes() == before


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
