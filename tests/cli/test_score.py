"""``stg-tune score`` on files of every kind, with scorers that need no weights, and with one from another package."""

from __future__ import annotations

import csv
import importlib
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


def test_a_file_of_the_other_kind_costs_nothing_but_its_own_scores(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write_mp4(Video(frames=torch.from_numpy(_frames(17, 64)), fps=8), tmp_path / "small.mp4")
    assert main(["score", str(small), str(film), "--prompt", "a red seven moving left", "--json"]) == 1
    captured = capsys.readouterr()
    assert "film.mp4 has 48x48 pixels, the files before it are of the other kind" in captured.err
    (row,) = json.loads(captured.out)
    assert row["file"] == str(small)
    assert row["clip"]["aesthetic"] is None
    assert (row["num_frames"], row["frames"]["aesthetic"], row["frames"]["temporal_lpips"]) == (17, 9, 17)


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_files_that_cannot_be_read_do_not_hide_the_others(
    form: list[str], film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, empty = tmp_path / "bad.mp4", tmp_path / "empty"
    bad.write_bytes(b"no video")
    empty.mkdir()
    files = [str(tmp_path / "none.mp4"), str(film), str(bad), str(empty), str(film)]
    assert main(["score", *files, "--scorers", FREE, *form]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("film.mp4") == (6 if form == ["--csv"] else 2)
    lines = captured.err.splitlines()
    assert [name in line for name, line in zip(("none.mp4", "bad.mp4", "empty"), lines, strict=True)] == [True] * 3
    assert main(["score", str(bad), "--scorers", FREE, *form]) == 1
    assert capsys.readouterr().out == ""


def test_what_keeps_every_file_from_being_scored_is_said_once(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(film), str(film), "--scorers", "aesthetic_v2", "--fast"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("is published for CLIP") == 1


def test_a_score_says_its_unit_and_range(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = _json([str(film), "--scorers", FREE], capsys)
    assert row["unit"]["motion"] == "pixels a frame at a 64-pixel short side"
    assert (row["low"]["motion"], row["high"]["motion"]) == (0.0, None)
    assert (row["low"]["saturation"], row["high"]["saturation"]) == (0.0, 2.0)
    assert row["direction"]["saturation"] == "minimize"
    assert row["weights"]["motion"] == "none"
    assert row["clip"] == dict.fromkeys(FREE.split(","))
    assert row["frames"] == dict.fromkeys(FREE.split(","), 4)
    assert row["num_frames"] == 4
    assert main(["score", str(film), "--scorers", FREE, "--csv"]) == 0
    (motion, *_) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    wanted = {"low": "0.0", "high": "", "weights": "none", "clip": "", "frames": "4", "num_frames": "4", "reason": ""}
    assert {key: motion[key] for key in wanted} == wanted
    assert motion["unit"] == row["unit"]["motion"]
    assert float(motion["value"]) == row["scores"]["motion"]


def test_names_may_have_spaces_between_them(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = _json([str(film), "--scorers", " motion, saturation "], capsys)
    assert list(row["scores"]) == ["motion", "saturation"]


@pytest.mark.parametrize("option", ["--fast", "--all-frames"])
def test_options_that_change_nothing_are_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "none.mp4", "--scorers", "embedded", option]) == 1
    assert f"{option} changes nothing about the scorers `embedded`" in capsys.readouterr().err
    small = write_mp4(Video(frames=torch.from_numpy(_frames(5, 64)), fps=8), tmp_path / "small.mp4")
    assert main(["score", str(small), "--prompt", "a red seven", option]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        f"{option} changes nothing about {small}, a 64x64 video for the scorers of the embedded models" in captured.err
    )


COUNTING = """
from stg_tune.records import ScoreKind
from stg_tune.score.base import scored

class Rate:
    requires = "picture"
    kind = ScoreKind(name="rate", direction="maximize", low=0.0, high=100.0, unit="frames a second")

    def __init__(self, fps):
        self.fps = fps

    def __call__(self, view, prompt):
        return scored(self.kind, self.fps)

    def frames_seen(self, frames):
        return 1

    def at(self, fps):
        return Rate(fps)

built = []

def build(parts):
    built.append(1)
    return Rate(parts.fps)
"""


def test_files_of_several_frame_rates_load_the_networks_once(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plugin / "rate_plugin.py").write_text(COUNTING)
    (plugin / "redness-1.0.dist-info" / "entry_points.txt").write_text("[stg_tune.scorers]\nrate = rate_plugin:build\n")
    files = [
        str(write_mp4(Video(frames=torch.from_numpy(_frames()), fps=fps), tmp_path / f"{fps}.mp4")) for fps in (6, 12)
    ]
    rows = _json([*files, "--scorers", "rate,motion"], capsys)
    assert [row["scores"]["rate"] for row in rows] == [6.0, 12.0]
    assert [row["frames"] for row in rows] == [{"rate": 1, "motion": 4}] * 2
    assert importlib.import_module("rate_plugin").built == [1]


def test_motion_smoothness_is_listed_with_the_reason_why_it_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--list"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("motion_smoothness  ")]
    assert "not available" in line
    assert "AMT-S, whose code and weights are CC BY-NC 4.0" in out
    assert main(["score", "--list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert not rows["motion_smoothness"]["available"]
    assert "stg_tune.scorers" in rows["motion_smoothness"]["reason"]
    assert rows["motion"]["available"]


SMOOTHNESS = """
from stg_tune.score.smoothness import MotionSmoothness

def build(parts):
    return MotionSmoothness(lambda before, after: (before + after) / 2, weights="0" * 16)
"""


def test_a_package_may_bring_motion_smoothness(plugin: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plugin / "smooth_plugin.py").write_text(SMOOTHNESS)
    points = plugin / "redness-1.0.dist-info" / "entry_points.txt"
    points.write_text("[stg_tune.scorers]\nmotion_smoothness = smooth_plugin:build\n")
    (row,) = _json([str(film), "--scorers", "motion_smoothness"], capsys)
    assert 0.9 < row["scores"]["motion_smoothness"] < 1
    assert main(["score", "--list"]) == 0
    out = capsys.readouterr().out
    assert "not available" not in out
    assert "from redness" in out
