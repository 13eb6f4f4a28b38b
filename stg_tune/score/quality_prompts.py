"""Imaging quality without weights of its own: which of two opposite sentences is nearer to a frame's CLIP features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, scored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.score.clip import ClipTowers

OPPOSITES = (
    ("Good photo.", "Bad photo."),
    ("Sharp photo.", "Blurry photo."),
    ("Clean photo.", "Noisy photo."),
)
"""What is wanted and its opposite: quality, sharpness and noisiness of CLIP-IQA."""
LOGIT_SCALE = 100.0
"""Factor of the cosines; the value that OpenAI's CLIPs were trained to."""


class PromptQuality:
    """CLIP-IQA (Wang et al., arXiv:2207.12396): mean over pairs and frames of the probability of the good sentence.

    For one pair, ``softmax(100 (f . t_good, f . t_bad))[0]`` with unit-length features. The features are those that
    ``aesthetic`` and ``alignment`` need anyway, so that it costs nothing more. The original takes a ResNet without its
    position embedding; the towers here keep theirs, so numbers are comparable among themselves only.

    Args:
        towers: where the features come from.
        weights: checksum of the CLIP.
        opposites: pairs of sentences.
    """

    requires: Requirement = "picture"

    def __init__(self, towers: ClipTowers, *, weights: str, opposites: Sequence[tuple[str, str]] = OPPOSITES) -> None:
        self._towers, self._opposites = towers, tuple(opposites)
        self.kind = ScoreKind(
            name="imaging_quality",
            direction="maximize",
            low=0.0,
            high=1.0,
            unit="probability of the good sentence (CLIP-IQA)",
            weights=weights,
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        features = self._towers.images(view)
        anchors = torch.stack([self._towers.text(sentence) for pair in self._opposites for sentence in pair])
        cosines = (features @ anchors.T).view(len(features), len(self._opposites), 2)
        return scored(self.kind, float((LOGIT_SCALE * cosines).softmax(-1)[..., 0].mean()))

    def frames_seen(self, frames: int) -> int:
        """How many of a video's frames count."""
        return self._towers.frames_seen(frames)
