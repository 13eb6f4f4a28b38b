"""Scorers of frames beside frames against the reference, written again slowly and independently."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.optical_flow import raft_large, raft_small

from stg_tune.score import conformance
from stg_tune.score.base import View
from stg_tune.score.default import build
from stg_tune.score.flow import DynamicDegree, OpticalFlow, RaftFlow, fastest, magnitudes
from stg_tune.score.loading import read_state
from stg_tune.score.musiq import MusiqQuality
from stg_tune.score.placement import Placement
from stg_tune.score.smoothness import MotionSmoothness
from tests.score.asking import ask, film

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.score.parts import Parts


@pytest.mark.filterwarnings("ignore::UserWarning")  # the package calls torchvision in an old way
@torch.inference_mode()
def test_temporal_lpips_is_the_packages(parts: Parts) -> None:
    metric = lpips.LPIPS(pretrained=False, pnet_rand=True, net="alex", verbose=False).eval()
    slices = [getattr(metric.net, f"slice{i}") for i in range(1, 6)]
    convolutions = [layer for part in slices for layer in part if isinstance(layer, torch.nn.Conv2d)]
    trunk = read_state(parts.library.get("alexnet").path)
    for index, layer in zip((0, 3, 6, 8, 10), convolutions, strict=True):
        layer.weight.data, layer.bias.data = trunk[f"features.{index}.weight"], trunk[f"features.{index}.bias"]
    metric.load_state_dict(read_state(parts.library.get("lpips-alex-heads").path), strict=False)
    frames = film(70, 90).float() / 255 * 2 - 1
    expected = np.mean([float(metric(before[None], after[None])) for before, after in pairwise(frames)])
    assert ask("temporal_lpips", parts, film(70, 90)) == pytest.approx(expected, abs=1e-5)


def test_frames_too_small_for_lpips_are_named(parts: Parts) -> None:
    (row,) = build(["temporal_lpips"], parts)(film(30, 64)[None].float() / 255, [""])
    assert row["temporal_lpips"].reason == "frames of 64x30 pixels are too small: LPIPS needs 31 on both sides"
    assert ask("temporal_lpips", parts, film(31, 64)) > 0


def test_temporal_flickering_is_vbenchs(parts: Parts) -> None:
    frames = film(40, 50).numpy().astype(int)
    expected = (255 - np.mean([np.mean(np.abs(frames[t] - frames[t + 1])) for t in range(3)])) / 255
    assert ask("temporal_flickering", parts, film(40, 50)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("count", [5, 6])
def test_motion_smoothness_is_vbenchs(count: int) -> None:
    frames = film(40, 50, frames=count).numpy().astype(float)
    kept = frames[::2]
    errors = []
    for t in range(len(kept) - 1):
        made = np.clip(0.3137 * kept[t] + 0.6863 * kept[t + 1], 0, 255).astype(np.uint8)
        errors.append(np.mean(np.abs(frames[2 * t + 1] - made)))
    measure = MotionSmoothness(lambda before, after: 0.3137 * before + 0.6863 * after, weights="0" * 16)
    value = measure(View(film(40, 50, frames=count).float() / 255), "").value
    assert value == pytest.approx((255 - np.mean(errors)) / 255, abs=1e-5)


def brightness_flow(before: Tensor, after: Tensor) -> Tensor:
    change = (after - before).mean(1, keepdim=True)
    return torch.cat([20 * change, 5 * change], dim=1)


def slow_speeds(levels: Tensor, fps: float, flow: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """Mean of the 5 % greatest displacements of each pair."""
    frames = list(levels[:: max(1, round(fps / 8))].float())
    speeds = []
    for before, after in pairwise(frames):
        down, right = (((s // 8) + 1) * 8 - s for s in before.shape[-2:])
        down, right = down % 8, right % 8
        pad = [right // 2, right - right // 2, down // 2, down - down // 2]
        one, two = (2 * F.pad(x[None], pad, mode="replicate") / 255 - 1 for x in (before, after))
        field = flow(one, two)[0].numpy()
        lengths = np.sort(np.sqrt(field[0] ** 2 + field[1] ** 2).flatten())[::-1]
        speeds.append(float(np.mean(lengths[: int(lengths.size * 0.05)])))
    return speeds


def slow_dynamic_degree(levels: Tensor, fps: float, flow: Callable[[Tensor, Tensor], Tensor]) -> float:
    threshold = 6.0 * (min(levels.shape[-2:]) / 256.0)
    speeds = slow_speeds(levels, fps, flow)
    return float(sum(speed > threshold for speed in speeds) >= round(4 * ((len(speeds) + 1) / 16.0)))


def test_dynamic_degree_is_vbenchs() -> None:
    placement = Placement.automatic("cpu")
    answers = []
    for fps in (6, 8, 24):
        for strength in (0.02, 0.1, 0.3, 0.6, 1.0):
            levels = (film(130, 141, frames=9).float() * strength).round().to(torch.uint8)
            degree = DynamicDegree(brightness_flow, placement, fps=fps, weights="0" * 16)
            value = degree(View(levels.float() / 255), "").value
            assert value == slow_dynamic_degree(levels, fps, brightness_flow)
            assert degree.frames_seen(9) == len(levels[:: max(1, round(fps / 8))])
            assert (
                value
                == DynamicDegree(brightness_flow, placement, fps=1, weights="")
                .at(fps)(View(levels.float() / 255), "")
                .value
            )
            answers.append(value)
    assert 0.0 < np.mean(answers) < 1.0


@pytest.mark.slow
@torch.inference_mode()
def test_dynamic_degree_is_built_from_its_file_and_is_vbenchs(parts: Parts) -> None:
    """The large network with random weights on a clip as small as it takes, whose sides fill no whole eights."""
    (built,) = build(["dynamic_degree"], parts).measures
    assert isinstance(built, DynamicDegree)
    reference = raft_large()
    reference.load_state_dict(read_state(parts.library.get("raft-large-things").path))
    reference.eval()

    def flow(before: Tensor, after: Tensor) -> Tensor:
        return reference(before, after, num_flow_updates=20)[-1]

    levels = film(129, 140, frames=2)
    expected = slow_speeds(levels, 8, flow)
    threshold = 6.0 * 129 / 256
    assert abs(expected[0] - threshold) > 0.01 * threshold  # the answer does not hang on rounding
    speeds = fastest(magnitudes(built._flow, levels.float() / 255, parts.placement))
    assert speeds.tolist() == pytest.approx(expected, rel=1e-4)
    assert built(View(levels.float() / 255), "").value == float(expected[0] > threshold or round(4 * 2 / 16) == 0)


@torch.inference_mode()
def test_raft_is_torchvisions(parts: Parts) -> None:
    state = read_state(parts.library.get("raft-small").path)
    net = raft_small()
    net.load_state_dict(state)
    before, after = (film(128, 136, frames=2).float() / 255 * 2 - 1).split(1)
    expected = net.eval()(before, after, num_flow_updates=2)[-1]
    assert torch.equal(RaftFlow(net, 2)(before, after), expected)
    (built,) = build(["optical_flow"], parts).measures
    assert isinstance(built, OpticalFlow)
    torch.testing.assert_close(built._flow._net(before, after, num_flow_updates=2)[-1], expected)


def test_optical_flow_is_the_mean_length_without_the_padding() -> None:
    frames = film(256, 260, frames=3).float() / 255
    measure = OpticalFlow(brightness_flow, Placement.automatic("cpu"), weights="0" * 16)
    change = 2 * (frames[1:] - frames[:-1]).mean(1)
    expected = float((change.abs() * math.hypot(20, 5)).mean())
    assert measure(View(frames), "").value == pytest.approx(expected, rel=1e-5)


def test_a_ball_that_moves_faster_has_more_motion_and_more_flicker(parts: Parts) -> None:
    slow, fast = conformance.moving_ball(9)[:5], conformance.moving_ball(9)[::2]
    for name, sign in (("motion", 1), ("temporal_flickering", -1), ("temporal_lpips", 1)):
        values = [build([name], parts)(video[None], [""])[0][name].value for video in (slow, fast)]
        assert sign * (values[1] - values[0]) > 0, name
    assert isinstance(build(["musiq"], parts).measures[0], MusiqQuality)
