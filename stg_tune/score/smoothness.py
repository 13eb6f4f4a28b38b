"""Motion smoothness as VBench defines it, for an interpolator that the user brings."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, scored

Interpolate = Callable[[Tensor, Tensor], Tensor]
"""Two batches of frames (batch, 3, height, width) in [0, 1] -> the frames half-way between them."""


class MotionSmoothness:
    """``1 - mean |interpolated - real|`` of every second frame: VBench's ``motion_smoothness``.

    The frames 1, 3, 5, ... are left out, made again from their neighbours, cut down to whole 8-bit levels (not rounded,
    as in the original) and compared. A last frame that has no neighbour after it does not count. It rewards frozen
    video, so it is reported with ``motion``.

    Args:
        interpolate: the network.
        weights: checksum of it, 16 hex digits.
    """

    requires: Requirement = "motion"

    def __init__(self, interpolate: Interpolate, *, weights: str) -> None:
        self._interpolate = interpolate
        self.kind = ScoreKind(
            name="motion_smoothness",
            direction="maximize",
            low=0.0,
            high=1.0,
            unit="1 - mean error of an interpolated pixel",
            weights=weights,
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        kept = view.frames[::2]
        if len(kept) < 2:
            return Score(kind=self.kind, value=None, reason="the video has fewer than three frames")
        pairs = pairwise(kept)
        made = torch.cat([self._interpolate(before[None], after[None]) for before, after in pairs])
        real = view.frames[1::2][: len(made)]
        error = ((made * 255).clamp(0, 255).floor() - (real * 255).round()).abs().mean() / 255
        return scored(self.kind, 1 - float(error))
