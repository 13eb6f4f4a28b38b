"""``stg-tune score`` on files of every kind, with scorers that need no weights, and with one from another package."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from stg_tune.cli.main import main
from stg_tune.video import Video, write_mp4

if TYPE_CHECKING:
    from pathlib import Path

FREE = "motion,temporal_flickering,saturation"


def _frames(count: int = 4, side: int = 48) -> np.ndarray:
    """A white square that moves over a coloured ground, (count, side, side, 3)."""
    frames = np.full((count, side, side, 3), (40, 90, 160), dtype=np.uint8)
    for t in range(count):
        left = 4 + 3 * t % (side - 20)
        frames[t, 10:26, left : left + 16] = 230
    return frames


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_mp4(Video(frames=torch.from_numpy(_frames()), fps=8), tmp_path / "film.mp4")


def _json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert main(["score", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_mp4_gif_and_a_folder_of_frames_give_like_scores(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [Image.fromarray(frame) for frame in _frames()]
    pictures[0].save(tmp_path / "film.gif", save_all=True, append_images=pictures[1:], duration=125)
    folder = tmp_path / "frames"
    folder.mkdir()
    for t, picture in enumerate(pictures):
        picture.save(folder / f"{t:03}.png")
    rows = _json([str(film), str(tmp_path / "film.gif"), str(folder), "--scorers", FREE], capsys)
    assert [list(row["scores"]) for row in rows] == [FREE.split(",")] * 3
    exact = rows[2]["scores"]
    for row in rows:
        assert row["unscored"] == {}
        for name, value in row["scores"].items():
            assert value == pytest.approx(exact[name], abs=0.03), name  # MP4 and GIF lose a little
    assert exact["temporal_flickering"] == pytest.approx(
        1 - np.abs(np.diff(_frames().astype(float), axis=0)).mean() / 255, abs=1e-6
    )


def test_csv_has_one_line_a_file_and_score(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(film), "--scorers", FREE, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["scorer"] for row in rows] == FREE.split(",")
    assert {row["file"] for row in rows} == {str(film)}
    assert all(float(row["value"]) >= 0 for row in rows)
    assert {row["scorer"]: row["direction"] for row in rows}["saturation"] == "minimize"


def test_what_cannot_be_scored_is_a_dash_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    black = write_mp4(Video(frames=torch.zeros(3, 48, 48, 3, dtype=torch.uint8), fps=8), tmp_path / "black.mp4")
    assert main(["score", str(black), "--scorers", FREE]) == 0
    out = capsys.readouterr().out
    assert "black.mp4: no motion: every frame is one flat colour" in out
    assert "less is better" in out


def test_files_that_are_missing_are_named_with_what_works_without_them(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert main(["score", str(film), "--prompt", "a square", "--weights", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    for words in ("HF_HUB_OFFLINE is set", "clip-vit-l-14.safetensors", "alexnet-owt-7be5be79.pth", "--weights DIR",
                  "--scorers motion,temporal_flickering,saturation", "--scorers embedded"):  # fmt: skip
        assert words in err
    assert "alex.pth  from" not in err  # the package lpips brings it


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("aesthetics", "did you mean aesthetic"),
        ("motion,,saturation", "unknown scorer ''"),
        ("motion_smoothness", "AMT-S, whose code and weights are CC BY-NC 4.0"),
    ],
)
def test_names_that_are_no_scorers(names: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "film.mp4", "--scorers", names]) == 1
    assert said in capsys.readouterr().err


def test_a_head_that_the_smaller_clip_lacks_is_said_to_be_missing(
    film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(film), "--scorers", "aesthetic_v2", "--fast"]) == 1
    assert "aesthetic_v2 is published for CLIP vit-l-14 only, not for vit-b-32: leave out --fast" in (
        capsys.readouterr().err
    )


def test_a_damaged_file_of_weights_is_refused(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"abc")
    arguments = ["score", str(film), "--scorers", "temporal_lpips", "--weights", str(tmp_path)]
    assert main(arguments) == 1
    assert "has 3 bytes in place of 244408911" in capsys.readouterr().err


def test_no_file_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score"]) == 1
    assert "no file to score" in capsys.readouterr().err


def test_the_list_shows_defaults_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["aesthetic"]["default"]
    assert not rows["musiq"]["default"]
    assert rows["alignment"]["files"] == ["clip-vit-l-14"]


PLUGIN = """
from stg_tune.records import ScoreKind
from stg_tune.score.base import scored

class Redness:
    requires = "picture"
    kind = ScoreKind(name="redness", direction="maximize", low=0.0, high=1.0, unit="mean red")

    def __call__(self, view, prompt):
        return scored(self.kind, float(view.frames[:, 0].mean()))

def build(parts):
    return Redness()

def wrong(parts):
    return object()
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with two entry points, as pip leaves it behind."""
    site = tmp_path / "site"
    info = site / "redness-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "redness_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: redness\nVersion: 1.0\n")
    points = """\
        [stg_tune.scorers]
        redness = redness_plugin:build
        wrong = redness_plugin:wrong
        absent = redness_plugin:nothing
    """
    (info / "entry_points.txt").write_text(textwrap.dedent(points))
    monkeypatch.syspath_prepend(str(site))
    return site


def test_a_scorer_of_another_package_joins_by_its_entry_point(
    plugin: Path, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = _json([str(film), "--scorers", "redness,motion"], capsys)
    expected = _frames()[..., 0].mean() / 255
    assert row["scores"]["redness"] == pytest.approx(expected, abs=0.02)
    assert main(["score", "--list"]) == 0
    assert "from redness" in capsys.readouterr().out


def test_a_scorer_of_another_package_runs_the_conformance_suite(plugin: Path) -> None:
    import importlib

    from stg_tune.score import conformance

    measure = importlib.import_module("redness_plugin").build(None)
    for check in conformance.CHECKS:
        check(measure)


@pytest.mark.parametrize(
    ("name", "said"), [("wrong", "must return a stg_tune.score.Measure"), ("absent", "of redness cannot be loaded")]
)
def test_an_entry_point_that_gives_no_measure_is_named(
    name: str, said: str, plugin: Path, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(film), "--scorers", name]) == 1
    assert said in capsys.readouterr().err


def test_a_package_cannot_replace_a_scorer(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = plugin / "redness-1.0.dist-info" / "entry_points.txt"
    points.write_text("[stg_tune.scorers]\nmotion = redness_plugin:build\n")
    assert main(["score", "film.mp4", "--scorers", "motion"]) == 1
    assert "provides a scorer 'motion', which stg-tune has already" in capsys.readouterr().err


def test_files_of_both_kinds_must_be_told_what_scores_them(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write_mp4(Video(frames=torch.from_numpy(_frames(17, 64)), fps=8), tmp_path / "small.mp4")
    assert main(["score", str(small), str(film), "--prompt", "a red seven moving left"]) == 1
    assert "film.mp4 has 48x48 pixels, the files before it are of the other kind" in capsys.readouterr().err
