from __future__ import annotations

import colorsys

import pytest
import torch

from stg_tune.score import CompositeScorer
from stg_tune.score.saturation import Saturation, chroma, clipped_share


def test_chroma_is_saturation_times_value() -> None:
    frames = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for t, y, x in [(0, 0, 0), (1, 3, 4), (0, 2, 1)]:
        _, saturation, value = colorsys.rgb_to_hsv(*frames[t, :, y, x].tolist())
        assert float(chroma(frames)[t, y, x]) == pytest.approx(saturation * value, abs=1e-6)


def test_clipped_share_counts_pixels_not_channels() -> None:
    frames = torch.full((1, 3, 2, 2), 0.5)
    frames[0, 0, 0, 0] = 0.0
    frames[0, 1, 0, 0] = 1.0
    frames[0, 2, 1, 1] = 254 / 255
    frames[0, 2, 0, 1] = 253 / 255
    assert float(clipped_share(frames)) == 0.5


def test_score_adds_clipped_share_and_mean_excess() -> None:
    video = torch.full((1, 2, 3, 2, 2), 0.5)
    video[0, :, 0, 0, 0] = 0.9  # chroma 0.4, 0.1 above the natural 0.3, one pixel of four
    video[0, :, 1, 1, 1] = 1.0  # clipped, chroma 0.5, 0.2 above
    value = CompositeScorer([Saturation(0.3)])(video, [""])[0]["saturation"].value
    assert value == pytest.approx(0.25 + 0.1 / 4 + 0.2 / 4, abs=1e-6)
