from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stg_tune.score import CompositeScorer
from stg_tune.score.motion import RIDGE, STRIDE, WINDOW, Motion, mean_speed


def _waves(speed: tuple[float, float], frames: int = 5, size: int = 64, scale: float = 1.0) -> torch.Tensor:
    """A smooth pattern that moves by ``speed`` (x, y) pixels a frame: (frames, 3, size, size)."""
    y, x = np.mgrid[0:size, 0:size] / scale
    shots = [
        0.5
        + 0.2 * np.sin(0.35 * (x - t * speed[0]))
        + 0.2 * np.sin(0.3 * (y - t * speed[1]) + 0.2 * (x - t * speed[0]))
        for t in range(frames)
    ]
    return torch.from_numpy(np.stack(shots)).float()[:, None].expand(-1, 3, -1, -1)


def _score(video: torch.Tensor) -> float:
    value = CompositeScorer([Motion()])(video[None], [""])[0]["motion"].value
    assert value is not None
    return value


@pytest.mark.parametrize("speed", [(0.5, 0.0), (0.0, 1.0), (-1.0, 1.0), (2.0, 0.0)])
def test_known_speeds_are_measured(speed: tuple[float, float]) -> None:
    assert _score(_waves(speed)) == pytest.approx(math.hypot(*speed), rel=0.1)


def test_faster_is_more() -> None:
    values = [_score(_waves((speed, 0.0))) for speed in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)]
    assert values[0] == 0
    assert values == sorted(values)


def test_speed_is_relative_to_the_short_side() -> None:
    assert _score(_waves((2.0, 0.0), size=128, scale=2.0)) == pytest.approx(_score(_waves((2.0, 0.0))), rel=0.1)


def test_still_ground_does_not_dilute_the_speed_of_a_digit(videos: torch.Tensor) -> None:
    values = [_score(video) for video in videos[:12]]
    assert min(values) > 0.6
    assert max(values) < 1.8  # the digits move by 0.8 to 1.6 pixels a frame


def test_equals_a_slow_least_squares_fit_in_every_window() -> None:
    video = torch.rand(2, 3, 12, 14, generator=torch.Generator().manual_seed(0))
    assert float(mean_speed(video)) == pytest.approx(_slow_mean_speed(video.double().numpy()), rel=1e-3)


def _slow_mean_speed(video: np.ndarray) -> float:
    grey = np.einsum("tchw,c->thw", video, [0.299, 0.587, 0.114])
    taps = np.array([1, 4, 6, 4, 1]) / 16
    height, width = grey.shape[1:]
    padded = np.pad(grey, ((0, 0), (2, 2), (2, 2)), mode="edge")
    smooth = np.zeros_like(grey)
    for i in range(height):
        for j in range(width):
            smooth[:, i, j] = np.einsum("tab,a,b->t", padded[:, i : i + 5, j : j + 5], taps, taps)
    along_y, along_x = np.gradient((smooth[0] + smooth[1]) / 2)
    change = smooth[1] - smooth[0]
    total = weight = 0.0
    half, count = WINDOW // 2, WINDOW**2
    for i in range(0, height, STRIDE):
        for j in range(0, width, STRIDE):
            window = np.s_[max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1]
            a = np.stack([along_x[window].ravel(), along_y[window].ravel()], 1)
            b = change[window].ravel()
            velocity = np.linalg.solve(a.T @ a / count + RIDGE * np.eye(2), -a.T @ b / count)
            energy = float((b**2).sum() / count)
            total, weight = total + float(np.hypot(*velocity)) * energy, weight + energy
    return total / weight
