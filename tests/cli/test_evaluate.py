"""``stg-tune evaluate`` on the embedded model, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from stg_tune.cli.main import main

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
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert (tmp_path / "run" / "results.jsonl").read_text() == results
    assert main([*arguments[:-1], "--steps", "2"]) == 1
    assert "holds an evaluation with other num_steps" in capsys.readouterr().err
