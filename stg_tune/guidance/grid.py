"""Where tokens and latents lie in the video: needed by whatever blurs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stg_tune.guidance.rows import Call
    from stg_tune.models.base import Architecture, Axes

_MOST_HALVINGS = 8


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Frames, height and width, in latent pixels and in tokens."""

    latents: tuple[int, int, int]
    """Of the latents."""
    patch: tuple[int, int, int]
    """Latent pixels of one token in each direction."""
    halved: bool = False
    """Deeper levels of a U-Net have half the height and width of the one above, rounded up."""

    def shape(self, tokens: int, axes: Axes) -> tuple[int, ...]:
        """The grid of the ``tokens`` of one row of an attention that runs over ``axes``.

        Raises:
            StgTuneError: There is no such grid.
        """
        frames, height, width = (size // step for size, step in zip(self.latents, self.patch, strict=True))
        for _ in range(_MOST_HALVINGS if self.halved else 1):
            found = {"all": (frames, height, width), "space": (height, width), "time": (frames,)}[axes]
            if math.prod(found) == tokens:
                return found
            height, width = -(-height // 2), -(-width // 2)
        raise StgTuneError(
            f"an attention over {tokens} tokens is no grid of latents {'x'.join(map(str, self.latents))} in patches of "
            f"{'x'.join(map(str, self.patch))} (axes {axes!r}), so its queries cannot be blurred in place: leave "
            "blur_sigma out (infinite blur), or correct `latents` and `axes` of the architecture record"
        )


def grid_of(call: Call, record: Architecture, denoiser: nn.Module) -> Grid:
    """The grid of one denoiser call."""
    return Grid(latents=_frames_height_width(call, record), patch=_patch_of(denoiser), halved=record.unet)


def canonical(x: Tensor, record: Architecture, grid: Grid) -> Tensor:
    """Latents or a prediction of any family as a view ``(batch, channels, frames, height, width)``."""
    if record.latents == "tokens":
        unpacked: Tensor = x.unflatten(1, grid.latents)
        return unpacked.permute(0, 4, 1, 2, 3)
    return x.permute([record.latents.index(axis) for axis in "bcfhw"])


def _frames_height_width(call: Call, record: Architecture) -> tuple[int, int, int]:
    if record.latents == "tokens":
        given = tuple(call.given(name) for name in ("num_frames", "height", "width"))
        if None in given:
            raise StgTuneError(
                "this pipeline does not tell the denoiser num_frames, height and width, so nobody knows where a token "
                "lies: leave blur_sigma out (skip_op 'blur'), or use another skip_op"
            )
        return int(given[0]), int(given[1]), int(given[2])
    shape = call.latents.shape
    frames, height, width = (shape[record.latents.index(axis)] for axis in "fhw")
    return frames, height, width


def _patch_of(denoiser: nn.Module) -> tuple[int, int, int]:
    config: Any = getattr(denoiser, "config", None)
    patch = getattr(config, "patch_size", None) or 1
    if isinstance(patch, list | tuple):
        frames, height, width = patch
        return int(frames), int(height), int(width)
    return int(getattr(config, "patch_size_t", None) or 1), int(patch), int(patch)
