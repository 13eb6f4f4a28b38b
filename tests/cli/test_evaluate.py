"""``stg-tune evaluate`` on the embedded model, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from stg_tune import models
from stg_tune.cli import evaluate as command
from stg_tune.cli.main import main, parser
from stg_tune.evaluate.plan import Folder
from stg_tune.evaluate.suites import suite
from stg_tune.preset import from_result, load, save
from stg_tune.search import snapshot

if TYPE_CHECKING:
    from pathlib import Path

BASE = ["evaluate", "--model", "open-sora-tiny"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "t2w"], "did you mean t2v"),
        (["--suite", "t2v", "--samples", "1"], "--samples must be at least 2, got 1"),
        (["--suite", "t2v", "--preset", "no.json"], "no.json"),
        (["--suite", "t2v", "--scorers", "aesthetics"], "did you mean aesthetic"),
        (["--suite", "t2v", "--batch", "65"], "--batch must be between 1 and 64, got 65"),
        (["--suite", "i2v-ucf101", "--samples", "96"], "96 videos of each setting are too few"),
        (["--suite", "scale-curve", "--samples", "400", "--model", "open-sora"], "type --samples 401 or more"),
        (["--suite", "t2v", "--scorers", "embedded,motion"], "goes with no other name"),
        (["--suite", "t2v", "--model", "mochi", "--scorers", "embedded"], "these know videos of 64x64 pixels"),
        (["--suite", "t2v", "--samples", "2", "--model-path", "nowhere"], "nowhere holds no files of a model"),
        (["--suite", "i2v-ucf101", "--model", "svd"], "svd continues a picture: give --data DIR"),
        (["--suite", "i2v-ucf101", "--model", "svd", "--data", "nowhere"], "holds 0 videos"),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main([*BASE, *arguments, "--out", str(out)]) == 1
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_too_few_real_videos_are_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = real_videos(tmp_path / "data", 3)
    words = ["evaluate", "--model", "open-sora", "--suite", "i2v-ucf101", "--data", str(data)]
    assert main([*words, "--out", str(tmp_path / "run")]) == 1
    assert "holds 3 videos, too few to compare with" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def real_videos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.mp4").write_bytes(b"")
    return folder


def test_a_model_that_continues_a_picture_is_given_first_frames_and_no_score_of_a_prompt(tmp_path: Path) -> None:
    data = real_videos(tmp_path / "data", 3)
    folder, chosen, entry = Folder(tmp_path / "run"), suite("scale-curve"), models.entry("svd")
    words = ["--suite", chosen.name, "--data", str(data), "--samples", "16"]
    arguments = parser().parse_args(["evaluate", "--model", "svd", *words])
    pictures = command._pictures(arguments, chosen, entry, folder)
    assert pictures is not None
    plan = command._plan(arguments, chosen, entry, [str(path) for path in pictures.paths])
    names = ["00000-0.png", "00001-1.png"]  # eight noises a picture
    assert {pair.prompt for pair in plan.pairs} == {str(folder.path / "first_frames" / name) for name in names}
    assert "alignment" in chosen.scorers
    assert plan.scorers == tuple(name for name in chosen.scorers if name != "alignment")
    assert plan.video == {"height": 576, "width": 1024, "num_frames": 25, "fps": 7}
    assert not folder.path.exists()


def test_workers_are_told_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = parser().parse_args([*BASE, "--suite", "t2v", "--model-path", "model", "--weights", "files"])
    plan = command._plan(arguments, suite("t2v"), models.entry("open-sora-tiny"), [])
    recipe = command._recipe(arguments, plan, Folder(tmp_path / "run"))
    assert recipe.model.path == tmp_path.resolve() / "model"
    assert recipe.weights == tmp_path.resolve() / "files"


@pytest.mark.parametrize("words", [[], ["--scorers", "embedded"]])
def test_the_embedded_scorers_are_a_name_and_the_default_of_embedded_models(words: list[str]) -> None:
    arguments = parser().parse_args([*BASE, "--suite", "t2v", *words])
    assert command._plan(arguments, suite("t2v"), models.entry("open-sora-tiny"), []).scorers == ("embedded",)


def test_a_preset_brings_the_best_cfg_of_its_evidence(finished_run: Path) -> None:
    given = load_preset(finished_run)
    arguments = parser().parse_args([*BASE, "--suite", "t2v", "--preset", str(given)])
    plan = command._plan(arguments, suite("t2v"), models.entry("open-sora-tiny"), [])
    assert [arm.name for arm in plan.arms] == ["cfg", "tuned: CFG alone", "tuned"]
    preset = load(given)
    assert plan.arms[1].spec == preset.evidence.best_cfg
    assert plan.arms[2].spec == preset.spec
    assert plan.arms[2].alone == plan.arms[1].name


def load_preset(run: Path) -> Path:
    """The preset of a run over made-up scores."""
    entry = models.entry("open-sora-tiny")
    made = from_result(snapshot(run), family="open-sora", checkpoint="embedded", revision="", generation=entry.defaults)
    path = run / "tuned.json"
    save(made, path)
    return path


PAIRS = 12
SMALL = [*BASE, "--suite", "t2v", "--samples", str(PAIRS), "--steps", "1", "--batch", "1", "--quiet", "--json"]


@pytest.mark.slow
def test_a_suite_runs_on_the_embedded_model_and_goes_on_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*BASE, "--suite", "t2v", "--samples", "3", "--steps", "1", "--executor", "inline"]
    arguments += ["--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["stg-tune: 0 of 3 videos", "stg-tune: 3 of 3 videos"]
    assert f"{tmp_path / 'run' / 'summary.json'}, {tmp_path / 'run' / 'table.csv'}" in captured.out
    assert "digit_right: share, 0 to 1" in captured.out
    results = (tmp_path / "run" / "results.jsonl").read_text()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert main([*arguments, "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["table"] == summary["rows"]
    metrics = {row["metric"] for row in found["table"]}
    assert {"digit_right", "direction_right", "aesthetic"} <= metrics
    assert not {"frechet_distance", "inception_score"} & metrics  # this suite compares pair by pair
    assert (found["extractor"], found["scorers"]) == ("judge", ["embedded"])
    assert set(found["weights"]) >= {"extractor", "aesthetic", "temporal_lpips"}
    assert found["video"] == {"height": 64, "width": 64, "num_frames": 17, "fps": 8}
    assert len(found["checkpoint"]) == 16
    assert len(list((tmp_path / "run" / "features").iterdir())) == 3
    assert (tmp_path / "run" / "results.jsonl").read_text() == results
    assert main([*arguments, "--steps", "2"]) == 1
    assert "holds an evaluation with other num_steps (1 then, 2 here)" in capsys.readouterr().err


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The same evaluation in this process."""
    folder = tmp_path_factory.mktemp("evaluations") / "inline"
    assert main([*SMALL, "--executor", "inline", "--out", str(folder)]) == 0
    return json.loads((folder / "summary.json").read_text())


