"""The networks that see whole videos."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stg_tune import models
from stg_tune.embedded import digits
from stg_tune.embedded.scorers_data import render_clean
from stg_tune.errors import StgTuneError
from stg_tune.evaluate.extractors import I3DExtractor, JudgeExtractor, Seen
from stg_tune.evaluate.i3d import I3D, LEAST_FRAMES, max_pool, pad_same, preprocessed
from stg_tune.evaluate.suites import FEATURES
from stg_tune.score.library import Library
from stg_tune.score.pins import Pins
from stg_tune.score.published import record
from stg_tune.video import Video, write_mp4

if TYPE_CHECKING:
    from pathlib import Path


def test_the_judge_sees_what_it_says_elsewhere() -> None:
    clean = render_clean(6, "test", 3)
    frames, extractor = clean.frames.float() / 255, JudgeExtractor()
    features, answers = extractor._judge.look(2 * frames - 1)
    for video, caption, row, answer in zip(frames, clean.captions, features, answers, strict=True):
        seen = extractor(video, caption)
        np.testing.assert_allclose(seen.features.numpy(), row, atol=1e-4, rtol=1e-4)
        assert float(seen.probabilities.sum()) == pytest.approx(1)
        assert np.unravel_index(int(seen.probabilities.argmax()), (10, 6, 4)) == tuple(answer)
        right = [float(a == b) for a, b in zip(answer, digits.truth(caption), strict=True)]
        assert list(seen.scores.values()) == right
        assert list(seen.scores) == [kind.name for kind in extractor.kinds]
        assert seen.features.shape == (FEATURES["judge"],)
    assert {(kind.low, kind.high, kind.unit, kind.weights) for kind in extractor.kinds} == {
        (0.0, 1.0, "share", extractor.weights)
    }
    assert extractor.reference(None).mean.shape == (96,)
    assert extractor.weights == JudgeExtractor().weights


def test_the_judge_refuses_other_videos() -> None:
    with pytest.raises(
        StgTuneError, match=r"the judge sees 5 or more frames of shape \(3, 64, 64\), got \(4, 3, 64, 64\)"
    ):
        JudgeExtractor()(torch.rand(4, 3, 64, 64), "a red seven moving left")
    with pytest.raises(StgTuneError, match="the judge sees"):
        JudgeExtractor()(torch.rand(17, 3, 48, 64), "a red seven moving left")


@pytest.mark.parametrize("model", ["open-sora-tiny", "mochi-tiny", "svd-tiny"])
def test_the_judge_sees_videos_of_every_embedded_model(model: str) -> None:
    usual = models.entry(model).defaults
    seen = JudgeExtractor()(torch.rand(usual.num_frames, 3, usual.height, usual.width), "a red seven moving left")
    assert seen.features.shape == (96,)


def test_half_the_frames_of_the_same_time_are_seen_as_the_whole() -> None:
    clean = render_clean(4, "test", 5)
    for frames, caption in zip(clean.frames.float() / 255, clean.captions, strict=True):
        whole, half = JudgeExtractor()(frames, caption), JudgeExtractor()(frames[::2], caption)
        torch.testing.assert_close(half.features, whole.features)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 7, 2), (5, 2, 2), (6, 3, 1), (4, 1, 1)]
)
def test_padding_is_tensorflows_same(size: int, kernel: int, stride: int) -> None:
    padded = pad_same(torch.ones(1, 1, size, size, size), (kernel,) * 3, (stride,) * 3)
    assert (padded.shape[-1] - kernel) // stride + 1 == -(-size // stride)
    first = int(padded[0, 0, padded.shape[2] // 2, padded.shape[3] // 2].argmax())
    assert first == (padded.shape[-1] - size) // 2  # the odd one goes to the end


def test_padding_with_zeros_changes_no_maximum_of_what_a_relu_gave() -> None:
    maps = torch.rand(1, 2, 3, 5, 5)
    infinite = F.pad(maps, (1, 1, 1, 1, 1, 1), value=float("-inf"))
    assert torch.equal(max_pool(maps, (3, 3, 3), (1, 1, 1)), F.max_pool3d(infinite, 3, 1))


def test_i3d_has_the_published_sizes() -> None:
    with torch.device("meta"):
        net = I3D().eval()
        logits = net(torch.empty(2, 3, 16, 224, 224))
    assert logits.shape == (2, FEATURES["i3d"])
    state = net.state_dict()
    # the conversion's names, and the size that the paper states (12 million)
    for key in (
        "Conv3d_1a_7x7.conv3d.weight",
        "Mixed_3b.b1b.bn.running_var",
        "Mixed_5c.b3b.bn.weight",
        "logits.conv3d.bias",
    ):
        assert key in state
    assert state["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)
    assert sum(weight.numel() for weight in net.parameters()) == pytest.approx(12.7e6, rel=0.03)


VIDEOGPT_EPSILON = 1e-5
"""Of ``BatchNorm3d`` in ``videogpt/fvd/pytorch_i3d.py``, line 69, github.com/wilson1yan/VideoGPT at 733d2b1."""
VIDEOGPT_ORDER = (
    "Conv3d_1a_7x7",
    "pool 1 3 3 by 1 2 2",
    "Conv3d_2b_1x1",
    "Conv3d_2c_3x3",
    "pool 1 3 3 by 1 2 2",
    "Mixed_3b",
    "Mixed_3c",
    "pool 3 3 3 by 2 2 2",
    "Mixed_4b",
    "Mixed_4c",
    "Mixed_4d",
    "Mixed_4e",
    "Mixed_4f",
    "pool 2 2 2 by 2 2 2",
    "Mixed_5b",
    "Mixed_5c",
)
"""``VALID_ENDPOINTS`` there, with kernel and stride of each pooling."""


def slow_padded(maps: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    sides = []
    for size, span, step in zip(maps.shape[2:], kernel, stride, strict=True):
        total = max((-(-size // step) - 1) * step + span - size, 0)
        sides.append((total // 2, total - total // 2))
    return F.pad(maps, (*sides[2], *sides[1], *sides[0]))


def slow_unit(unit: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """Convolution padded by hand, normalised by hand."""
    kernel, stride = unit.conv3d.kernel_size, unit.conv3d.stride
    maps = F.conv3d(slow_padded(maps, kernel, stride), unit.conv3d.weight, stride=stride)
    norm = unit.bn
    shape = (1, -1, 1, 1, 1)
    maps = (maps - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + VIDEOGPT_EPSILON).sqrt()
    return (maps * norm.weight.view(shape) + norm.bias.view(shape)).clamp_min(0)


def slow_module(mixed: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    branches = [
        slow_unit(mixed.b0, maps),
        slow_unit(mixed.b1b, slow_unit(mixed.b1a, maps)),
        slow_unit(mixed.b2b, slow_unit(mixed.b2a, maps)),
        slow_unit(mixed.b3b, F.max_pool3d(F.pad(maps, (1,) * 6), 3, 1)),
    ]
    return torch.cat(branches, 1)


def slow_net(net: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    for place in VIDEOGPT_ORDER:
        if place.startswith("pool"):
            numbers = [int(word) for word in place.split() if word.isdigit()]
            kernel, stride = tuple(numbers[:3]), tuple(numbers[3:])
            maps = F.max_pool3d(slow_padded(maps, kernel, stride), kernel, stride)
        else:
            maps = (slow_module if place.startswith("Mixed") else slow_unit)(getattr(net, place), maps)
    maps = F.avg_pool3d(maps, (2, 7, 7), stride=(1, 1, 1))
    logits = F.conv3d(maps, net.logits.conv3d.weight, net.logits.conv3d.bias)
    return logits.squeeze(3).squeeze(3).mean(2)


def random_i3d(thinner: int) -> I3D:
    """Variances so small that another epsilon shows."""
    torch.manual_seed(0)
    net = I3D(5, thinner).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(std=0.01)
            module.running_var.uniform_(1e-4, 1e-2)
            module.weight.data.fill_(0.05)
            module.bias.data.normal_(std=0.5)
    return net


@torch.inference_mode()
def test_units_and_modules_are_the_papers() -> None:
    net = random_i3d(thinner=1)
    assert {module.eps for module in net.modules() if isinstance(module, nn.BatchNorm3d)} == {VIDEOGPT_EPSILON}
    video, maps = torch.rand(1, 3, 6, 30, 31), torch.rand(1, 192, 2, 5, 5)
    torch.testing.assert_close(net.Conv3d_1a_7x7(video), slow_unit(net.Conv3d_1a_7x7, video), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(net.Mixed_3b(maps), slow_module(net.Mixed_3b, maps), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [9, 17])
def test_the_whole_network_is_the_program_that_the_weights_were_published_with(frames: int) -> None:
    net = random_i3d(thinner=8)
    video = 2 * torch.rand(1, 3, frames, 224, 224) - 1
    logits = net(video)
    assert float(logits.std()) > 0.01
    torch.testing.assert_close(logits, slow_net(net, video), atol=1e-4, rtol=1e-4)


def test_the_network_is_given_minus_one_to_one() -> None:
    seen = preprocessed(torch.stack([torch.zeros(3, 224, 224), torch.ones(3, 224, 224)]))
    assert (float(seen.min()), float(seen.max())) == (-1.0, 1.0)


def test_frames_are_cropped_to_the_middle_square() -> None:
    frames = torch.zeros(2, 3, 224, 300)
    frames[..., 38 : 38 + 224] = 1.0
    assert torch.equal(preprocessed(frames), torch.ones(1, 3, 2, 224, 224))
    assert preprocessed(torch.rand(3, 3, 240, 320)).shape == (1, 3, 3, 224, 224)
    assert preprocessed(torch.rand(3, 3, 97, 61)).shape == (1, 3, 3, 224, 224)


@pytest.fixture
def i3d(tmp_path: Path) -> I3DExtractor:
    """Random weights through the loading code, without the counters that the published file lacks."""
    torch.manual_seed(0)
    state = {key: t for key, t in I3D(7).state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "i3d_pretrained_400.pt")
    return I3DExtractor(Library(tmp_path, files=(record("i3d-kinetics-400"),), pins=Pins(tmp_path / "pins.json")))


def test_i3d_gives_logits_and_their_softmax(i3d: I3DExtractor) -> None:
    seen = i3d(torch.rand(LEAST_FRAMES, 3, 40, 50), "")
    assert seen.features.shape == (7,)
    assert float(seen.probabilities.sum()) == pytest.approx(1)
    with pytest.raises(StgTuneError, match="needs 9 frames or more, got 8"):
        i3d(torch.rand(8, 3, 40, 50), "")


def test_real_videos_must_be_given_and_be_there(i3d: I3DExtractor, tmp_path: Path) -> None:
    with pytest.raises(StgTuneError, match="give --data DIR"):
        i3d.reference(None)
    with pytest.raises(StgTuneError, match="holds 0 videos"):
        i3d.reference(tmp_path / "empty")


class Brief(I3DExtractor):
    """Sees without its network."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def __call__(self, frames: torch.Tensor, prompt: str) -> Seen:
        self.lengths.append(len(frames))
        return Seen(features=torch.stack([frames[0].mean(), frames[-1].mean()]).double(), probabilities=torch.ones(1))


def test_as_much_of_a_real_video_counts_as_a_generated_one_has(tmp_path: Path) -> None:
    for number in range(2):
        levels = torch.arange(12).view(-1, 1, 1, 1) * 10 + 50 * number
        frames = levels.expand(12, 32, 32, 3).to(torch.uint8).contiguous()
        write_mp4(Video(frames=frames, fps=8), tmp_path / f"{number}.mp4")
    brief = Brief()
    found = brief.reference(tmp_path, LEAST_FRAMES)
    assert brief.lengths == [LEAST_FRAMES] * 2
    assert found.count == 2
    np.testing.assert_allclose(found.mean, [25 / 255, (25 + 10 * (LEAST_FRAMES - 1)) / 255], atol=0.01)
    with pytest.raises(StgTuneError, match=r"0\.mp4 has 12 frames; 13 are needed"):
        brief.reference(tmp_path, 13)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "i3d_pretrained_400.pt")
    file = replace(record("i3d-kinetics-400"), sha256="")
    with pytest.raises(StgTuneError, match="weights of i3d-kinetics-400 do not fit"):
        I3DExtractor(Library(tmp_path, files=(file,), pins=Pins(tmp_path / "pins.json")))
