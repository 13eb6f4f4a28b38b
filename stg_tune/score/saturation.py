"""Saturation guard: clipped pixels and colours stronger than natural, which guidance at too large a scale makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, in_chunks, scored

if TYPE_CHECKING:
    from torch import Tensor

CLIPPED = 1.5 / 255
"""A channel within this distance of 0 or 1 is clipped (the two outermost 8-bit levels at each end)."""


class Saturation:
    """Share of clipped pixels plus the mean excess of chroma over the natural one; 0 is best, 2 the worst possible.

    Chroma of a pixel is ``max(R, G, B) - min(R, G, B)``.

    Args:
        natural_chroma: chroma that few natural pixels exceed, 0 to 1; measured on real videos of the domain.
        weights: checksum of where ``natural_chroma`` comes from.
    """

    requires: Requirement = "picture"

    def __init__(self, natural_chroma: float, *, weights: str = "none") -> None:
        self._natural_chroma = natural_chroma
        self.kind = ScoreKind(
            name="saturation",
            direction="minimize",
            low=0.0,
            high=2.0,
            unit="clipped share + chroma excess",
            weights=weights,
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        parts = in_chunks(view.frames)
        if len(parts) == 1:
            return scored(self.kind, float(self._of(view.frames)))
        return scored(self.kind, sum(float(self._of(part)) * len(part) for part in parts) / len(view.frames))

    def _of(self, frames: Tensor) -> Tensor:
        return clipped_share(frames) + (chroma(frames) - self._natural_chroma).clamp_min(0).mean()


def chroma(frames: Tensor) -> Tensor:
    """(frames, 3, height, width) -> (frames, height, width), 0 (grey) to 1."""
    return frames.amax(1) - frames.amin(1)


def clipped_share(frames: Tensor) -> Tensor:
    """Scalar, 0 to 1: share of pixels with a channel at the end of the range."""
    return ((frames <= CLIPPED) | (frames >= 1 - CLIPPED)).any(1).float().mean()
