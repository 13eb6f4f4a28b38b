"""Named sizes and the arithmetic of latents equal Open-Sora's tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.sizes import (
    IMAGE_SIZES,
    find_nearest_point,
    frames_of_latents,
    image_size,
    latent_size,
    num_frames,
)

if TYPE_CHECKING:
    from pathlib import Path

    from stg_tune.models.open_sora.vae import OpenSoraVAE


@pytest.fixture
def tables(golden: Path) -> dict[str, Any]:
    """The recorded inference utilities."""
    return json.loads((golden / "inference_utils.json").read_text())


def test_every_image_size_is_the_recorded_one(tables: dict[str, Any]) -> None:
    assert {name: set(row) for name, row in IMAGE_SIZES.items()} == {
        name: set(row) for name, row in tables["image_sizes"].items()
    }
    for resolution, row in tables["image_sizes"].items():
        for ratio, size in row.items():
            assert image_size(resolution, ratio) == tuple(size)


def test_every_length_is_the_recorded_one(tables: dict[str, Any]) -> None:
    for name, frames in tables["num_frames"].items():
        assert num_frames(name) == frames
    assert num_frames(33) == 33


def test_latent_sizes_are_the_recorded_ones_and_the_autoencoders(golden: Path, tiny_vae: OpenSoraVAE) -> None:
    for row in json.loads((golden / "latent_sizes.json").read_text()):
        assert latent_size(*row["input"]) == tuple(row["latent"])
        assert tiny_vae.get_latent_size(row["input"]) == tuple(row["latent"])


def test_frames_and_nearest_points_are_the_recorded_ones(tables: dict[str, Any]) -> None:
    for latents, frames in tables["dframe_to_frame"].items():
        assert frames_of_latents(int(latents)) == frames
    for case in tables["find_nearest_point"]:
        assert find_nearest_point(*case["args"]) == case["out"]


@pytest.mark.parametrize("point", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("max_value", [1, 5, 12, 15])
def test_the_nearest_point_rounds_halves_down_and_up_only_to_a_whole_chunk(point: int, max_value: int) -> None:
    for value in range(20):
        below, rest = divmod(value, point)
        up = rest > point / 2 and below < max_value // point - 1
        assert find_nearest_point(value, point, max_value) == (below + up) * point


def test_unknown_names_and_impossible_counts_are_errors() -> None:
    with pytest.raises(StgTuneError, match="unknown resolution '240'; did you mean '240p'"):
        image_size("240", "9:16")
    with pytest.raises(StgTuneError, match="unknown aspect ratio '9:15'"):
        image_size("240p", "9:15")
    with pytest.raises(StgTuneError, match="unknown length '3s'"):
        num_frames("3s")
    with pytest.raises(StgTuneError, match="at least 1 frame, got 0"):
        num_frames(0)
    with pytest.raises(StgTuneError, match="multiple of 5"):
        frames_of_latents(7)
