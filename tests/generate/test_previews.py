"""Clips for Optuna's dashboard: one pair, small, and never a reason for an evaluation to fail."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stg_tune.generate import Previews
from stg_tune.generate.previews import HEIGHT
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.video import Video, read_video

PAIR = Pair(prompt="a red seven", seed=3)
SPEC = GuidanceSpec(cfg_scale=2.0)


def video(height: int = 16, shade: int = 100) -> Video:
    return Video(frames=torch.full((3, height, 2 * height, 3), shade, dtype=torch.uint8), fps=8)


@pytest.fixture
def previews(tmp_path: Path) -> Previews:
    return Previews(folder=tmp_path / "previews", pair=PAIR.key)


def _read(previews: Previews, tmp_path: Path) -> Video:
    named = tmp_path / "named.mp4"
    named.write_bytes((previews.folder / SPEC.hash()).read_bytes())
    return read_video(named)


def test_a_clip_is_named_by_its_setting(previews: Previews, tmp_path: Path) -> None:
    previews.keep(SPEC, PAIR, video())
    assert [file.name for file in previews.folder.iterdir()] == [SPEC.hash()]
    assert _read(previews, tmp_path).frames.shape == (3, 16, 32, 3)


def test_large_videos_become_small_clips(previews: Previews, tmp_path: Path) -> None:
    previews.keep(SPEC, PAIR, video(height=2 * HEIGHT))
    assert _read(previews, tmp_path).frames.shape == (3, HEIGHT, 2 * HEIGHT, 3)


def test_other_pairs_leave_nothing(previews: Previews) -> None:
    previews.keep(SPEC, Pair(prompt=PAIR.prompt, seed=4), video())
    assert not previews.folder.exists()


def test_the_first_clip_stays(previews: Previews) -> None:
    previews.keep(SPEC, PAIR, video(shade=10))
    before = (previews.folder / SPEC.hash()).read_bytes()
    previews.keep(SPEC, PAIR, video(shade=200))
    assert (previews.folder / SPEC.hash()).read_bytes() == before


def test_a_machine_that_does_not_see_the_run_folder_makes_none(tmp_path: Path) -> None:
    Previews(folder=tmp_path / "elsewhere" / "previews", pair=PAIR.key).keep(SPEC, PAIR, video())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_costs_the_clip_only(previews: Previews) -> None:
    previews.keep(SPEC, PAIR, video(height=64))
    assert list(previews.folder.iterdir()) == []  # no torn clip that a dashboard would try to play


def test_a_folder_that_cannot_be_made_costs_the_clip_only(previews: Previews) -> None:
    previews.folder.write_text("in the way")
    previews.keep(SPEC, PAIR, video())
    assert previews.folder.read_text() == "in the way"
