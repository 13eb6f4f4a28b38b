"""Inflated 3D Inception (Carreira and Zisserman, arXiv:1705.07750), the network behind the Frechet video distance.

Written from the paper's table of layers. The weights were converted for PyTorch by VideoGPT, so that all that the
paper leaves open, the epsilon of the batch norms and the range of the input among it, is as in the program they were
published with: ``videogpt/fvd`` of github.com/wilson1yan/VideoGPT at 733d2b1. Names of parameters are theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
"""Name -> channels in, and channels of the six convolutions."""
CHANNELS_OUT = 1024
"""Of the last module."""
SIDE, LEAST_FRAMES = 224, 9
"""Pixels of the square input; frames below which nothing is left to average over."""
KINETICS_CLASSES = 400
NORM_EPSILON = 1e-5
"""``pytorch_i3d.py``, class ``Unit3D``; DeepMind's own program, for TensorFlow, has 1e-3."""


class Unit(nn.Module):
    """3D convolution, batch norm and ReLU, padded as TensorFlow's ``SAME``."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(before, after, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(after, eps=NORM_EPSILON)

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, before, time, height, width) -> (batch, after, ...)."""
        kernel, stride = self.conv3d.kernel_size[0], self.conv3d.stride[0]
        return F.relu(self.bn(self.conv3d(pad_same(maps, (kernel,) * 3, (stride,) * 3))))


class Mixed(nn.Module):
    """Inception module: four branches side by side; ``widths`` are the channels of its six convolutions."""

    def __init__(self, before: int, widths: Sequence[int]) -> None:
        super().__init__()
        direct, reduce1, out1, reduce2, out2, pooled = widths
        self.b0 = Unit(before, direct)
        self.b1a, self.b1b = Unit(before, reduce1), Unit(reduce1, out1, 3)
        self.b2a, self.b2b = Unit(before, reduce2), Unit(reduce2, out2, 3)
        self.b3b = Unit(before, pooled)

    def forward(self, maps: Tensor) -> Tensor:
        """The branches, concatenated."""
        pooled = max_pool(maps, (3, 3, 3), (1, 1, 1))
        branches = [self.b0(maps), self.b1b(self.b1a(maps)), self.b2b(self.b2a(maps)), self.b3b(pooled)]
        return torch.cat(branches, dim=1)


class Head(nn.Module):
    """The last 1x1x1 convolution."""

    def __init__(self, before: int, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(before, classes, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps -> logits at every place that is left."""
        logits: Tensor = self.conv3d(maps)
        return logits


class I3D(nn.Module):
    """Videos (batch, 3, frames, 224, 224) in [-1, 1], at least nine frames -> logits (batch, classes).

    Args:
        classes: Logits.
        thinner: Divides the number of channels everywhere, 1 to 8; only the published width, 1, has weights.
    """

    def __init__(self, classes: int = KINETICS_CLASSES, thinner: int = 1) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64 // thinner, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64 // thinner, 64 // thinner)
        self.Conv3d_2c_3x3 = Unit(64 // thinner, 192 // thinner, 3)
        for name, (before, widths) in MIXED.items():
            self.add_module(name, Mixed(before // thinner, tuple(width // thinner for width in widths)))
        self.logits = Head(CHANNELS_OUT // thinner, classes)

    def forward(self, videos: Tensor) -> Tensor:
        """Logits before the softmax, averaged over time: what the Frechet video distance is measured on."""
        maps = max_pool(self.Conv3d_1a_7x7(videos), (1, 3, 3), (1, 2, 2))
        maps = max_pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(maps)), (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name == "Mixed_4b":
                maps = max_pool(maps, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                maps = max_pool(maps, (2, 2, 2), (2, 2, 2))
            maps = self.get_submodule(name)(maps)
        logits: Tensor = self.logits(F.avg_pool3d(maps, (2, 7, 7), stride=1))
        return logits.mean((2, 3, 4))


def pad_same(maps: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zero padding after which the last three sizes become ``ceil(size / stride)``; the odd one goes to the end."""
    sides: list[int] = []
    for size, span, step in zip(maps.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        missing = max(span - (size % step or step), 0)
        sides += [missing // 2, missing - missing // 2]
    return F.pad(maps, sides)


def max_pool(maps: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Maximum over windows; all maps come from a ReLU, so that padding with zeros changes no maximum."""
    return F.max_pool3d(pad_same(maps, kernel, stride), kernel, stride)


def preprocessed(frames: Tensor) -> Tensor:
    """Frames (frames, 3, height, width) in [0, 1] -> (1, 3, frames, 224, 224) in [-1, 1]: shorter side, centre crop.

    As ``videogpt/data.py`` and, for the range, ``videogpt/fvd/fvd.py`` (its versions before ce18ae8 gave half of it).
    """
    height, width = frames.shape[-2:]
    scale = SIDE / min(height, width)
    size = [SIDE if side == min(height, width) else max(SIDE, int(-(-side * scale // 1))) for side in (height, width)]
    large = F.interpolate(frames, size, mode="bilinear", align_corners=False)
    top, left = ((side - SIDE) // 2 for side in size)
    square = large[..., top : top + SIDE, left : left + SIDE]
    return (2 * square - 1).permute(1, 0, 2, 3)[None]
