"""A lesson beside the loss: half way through the transformer, tell where the digit is and what its scan looks like.

Velocities alone teach a small model colours and directions long before it knows one digit from another. A head that
is thrown away after the training reads place, size and scan off the tokens, which makes the layers before it find them.
Aligning inner features is the idea of arXiv:2410.06940, here with the truth of the drawing instead of a second network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from stg_tune.embedded import digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.models.open_sora.transformer import STDiT3

WEIGHT = 0.5
"""Of the lesson against the velocity loss."""
PATCH = 16
"""Pixels a side of a token: 8 of the autoencoder, 2 of the transformer."""
PLACE_UNIT = 16.0
"""Pixels that make the targets of place and size about 1."""
SCAN_SPREAD = 0.37
"""Standard deviation of a pixel of the scans, which are 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the tutor wants to hear."""

    places: Tensor
    """(n, tokens, 3): x and y of the digit's centre as seen from the token, and its side."""
    scans: Tensor
    """(n, 64), about unit variance."""

    def __getitem__(self, rows: Tensor) -> Lesson:
        """Some of the videos."""
        return Lesson(places=self.places[rows], scans=self.scans[rows])


def lesson_of(layouts: Sequence[digits.Layout], *, frames_per_latent: int = 4) -> Lesson:
    """The lesson of videos in the order of their layouts; one token covers 16x16 pixels of one latent."""
    centres = torch.from_numpy(np.concatenate([plan.centres for plan in layouts]))
    side = torch.from_numpy(np.concatenate([plan.side for plan in layouts]))
    scans = torch.from_numpy(np.concatenate([plan.scans for plan in layouts])).flatten(1)
    middle = torch.arange(digits.SIZE // PATCH) * PATCH + PATCH / 2
    tokens = torch.stack(torch.meshgrid(middle, middle, indexing="ij")[::-1], -1).reshape(1, 1, -1, 2)
    offsets = (latent_frames(centres, frames_per_latent)[:, :, None] - tokens) / PLACE_UNIT
    sides = ((side - sum(digits.DIGIT_PIXELS) / 2) / PLACE_UNIT)[:, None, None, None].expand(*offsets.shape[:3], 1)
    return Lesson(places=torch.cat([offsets, sides], -1).flatten(1, 2), scans=(scans - scans.mean(0)) / SCAN_SPREAD)


def latent_frames(centres: Tensor, count: int = 4) -> Tensor:
    """Mean over the ``count`` frames that share a latent, the first frame by itself: (n, 17, 2) -> (n, 5, 2)."""
    return torch.cat([centres[:, :1], centres[:, 1:].unflatten(1, (-1, count)).mean(2)], 1)


class Tutor(nn.Module):
    """Reads the lesson off the tokens of one block.

    Args:
        block: It is listened to and must not be compiled; of several outputs the first are the tokens.
        width: Channels of the tokens.
    """

    def __init__(self, block: nn.Module, width: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 3 + 64))
        self.heard: Tensor | None = None
        block.register_forward_hook(self._listen)

    def loss(self, lesson: Lesson, noise_level: Tensor) -> Tensor:
        """Mean squared error over all tokens; the place counts less in noisy videos.

        The scan counts the same however noisy the video is: where nothing can be seen the caption has to be read.

        Args:
            lesson: Of the videos that the transformer has just seen.
            noise_level: (n,), 0 clean to 1 noise.
        """
        assert self.heard is not None
        places, scans = self.head(self.heard).flatten(1, -2).float().split((3, 64), -1)
        place = (places - lesson.places).square().mean((1, 2))
        scan = (scans - lesson.scans[:, None]).square().mean((1, 2))
        error: Tensor = ((1 - noise_level) * place + scan).mean()
        return error

    def _listen(self, _block: nn.Module, _arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
        self.heard = output if isinstance(output, Tensor) else output[0]


def listening_block(transformer: STDiT3) -> int:
    """Index of the temporal block in the middle."""
    return len(transformer.temporal_blocks) // 2 - 1
