"""``stg-tune evaluate`` on the embedded model, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from stg_tune import models
from stg_tune.cli import evaluate as command
from stg_tune.cli.main import main, parser
from stg_tune.evaluate.plan import Folder
from stg_tune.evaluate.suites import suite

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


def test_a_model_that_continues_a_picture_is_given_first_frames_and_no_score_of_a_prompt(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        (data / f"{number}.mp4").write_bytes(b"")
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
    assert not folder.path.exists()


@pytest.mark.slow
def test_a_suite_runs_on_the_embedded_model_and_goes_on_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*BASE, "--suite", "i2v-ucf101", "--samples", "3", "--steps", "1", "--executor", "inline"]
    arguments += ["--out", str(tmp_path / "run"), "--quiet", "--json"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    metrics = {row["metric"] for row in first["table"]}
    assert {"frechet_distance", "inception_score", "digit_right", "direction_right", "aesthetic"} <= metrics
    assert first["extractor"] == "judge"
    assert set(first["weights"]) >= {"extractor", "aesthetic", "temporal_lpips"}
    assert len(list((tmp_path / "run" / "features").iterdir())) == 3
    results = (tmp_path / "run" / "results.jsonl").read_text()
    others = [*arguments[:-3], str(tmp_path / "single"), "--batch", "1", "--json"]
    assert main(others) == 0  # above, the three were made in one batch
    captured = capsys.readouterr()
    single = json.loads(captured.out)
    assert captured.err.splitlines() == ["stg-tune: 0 of 3 videos", "stg-tune: 3 of 3 videos"]
    for row, alone in zip(first["table"], single["table"], strict=True):
        assert row["mean"] == pytest.approx(alone["mean"], rel=1e-3, abs=1e-4), row["metric"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert (tmp_path / "run" / "results.jsonl").read_text() == results
    assert main([*arguments[:-1], "--steps", "2"]) == 1
    assert "holds an evaluation with other num_steps" in capsys.readouterr().err
