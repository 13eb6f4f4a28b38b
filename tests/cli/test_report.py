"""``report``: one run, several runs, videos beside the page, videos made smaller."""

from pathlib import Path

import pytest
import torch

from stg_tune.cli.main import main
from stg_tune.cli.report import PREVIEW, smaller
from stg_tune.video import Video, read_video, write_mp4


def test_several_runs_are_compared_in_the_first_folder(
    finished_run: Path, stopped_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(finished_run), str(stopped_run)]) == 0
    page = finished_run / "comparison.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert "Comparison of 2 runs" in page.read_text(encoding="utf-8")


def test_a_comparison_has_no_assets(finished_run: Path, stopped_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(finished_run), str(stopped_run), "--assets"]) == 1
    assert "--assets goes with one run" in capsys.readouterr().err


def test_large_videos_get_smaller_and_small_ones_stay(tmp_path: Path) -> None:
    frames = torch.zeros(3, 2 * PREVIEW, PREVIEW, 3, dtype=torch.uint8)
    for height, wanted in ((2 * PREVIEW, (PREVIEW, PREVIEW // 2)), (PREVIEW // 2, (PREVIEW // 2, PREVIEW))):
        film = write_mp4(Video(frames=frames[:, :height].contiguous(), fps=8), tmp_path / "film.mp4")
        (tmp_path / "small.mp4").write_bytes(smaller(film))
        small = read_video(tmp_path / "small.mp4")
        assert (small.frames.shape[1:3], small.fps, len(small.frames)) == (wanted, 8, 3)
