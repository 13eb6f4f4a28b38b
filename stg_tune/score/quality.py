"""Imaging quality: a small network that was trained on known degradations rates every frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, scored

if TYPE_CHECKING:
    from collections.abc import Sequence


def conv_stages(channels: Sequence[int]) -> nn.Sequential:
    """Stages of 3x3 convolutions from RGB; each halves the size and, but for the first, looks at it twice.

    Args:
        channels: width of each stage; multiples of 16 are fast in bfloat16.
    """
    stages: list[nn.Module] = []
    for before, after in zip([3, *channels], channels, strict=False):
        stages += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        if before != 3:  # at the finest size a second look would cost most
            stages += [nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*stages)


class QualityNet(nn.Module):
    """Strided convolutions, mean and maximum over the picture, a small perceptron, a sigmoid.

    Args:
        channels: width of each stage; each halves the size.
        hidden: width of the perceptron.
    """

    def __init__(self, channels: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.stages = conv_stages(channels)
        self.head = nn.Sequential(nn.Linear(2 * channels[-1], hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """(batch, 3, height, width) in [0, 1] -> quality (batch,), 0 (ruined) to 1 (clean)."""
        maps = self.stages(2 * frames - 1)
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
        return torch.sigmoid(self.head(pooled)[:, 0])


class ImagingQuality:
    """Mean over the frames of a per-frame quality network.

    Args:
        net: (frames, 3, size, size) in [0, 1] -> (frames,) in [0, 1], in eval mode.
        size: side of the frames the network knows, in pixels.
        weights: checksum of the network.
    """

    requires: Requirement = "picture"

    def __init__(self, net: nn.Module, *, size: int, weights: str) -> None:
        self._net, self._size = net, size
        self.kind = ScoreKind(
            name="imaging_quality", direction="maximize", low=0.0, high=1.0, unit="share of clean", weights=weights
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        frames = view.resized(self._size, self._size).contiguous(memory_format=torch.channels_last)
        return scored(self.kind, float(self._net(frames).mean()))
