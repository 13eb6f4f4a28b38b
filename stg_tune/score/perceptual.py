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

    def __init__(self, trunk: SmallTrunk) -> None:
        nn.Module.__init__(self)  # the package's own constructor knows three fixed trunks only
        self.lpips, self.spatial, self.version = True, False, "0.1"
        self.scaling_layer = lpips.ScalingLayer()
        self.net, self.chns, self.L = trunk, trunk.chns, len(trunk.chns)
        self.lins = nn.ModuleList(lpips.NetLinLayer(channels, use_dropout=False) for channels in trunk.chns)


def consecutive_distances(metric: lpips.LPIPS, frames: Tensor) -> Tensor:
    """LPIPS of every frame to the next, (frames - 1,); equal to ``metric(frames[:-1], frames[1:], normalize=True)``.

    Calling the metric would run its trunk on every inner frame twice; here the trunk sees each frame once.

    Args:
        metric: any ``lpips.LPIPS`` of version 0.1 with linear heads.
        frames: (frames, 3, height, width) in [0, 1].
    """
    scaled = metric.scaling_layer(2 * frames - 1).contiguous(memory_format=torch.channels_last)
    total = frames.new_zeros(len(frames) - 1)
    for features, head in zip(metric.net(scaled), metric.lins, strict=True):
        unit = lpips.normalize_tensor(features)
        total = total + lpips.spatial_average(head((unit[:-1] - unit[1:]) ** 2))[:, 0, 0, 0]
    return total


class TemporalLpips:
    """Mean LPIPS between consecutive frames; rewards frozen video, so it is reported with ``motion``.

    Args:
        metric: an ``lpips.LPIPS`` in eval mode.
        weights: checksum of trunk and heads.
    """

    requires: Requirement = "motion"

    def __init__(self, metric: lpips.LPIPS, *, weights: str) -> None:
        self._metric = metric
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
        return scored(self.kind, float(consecutive_distances(self._metric, view.frames).mean()))
