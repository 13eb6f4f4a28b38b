"""What the tests of exactness share: a film, and the answer of one scorer to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from stg_tune.score.default import build

if TYPE_CHECKING:
    from stg_tune.score.parts import Parts


def film(height: int, width: int, frames: int = 4) -> Tensor:
    """uint8 frames (frames, 3, height, width) with sharp detail, so that antialiasing and rounding show."""
    rng = torch.Generator().manual_seed(height)
    coarse = F.interpolate(torch.rand(frames, 3, 9, 9, generator=rng), (height, width), mode="nearest")
    fine = torch.rand(frames, 3, height, width, generator=rng)
    return ((0.6 * coarse + 0.4 * fine) * 255).round().to(torch.uint8)


def ask(name: str, parts: Parts, levels: Tensor, prompt: str = "a ball") -> float:
    (row,) = build([name], parts)(levels[None].float() / 255, [prompt])
    value = row[name].value
    assert value is not None, row[name].reason
    return value
