"""Motion magnitude from image gradients: cheap, no weights, a floor against frozen video."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, scored

SHORT_SIDE = 64
"""Frames are shrunk so that their shorter side has this many pixels; speeds are in these pixels."""
WINDOW = 9
"""Side of the window in which one velocity is fitted (Lucas and Kanade, 1981), in pixels."""
STRIDE = 4
"""Distance of the windows, in pixels."""
RIDGE = 1e-5
"""Added to the diagonal of the 2x2 system: a flat window has no velocity instead of a wild one."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green, blue in brightness (ITU-R BT.601)."""


class Motion:
    """Mean speed of what moves, in pixels a frame at a 64-pixel short side; 0 for a frozen video.

    Velocities are least-squares solutions of ``I_x u + I_y v + I_t = 0`` in a window, averaged with the weight
    ``I_t^2``: the still ground does not dilute the speed of a small object. Displacements beyond about 3 pixels a frame
    are underestimated; the number orders slow, normal and frozen videos, which is what a floor needs.
    """

    requires: Requirement = "two frames"
    kind = ScoreKind(
        name="motion",
        direction="maximize",
        low=0.0,
        high=float("inf"),
        unit="pixels a frame at a 64-pixel short side",
    )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        height, width = view.frames.shape[-2:]
        scale = SHORT_SIDE / min(height, width)
        frames = view.resized(round(height * scale), round(width * scale))
        return scored(self.kind, float(mean_speed(frames)))


def mean_speed(frames: Tensor) -> Tensor:
    """Scalar: pixels a frame over (frames, 3, height, width) in [0, 1]; at least two frames."""
    grey = _smooth((frames * frames.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True))
    middle, change = (grey[1:] + grey[:-1]) / 2, grey[1:] - grey[:-1]
    along_y, along_x = cast("tuple[Tensor, Tensor]", torch.gradient(middle, dim=(2, 3)))
    xx, xy, yy, xt, yt, energy = _window_means(along_x, along_y, change)
    determinant = (xx + RIDGE) * (yy + RIDGE) - xy**2
    speed_x = ((yy + RIDGE) * xt - xy * yt) / determinant
    speed_y = ((xx + RIDGE) * yt - xy * xt) / determinant
    return (torch.hypot(speed_x, speed_y) * energy).sum() / energy.sum().clamp_min(1e-12)


def _smooth(grey: Tensor) -> Tensor:
    """Binomial 5x5 filter: the gradient is meaningful for steps of a few pixels."""
    taps = grey.new_tensor([1, 4, 6, 4, 1]) / 16
    padded = F.pad(grey, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, 5, 1)), taps.view(1, 1, 1, 5))


def _window_means(along_x: Tensor, along_y: Tensor, change: Tensor) -> tuple[Tensor, ...]:
    products = torch.cat(
        [along_x**2, along_x * along_y, along_y**2, -along_x * change, -along_y * change, change**2], dim=1
    )
    return F.avg_pool2d(products, WINDOW, stride=STRIDE, padding=WINDOW // 2).unbind(1)