def same(one: dict[str, object], other: dict[str, object]) -> None:
    assert one["plan"] == other["plan"]
    for row, alone in zip(one["rows"], other["rows"], strict=True):
        assert row["mean"] == pytest.approx(alone["mean"], rel=1e-3, abs=1e-4), row["metric"]
        assert row["error"] == pytest.approx(alone["error"], rel=1e-2, abs=1e-4), row["metric"]
        assert row | {"mean": 0, "error": 0} == alone | {"mean": 0, "error": 0}


@pytest.mark.slow
def test_two_workers_give_the_same_table(
    tmp_path: Path, inline: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = tmp_path / "run"
    assert main([*SMALL, "--workers", "2", "--executor", "ray", "--out", str(folder)]) == 0
    same(json.loads((folder / "summary.json").read_text()), inline)


@pytest.mark.slow
def test_workers_that_are_stopped_in_the_middle_leave_what_is_finished(
    tmp_path: Path, inline: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder, program = tmp_path / "run", "import sys; from stg_tune.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, *SMALL, "--workers", "2", "--executor", "ray", "--out", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as working:
        wait_for_lines(folder / "results.jsonl", 2, working)
        working.send_signal(signal.SIGINT)
        _, err = working.communicate(timeout=120)
    assert working.returncode == 130
    assert "the same command goes on" in err
    kept = (folder / "results.jsonl").read_text().splitlines()
    assert 2 <= len(kept) < PAIRS
    assert not (folder / "summary.json").exists()
    assert main([*SMALL, "--executor", "inline", "--out", str(folder)]) == 0
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert lines[: len(kept)] == kept
    assert len({json.dumps(json.loads(line)["pair"]) for line in lines}) == len(lines) == PAIRS
    same(json.loads((folder / "summary.json").read_text()), inline)


def wait_for_lines(file: Path, count: int, working: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + 300
    while time.monotonic() < give_up and working.poll() is None:
        if file.exists() and file.read_text().count("\n") >= count:
            return
        time.sleep(0.02)
    pytest.fail(f"no pair was evaluated; exit code {working.poll()}")
