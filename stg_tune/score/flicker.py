"""Temporal flickering as VBench defines it: how little the pixels change from frame to frame."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, scored

if TYPE_CHECKING:
    from torch import Tensor


class TemporalFlickering:
    """``1 - mean |x_t+1 - x_t|`` over the 8-bit frames: VBench's ``temporal_flickering``, 1 without any change.

    It means flicker only where the scene is still, and it rewards frozen video, so it is reported with ``motion``.
    """

    requires: Requirement = "motion"
    kind = ScoreKind(
        name="temporal_flickering",
        direction="maximize",
        low=0.0,
        high=1.0,
        unit="1 - mean change of a pixel between frames",
    )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        return scored(self.kind, 1 - float(mean_change(view.frames)))


def mean_change(frames: Tensor) -> Tensor:
    """Scalar, 0 to 1: mean absolute difference of consecutive 8-bit frames (frames, 3, height, width)."""
    # frame by frame: a difference of whole videos would take as much memory as both
    changes = [(after - before).abs().mean() for before, after in pairwise((frame * 255).round() for frame in frames)]
    return sum(changes, start=frames.new_zeros(())) / len(changes) / 255
