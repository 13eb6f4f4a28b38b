"""Real videos: which count, in which order, and the pictures taken from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from stg_tune.errors import StgTuneError
from stg_tune.evaluate.real import FirstFrames, check_enough, fingerprint, real_videos
from stg_tune.video import Video, read_video, write_mp4

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six videos of flat grey that gets brighter from frame to frame, in two classes."""
    for number in range(6):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        levels = torch.arange(10).view(-1, 1, 1, 1) * 5 + 20 * number
        frames = levels.expand(10, 32, 48, 3).to(torch.uint8).contiguous()
        write_mp4(Video(frames=frames, fps=8), folder / f"{number}.mp4")
    (tmp_path / "data" / "notes.txt").write_text("no video")
    return tmp_path / "data"


def test_videos_of_all_classes_are_found_in_a_fixed_order(data: Path) -> None:
    assert [path.name for path in real_videos(data)] == ["0.mp4", "2.mp4", "4.mp4", "1.mp4", "3.mp4", "5.mp4"]
    with pytest.raises(StgTuneError, match=r"holds 0 videos of .*at least two are needed"):
        real_videos(data / "nowhere")


def test_the_fingerprint_knows_names_and_sizes_but_not_the_place(data: Path) -> None:
    before = fingerprint(data)
    moved = data.rename(data.parent / "elsewhere")
    assert fingerprint(moved) == before
    (moved / "a" / "0.mp4").unlink()
    assert fingerprint(moved) != before


def test_first_frames_are_spread_over_the_classes_and_are_the_first_ones(data: Path, tmp_path: Path) -> None:
    pictures = FirstFrames.of(data, tmp_path / "pictures", 3)
    assert [video.name for video in pictures.videos] == ["0.mp4", "4.mp4", "3.mp4"]
    assert not (tmp_path / "pictures").exists()
    pictures.write()
    for video, path in zip(pictures.videos, pictures.paths, strict=True):
        assert path.is_absolute()
        assert np.array_equal(np.asarray(Image.open(path)), read_video(video).frames[0].numpy())
    pictures.paths[1].unlink()
    kept = pictures.paths[0].stat().st_mtime_ns
    pictures.write()
    assert pictures.paths[1].exists()
    assert pictures.paths[0].stat().st_mtime_ns == kept


def test_no_more_pictures_than_videos(data: Path, tmp_path: Path) -> None:
    assert len(set(FirstFrames.of(data, tmp_path / "pictures", 100).paths)) == 6


def test_too_few_real_videos_for_a_covariance_are_refused(data: Path) -> None:
    check_enough(data, 6)
    with pytest.raises(StgTuneError, match=r"holds 6 videos, too few to compare with: .* needs 7 or more"):
        check_enough(data, 7)
