"""Many measures over one pass: frames are resized once per size, CLIP features are computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stg_tune.errors import StgTuneError
from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Frames01, Measure, Requirement, Videos01, View, check_batch, why_unscorable

if TYPE_CHECKING:
    from collections.abc import Sequence


class CompositeScorer:
    """A ``Scorer`` made of measures.

    Videos are scored one at a time, the frames of a video being the batch of the networks: a score is the same bits
    whatever else is in the batch.

    Args:
        measures: what to measure; names must differ (``StgTuneError``).
        device: where the networks of the measures are; videos are moved there one by one.
    """

    def __init__(self, measures: Sequence[Measure], *, device: str | torch.device = "cpu") -> None:
        names = [measure.kind.name for measure in measures]
        if len(set(names)) != len(names):
            raise StgTuneError(f"two scorers of one name ({', '.join(names)}): give each measure its own name")
        self.measures = tuple(measures)
        self.device = torch.device(device)

    @property
    def kinds(self) -> tuple[ScoreKind, ...]:
        """What is measured."""
        return tuple(measure.kind for measure in self.measures)

    def frames_seen(self, frames: int) -> dict[str, int]:
        """Name -> how many of a video's frames count; a measure that has no ``frames_seen`` looks at all of them."""
        asked = {measure.kind.name: getattr(measure, "frames_seen", None) for measure in self.measures}
        return {name: seen(frames) if seen else frames for name, seen in asked.items()}

    def at(self, fps: float) -> CompositeScorer:
        """The same networks for videos of another frame rate: measures that have ``at`` are asked for another one."""
        moved = [measure.at(fps) if hasattr(measure, "at") else measure for measure in self.measures]
        return CompositeScorer(moved, device=self.device)

    @torch.inference_mode()
    def __call__(self, videos: Videos01, prompts: Sequence[str]) -> list[dict[str, Score]]:
        """One dict a video, name -> score; wrong shape, dtype or range raises ``StgTuneError``."""
        check_batch(videos, prompts)
        return [self._score_one(video, prompt) for video, prompt in zip(videos, prompts, strict=True)]

    def _score_one(self, video: Tensor, prompt: str) -> dict[str, Score]:
        frames = video.to(self.device, torch.float32)
        # clamping would make an ordinary 1 of infinity
        frames = torch.where(frames.isinf(), torch.nan, frames).clamp_(0, 1).contiguous()
        view = View(frames)
        reasons: dict[Requirement, str] = {}
        return {measure.kind.name: _ask(measure, view, prompt, reasons) for measure in self.measures}


def _ask(measure: Measure, view: View, prompt: str, reasons: dict[Requirement, str]) -> Score:
    reason = _reason(view.frames, measure.requires, reasons)
    if reason:
        return Score(kind=measure.kind, value=None, reason=reason)
    return measure(view, prompt)


def _reason(frames: Frames01, requires: Requirement, known: dict[Requirement, str]) -> str:
    if requires not in known:
        known[requires] = why_unscorable(frames, requires)
    return known[requires]
