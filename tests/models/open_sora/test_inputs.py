"""The size of a video as the model is told it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from stg_tune.models.open_sora.inputs import VideoSize

if TYPE_CHECKING:
    from pathlib import Path


def test_conditions_equal_the_recorded_multi_resolution_info(golden: Path) -> None:
    recorded = json.loads((golden / "inference_utils.json").read_text())
    image = VideoSize(height=240, width=426, num_frames=1, fps=24).conditions(1, dtype=torch.float32)
    video = VideoSize(height=480, width=854, num_frames=102, fps=24).conditions(1, dtype=torch.bfloat16)
    assert {name: value.tolist() for name, value in image.items()} == recorded["img_info"]
    assert {name: value.tolist() for name, value in video.items()} == recorded["bf16_info"]


def test_conditions_have_one_number_a_row() -> None:
    conditions = VideoSize(height=64, width=64, num_frames=17, fps=8).conditions(3, dtype=torch.float32)
    assert conditions["fps"].tolist() == [8.0, 8.0, 8.0]
