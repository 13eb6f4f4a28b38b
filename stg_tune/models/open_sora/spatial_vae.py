"""The spatial half of Open-Sora 1.2's autoencoder: an image autoencoder applied frame by frame.

Source: ``VideoAutoencoderKL`` of https://github.com/hpcaitech/Open-Sora (v1.2.0).
Shapes: B batch, C latent channels, F frames, H/W pixels, h/w = H/8, W/8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping


class SpatialVAE(nn.Module):
    """A diffusers ``AutoencoderKL`` applied to every frame, a few frames at a time.

    Args:
        settings: Constructor arguments of ``AutoencoderKL``.
        scaling: Factor on the latents; Open-Sora uses 0.18215 whatever the autoencoder's own config says.
        micro_batch_size: Frames per call; ``None``: all at once.
    """

    def __init__(self, settings: Mapping[str, Any], *, scaling: float, micro_batch_size: int | None) -> None:
        super().__init__()
        self.module = AutoencoderKL.from_config(dict(settings))
        self.scaling = scaling
        self.micro_batch_size = micro_batch_size

    @property
    def compression(self) -> int:
        """Pixels per latent along height and along width."""
        return 1 << (len(self.module.config.block_out_channels) - 1)

    @property
    def in_channels(self) -> int:
        """Channels of a frame (3)."""
        channels: int = self.module.config.in_channels
        return channels

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        channels: int = self.module.config.latent_channels
        return channels

    def enable_tiling(self, tile_size: int | None = None) -> None:
        """Encodes and decodes frames larger than ``tile_size`` pixels (``None``: ``sample_size``) in blended tiles.

        Raises:
            StgTuneError: ``tile_size`` is no multiple of four latents, so that the overlap of a quarter is not whole.
        """
        size = int(self.module.tile_latent_min_size) * self.compression if tile_size is None else tile_size
        step = 4 * self.compression
        if size < 1 or size % step:
            raise StgTuneError(
                f"tile_size={size} is no positive multiple of {step} pixels (four latents, so that tiles overlap by "
                f"whole ones). Choose e.g. {8 * step}."
            )
        self.module.tile_sample_min_size = size
        self.module.tile_latent_min_size = size // self.compression
        self.module.enable_tiling()

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None, sample_posterior: bool = True) -> Tensor:
        """Frames (B, 3, F, H, W) in [-1, 1] -> scaled latents (B, C, F, h, w), drawn or the posterior's mode."""

        def encode(frames: Tensor) -> Tensor:
            posterior = self.module.encode(frames).latent_dist
            latents: Tensor = posterior.sample(generator) if sample_posterior else posterior.mode()
            return latents * self.scaling

        if self.module.use_tiling:  # a last tile of less than one latent would be empty
            x = x[..., : _whole(x.shape[-2], self.compression), : _whole(x.shape[-1], self.compression)]
        return _to_video(torch.cat([encode(frames) for frames in self._micro_batches(x)]), batch=x.shape[0])

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents (B, C, F, h, w) -> frames (B, 3, F, H, W), about [-1, 1]."""
        frames = [self.module.decode(latents / self.scaling).sample for latents in self._micro_batches(z)]
        return _to_video(torch.cat(frames), batch=z.shape[0])

    def _micro_batches(self, x: Tensor) -> tuple[Tensor, ...]:
        frames = x.transpose(1, 2).flatten(0, 1)  # (B F) C H W
        return torch.split(frames, self.micro_batch_size or len(frames))


def _to_video(frames: Tensor, *, batch: int) -> Tensor:
    """(B F, C, H, W) -> (B, C, F, H, W)."""
    return torch.unflatten(frames, 0, (batch, -1)).transpose(1, 2)


def _whole(pixels: int, compression: int) -> int:
    return pixels - pixels % compression
