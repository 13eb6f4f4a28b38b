"""What a scorer is, and one video with everything that several measures derive from it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from stg_tune.errors import StgTuneError
from stg_tune.records import Score, ScoreKind

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

Videos01: TypeAlias = Tensor
"""(batch, frames, 3, height, width), floating, RGB in [0, 1]."""
Frames01: TypeAlias = Tensor
"""(frames, 3, height, width), float32, RGB in [0, 1]: one video."""

Requirement = Literal["picture", "two frames", "motion"]
"""What a video must have before a measure is asked: something to see, a second frame, or any change between frames."""

LEAST_CHANGE = 1 / 512
"""Half an 8-bit grey level: frames that differ less are the same frame, a frame that varies less shows nothing."""
OVERSHOOT = 1e-3
"""How far rounding may leave [0, 1]."""
CHUNK_BYTES = 2**26
"""Frames that are computed with at a time where nothing needs all of them: copies of a long video would not fit."""


@runtime_checkable
class Scorer(Protocol):
    """Scores a batch of videos; the score of a video does not depend on the other videos of its batch."""

    @property
    def kinds(self) -> tuple[ScoreKind, ...]:
        """What is measured, in the order of the report; names are unique."""

    def __call__(self, videos: Videos01, prompts: Sequence[str]) -> list[dict[str, Score]]:
        """One dict a video, with one ``Score`` for each name of ``kinds``; ``value=None`` where it could not score."""


@runtime_checkable
class Measure(Protocol):
    """One number of one video; ``CompositeScorer`` makes a ``Scorer`` of several measures."""

    @property
    def kind(self) -> ScoreKind:
        """What is measured."""

    @property
    def requires(self) -> Requirement:
        """What the video must have; where it has not, the measure is not asked."""

    def __call__(self, view: View, prompt: str) -> Score:
        """The score of a finite video that has what ``requires`` says."""


class View:
    """One video; whatever is derived from it by ``once`` is computed one time and shared by all measures."""

    def __init__(self, frames: Frames01) -> None:
        self.frames = frames
        self._derived: dict[Hashable, Tensor] = {}
        self._samples: dict[int, View] = {}

    def once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """The result of ``compute``, remembered under ``key``."""
        if key not in self._derived:
            self._derived[key] = compute()
        return self._derived[key]

    def resized(self, height: int, width: int, mode: str = "bilinear", *, antialias: bool = True) -> Frames01:
        """The frames at ``height`` x ``width`` (the same tensor when they have that size already)."""
        if self.frames.shape[-2:] == (height, width):
            return self.frames
        return self.once(
            ("resized", height, width, mode, antialias),
            lambda: F.interpolate(self.frames, (height, width), mode=mode, align_corners=False, antialias=antialias),
        )

    def resized_levels(self, height: int, width: int, mode: str) -> Tensor:
        """Grey levels, 0 to 255, of the 8-bit frames resized without antialiasing.

        VBench turns its 8-bit frames into floats before it resizes them, so that the result is neither rounded to whole
        levels nor cut off where a bicubic kernel overshoots
        (https://github.com/Vchitect/VBench/blob/master/vbench/utils.py, ``load_video``).
        """
        return self.once(("levels", height, width, mode), lambda: self._resized_levels(height, width, mode))

    def _resized_levels(self, height: int, width: int, mode: str) -> Tensor:
        if self.frames.shape[-2:] == (height, width):
            return (self.frames * 255).round()
        parts = ((part * 255).round() for part in in_chunks(self.frames))
        return torch.cat([F.interpolate(part, (height, width), mode=mode, align_corners=False) for part in parts])

    def sample(self, count: int | None) -> View:
        """A view of ``count`` evenly spaced frames, first and last included; all of them when there are not more."""
        if count is None or count >= len(self.frames):
            return self
        if count not in self._samples:
            chosen = torch.linspace(0, len(self.frames) - 1, count).round().long()
            self._samples[count] = View(self.frames[chosen.to(self.frames.device)])
        return self._samples[count]


def in_chunks(frames: Frames01) -> tuple[Tensor, ...]:
    """The frames in parts of at most ``CHUNK_BYTES``, of one frame at least; a short or small video is one part."""
    each = frames[0].numel() * frames.element_size()
    parts: tuple[Tensor, ...] = frames.split(max(1, CHUNK_BYTES // each))
    return parts


def scored(kind: ScoreKind, value: float) -> Score:
    """A score with a number; a number that is not finite is "could not score"."""
    if value != value or value in (float("inf"), float("-inf")):
        return Score(kind=kind, value=None, reason=f"{kind.name} came out as {value}")
    return Score(kind=kind, value=value)


def why_unscorable(frames: Frames01, requires: Requirement) -> str:
    """The reason why ``frames`` have not what a measure ``requires``; empty when they have."""
    if not all(bool(torch.isfinite(part).all()) for part in in_chunks(frames)):
        return "the video contains NaN or infinity"
    if all(_is_flat(part) for part in in_chunks(frames)):
        return "every frame is one flat colour (black or constant)"
    if requires != "picture" and len(frames) < 2:
        return "the video has one frame; this score compares frames"
    if requires == "motion" and not any(_differ(*pair) for pair in pairwise(frames)):
        return "the video is frozen: no pixel changes between frames"
    return ""


def _is_flat(frames: Tensor) -> bool:
    flat = frames.flatten(2)
    return float((flat.amax(-1) - flat.amin(-1)).max()) < LEAST_CHANGE


def _differ(before: Tensor, after: Tensor) -> bool:
    return float((after - before).abs().max()) >= LEAST_CHANGE


def check_batch(videos: Videos01, prompts: Sequence[str]) -> None:
    """Raise ``StgTuneError`` unless shape, dtype and range are those of ``Videos01``, with one prompt a video."""
    if videos.ndim != 5 or videos.shape[2] != 3 or 0 in videos.shape[1:]:
        raise StgTuneError(
            f"videos to score must have shape (batch, frames, 3, height, width), got {tuple(videos.shape)}"
        )
    if not videos.is_floating_point():
        raise StgTuneError(f"videos to score must be floating point in [0, 1], got {videos.dtype}: divide uint8 by 255")
    if len(prompts) != len(videos):
        raise StgTuneError(f"{len(videos)} videos but {len(prompts)} prompts to score: give one prompt a video")
    ends = [_ends(part) for video in videos for part in in_chunks(video)]
    low, high = min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=1.0)
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise StgTuneError(f"videos to score must lie in [0, 1], got values from {low:.4g} to {high:.4g}")


def _ends(frames: Tensor) -> tuple[float, float]:
    low, high = frames.nan_to_num(0.5, 0.5, 0.5).aminmax()
    return float(low), float(high)
