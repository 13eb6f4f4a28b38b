"""Temporal LPIPS: the perceptual distance between consecutive frames (Zhang et al., arXiv:1801.03924)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lpips
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, scored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.score.placement import Placement

MAP_BYTES = 192
"""Memory that the feature maps of AlexNet and their differences take, in bytes a pixel of a frame."""


class SmallTrunk(nn.Module):
    """Strided 3x3 convolutions; every stage's activation is a feature map of the metric.

    Args:
        channels: width of each stage; each halves the size.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.chns = list(channels)
        widths = zip([3, *channels], channels, strict=False)
        self.stages = nn.ModuleList(nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in widths)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """(batch, 3, height, width), scaled as ``lpips`` does -> one feature map a stage."""
        maps: list[Tensor] = []
        for stage in self.stages:
            # never exactly zero: the gradient of the normalisation to unit length stays finite
            frames = F.leaky_relu(stage(frames), 0.1)
            maps.append(frames)
        return maps


class LpipsOverTrunk(lpips.LPIPS):  # type: ignore[misc]  # the package has no types
    """The package's metric with another trunk: its scaling, normalisation, 1x1 heads and average are all inherited.

    Args:
        trunk: maps scaled frames to a list of feature maps; ``trunk.chns`` lists their channels.
    """

    def __init__(self, trunk: SmallTrunk | AlexTrunk) -> None:
        nn.Module.__init__(self)  # the package's own constructor knows three fixed trunks only
        self.lpips, self.spatial, self.version = True, False, "0.1"
        self.scaling_layer = lpips.ScalingLayer()
        self.net, self.chns, self.L = trunk, trunk.chns, len(trunk.chns)
        self.lins = nn.ModuleList(lpips.NetLinLayer(channels, use_dropout=False) for channels in trunk.chns)


class AlexTrunk(nn.Module):
    """The convolutions of AlexNet, cut after each of the five ReLUs; the trunk that ``lpips`` calls ``alex``.

    The keys of its state dict are those of torchvision's AlexNet, without the classifier.
    """

    chns = (64, 192, 384, 256, 256)
    """Channels of the five feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        """(batch, 3, height, width), scaled as ``lpips`` does, both sides at least 31 -> five feature maps."""
        maps: list[Tensor] = []
        for layer in self.features:
            frames = layer(frames)
            if isinstance(layer, nn.ReLU):
                maps.append(frames)
        return maps


def consecutive_distances(metric: lpips.LPIPS, frames: Tensor, batch: int | None = None) -> Tensor:
    """LPIPS of every frame to the next, (frames - 1,); equal to ``metric(frames[:-1], frames[1:], normalize=True)``.

    Calling the metric would run its trunk on every inner frame twice; here the trunk sees each frame once.

    Args:
        metric: any ``lpips.LPIPS`` of version 0.1 with linear heads.
        frames: (frames, 3, height, width) in [0, 1].
        batch: frames that go through the trunk at a time; ``None``: all.
    """
    distances: list[Tensor] = []
    before: list[Tensor] = []
    for part in frames.split(batch or len(frames)):
        units = _units(metric, part)
        if before:
            units = [torch.cat(both) for both in zip(before, units, strict=True)]
        distances.append(_distances(metric, units))
        before = [unit[-1:] for unit in units]
    return torch.cat(distances)


def _units(metric: lpips.LPIPS, frames: Tensor) -> list[Tensor]:
    """Features of unit length of each stage."""
    scaled = metric.scaling_layer(2 * frames - 1).contiguous(memory_format=torch.channels_last)
    return [lpips.normalize_tensor(features) for features in metric.net(scaled)]


def _distances(metric: lpips.LPIPS, units: Sequence[Tensor]) -> Tensor:
    total = units[0].new_zeros(len(units[0]) - 1)
    for unit, head in zip(units, metric.lins, strict=True):
        total = total + lpips.spatial_average(head((unit[:-1] - unit[1:]) ** 2))[:, 0, 0, 0]
    return total


class TemporalLpips:
    """Mean LPIPS between consecutive frames; rewards frozen video, so it is reported with ``motion``.

    Args:
        metric: an ``lpips.LPIPS`` in eval mode.
        weights: checksum of trunk and heads.
        least_side: pixels that both sides of a frame must have; the trunk of ``lpips`` fails below 31.
        placement: bounds the memory of the feature maps; ``None``: all frames at a time.
    """

    requires: Requirement = "motion"

    def __init__(
        self, metric: lpips.LPIPS, *, weights: str, least_side: int = 1, placement: Placement | None = None
    ) -> None:
        self._metric, self._least_side, self._placement = metric, least_side, placement
        self.kind = ScoreKind(
            name="temporal_lpips",
            direction="minimize",
            low=0.0,
            high=float("inf"),
            unit="LPIPS distance a frame",
            weights=weights,
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        height, width = view.frames.shape[-2:]
        if min(height, width) < self._least_side:
            reason = f"frames of {width}x{height} pixels are too small: LPIPS needs {self._least_side} on both sides"
            return Score(kind=self.kind, value=None, reason=reason)
        batch = self._placement.batch(MAP_BYTES * height * width) if self._placement else None
        return scored(self.kind, float(consecutive_distances(self._metric, view.frames, batch).mean()))
