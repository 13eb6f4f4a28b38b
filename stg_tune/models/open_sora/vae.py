"""Open-Sora 1.2's video autoencoder: an image autoencoder frame by frame, then a temporal one in chunks of 17 frames.

Source: ``VideoAutoencoderPipeline`` of https://github.com/hpcaitech/Open-Sora (v1.2.0);
the names in its checkpoints are kept.
Shapes: B batch, F frames, T latent frames, H/W pixels, h/w = H/8, W/8.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.spatial_vae import SpatialVAE
from stg_tune.models.open_sora.temporal_vae import Gaussian, TemporalVAE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class OpenSoraVAE(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Open-Sora 1.2's autoencoder: (B, 3, F, H, W) in [-1, 1] <-> normalised latents (B, 4, T, H/8, W/8).

    Every 17 frames (``micro_frame_size``) become 5 latent frames on their own, so any length fits in memory.
    Not for float16: the SDXL image autoencoder overflows there; float32 and bfloat16 work.

    Args:
        vae_2d: Constructor arguments of diffusers' ``AutoencoderKL``.
        vae_temporal: Constructor arguments of ``TemporalVAE``; left out: Open-Sora 1.2's.
        micro_frame_size: Frames the temporal autoencoder sees at once; ``None``: the whole video.
        micro_batch_size: Frames the image autoencoder sees at once; ``None``: all.
        shift: Mean of every latent channel, subtracted by ``encode``.
        scale: Spread of every latent channel, divided out by ``encode``.
        spatial_scaling: Factor on the image autoencoder's latents.

    Raises:
        StgTuneError: The settings contradict each other.
    """

    config_name = "config.json"
    scale: Tensor
    shift: Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        vae_2d: Mapping[str, Any],
        vae_temporal: Mapping[str, Any] | None = None,
        micro_frame_size: int | None = 17,
        micro_batch_size: int | None = 4,
        shift: Sequence[float] = (-0.10, 0.34, 0.27, 0.98),
        scale: Sequence[float] = (3.85, 2.32, 2.33, 3.06),
        spatial_scaling: float = 0.18215,
    ) -> None:
        super().__init__()
        self.spatial_vae = SpatialVAE(vae_2d, scaling=spatial_scaling, micro_batch_size=None)
        self.temporal_vae = _temporal_vae(vae_temporal or {})
        _check_channels(self.spatial_vae, self.temporal_vae, shift, scale)
        self.register_buffer("scale", torch.tensor(scale).view(1, -1, 1, 1, 1))
        self.register_buffer("shift", torch.tensor(shift).view(1, -1, 1, 1, 1))
        self.micro_frame_size = micro_frame_size
        self.micro_batch_size = micro_batch_size
        self.use_slicing = False

    def __getattr__(self, name: str) -> Any:
        """Looks in the module only: diffusers' fall-back to the config would find ``scale`` before it is registered."""
        return nn.Module.__getattr__(self, name)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.temporal_vae.latent_channels

    @property
    def out_channels(self) -> int:
        """Channels of the latents, under the name Open-Sora gives them."""
        return self.latent_channels

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent along height and along width (8)."""
        return self.spatial_vae.compression

    @property
    def temporal_compression(self) -> int:
        """Frames per latent frame (4)."""
        return self.temporal_vae.time_compression

    @property
    def micro_frame_size(self) -> int | None:
        """Frames the temporal autoencoder sees at once; ``None``: the whole video. Changes the latents' length."""
        return self._micro_frame_size

    @micro_frame_size.setter
    def micro_frame_size(self, frames: int | None) -> None:
        self._micro_frame_size = _positive("micro_frame_size", frames)

    @property
    def micro_batch_size(self) -> int | None:
        """Frames the image autoencoder sees at once; ``None``: all. Only memory and time depend on it."""
        return self.spatial_vae.micro_batch_size

    @micro_batch_size.setter
    def micro_batch_size(self, frames: int | None) -> None:
        self.spatial_vae.micro_batch_size = _positive("micro_batch_size", frames)

    def get_latent_size(self, input_size: Sequence[int]) -> tuple[int, int, int]:
        """(frames, height, width) in pixels -> (T, h, w); rows and columns that fill no latent are dropped."""
        frames, height, width = input_size
        latent_frames = sum(map(self.temporal_vae.latent_frames, self._chunks(frames)))
        return latent_frames, height // self.spatial_compression, width // self.spatial_compression

    def enable_slicing(self) -> None:
        """Encodes and decodes one sample of the batch at a time, which needs less memory."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        """Encodes and decodes the whole batch at once."""
        self.use_slicing = False

    def enable_tiling(self, tile_size: int | None = None) -> None:
        """Runs the image autoencoder on overlapping tiles of frames larger than a tile.

        Args:
            tile_size: Side of a tile in pixels, a multiple of 32; ``None``: the image autoencoder's ``sample_size``.

        Raises:
            StgTuneError: ``tile_size`` is no multiple of four latents (32 pixels).
        """
        self.spatial_vae.enable_tiling(tile_size)

    def disable_tiling(self) -> None:
        """Runs the image autoencoder on whole frames."""
        self.spatial_vae.module.disable_tiling()

    def spatial_encode(
        self, x: Tensor, generator: torch.Generator | None = None, sample_posterior: bool = True
    ) -> Tensor:
        """Frames (B, 3, F, H, W) in [-1, 1] -> scaled image latents (B, C, F, h, w)."""
        _check_video(x, channels=self.spatial_vae.in_channels, smallest=self.spatial_compression)
        return self.spatial_vae.encode(x.to(self.dtype), generator=generator, sample_posterior=sample_posterior)

    def spatial_decode(self, x: Tensor) -> Tensor:
        """Scaled image latents (B, C, F, h, w) -> frames (B, 3, F, H, W), about [-1, 1]."""
        return self.spatial_vae.decode(x.to(self.dtype))

    def encode_moments(
        self, x: Tensor, generator: torch.Generator | None = None, sample_posterior: bool = True
    ) -> Gaussian:
        """Frames (B, 3, F, H, W) in [-1, 1] -> posterior over latents (B, 4, T, h, w) before shift and scale.

        ``sample_posterior`` and ``generator`` concern the image latents in between.
        """
        return Gaussian(torch.cat(self._moments(self.spatial_encode(x, generator, sample_posterior)), 2))

    def encode(self, x: Tensor, generator: torch.Generator | None = None, sample_posterior: bool = True) -> Tensor:
        """Frames (B, 3, F, H, W) in [-1, 1] -> normalised latents (B, 4, T, h, w).

        Args:
            x: Frames; cast to the model's dtype.
            generator: Source of the draws; ``None``: torch's global one. Draws come image micro-batch by micro-batch,
                then chunk by chunk, so with slicing a batch draws other noise than without.
            sample_posterior: Draw from both posteriors (as Open-Sora does); ``False``: their modes.

        Raises:
            StgTuneError: x has another shape.
        """
        samples = torch.split(x, 1) if self.use_slicing else (x,)
        return torch.cat([self._encode(sample, generator, sample_posterior) for sample in samples])

    def decode(self, z: Tensor, num_frames: int) -> Tensor:
        """Normalised latents (B, 4, T, h, w) -> frames (B, 3, num_frames, H, W), about [-1, 1].

        Raises:
            StgTuneError: z has another shape, or T is not what ``num_frames`` frames are encoded to.
        """
        _check_video(z, channels=self.latent_channels, smallest=1)
        latent_frames = self.get_latent_size((num_frames, 0, 0))[0]
        if num_frames < 1 or latent_frames != z.shape[2]:
            raise StgTuneError(
                f"z has {z.shape[2]} latent frames but num_frames={num_frames} needs {latent_frames} "
                f"(micro_frame_size={self.micro_frame_size}). Pass the num_frames the latents were made for."
            )
        samples = torch.split(z, 1) if self.use_slicing else (z,)
        return torch.cat([self._decode(sample, num_frames) for sample in samples])

    def forward(self, x: Tensor, generator: torch.Generator | None = None, sample_posterior: bool = True) -> Tensor:
        """Frames (B, 3, F, H, W) in [-1, 1] -> their reconstruction (B, 3, F, H, W)."""
        return self.decode(self.encode(x, generator, sample_posterior), x.shape[2])

    def _encode(self, x: Tensor, generator: torch.Generator | None, sample_posterior: bool) -> Tensor:
        posteriors = map(Gaussian, self._moments(self.spatial_encode(x, generator, sample_posterior)))
        z = torch.cat([p.sample(generator) if sample_posterior else p.mode() for p in posteriors], 2)
        return (z - self.shift.to(z.dtype)) / self.scale.to(z.dtype)

    def _decode(self, z: Tensor, num_frames: int) -> Tensor:
        z = z.to(self.dtype)
        z = z * self.scale.to(z.dtype) + self.shift.to(z.dtype)
        chunks = self._chunks(num_frames)
        latents = torch.split(z, [self.temporal_vae.latent_frames(frames) for frames in chunks], 2)
        decoded = [self.temporal_vae.decode(part, frames) for part, frames in zip(latents, chunks, strict=True)]
        return self.spatial_decode(torch.cat(decoded, 2))

    def _moments(self, x: Tensor) -> list[Tensor]:
        return [self.temporal_vae.moments(chunk) for chunk in torch.split(x, self._chunks(x.shape[2]), 2)]

    def _chunks(self, num_frames: int) -> list[int]:
        """Frames of every chunk the temporal autoencoder sees, the last one possibly shorter."""
        size = self.micro_frame_size or num_frames
        return [min(size, num_frames - first) for first in range(0, num_frames, size)] if num_frames > 0 else []


def _temporal_vae(settings: Mapping[str, Any]) -> TemporalVAE:
    known = inspect.signature(TemporalVAE).parameters
    if unknown := sorted(set(settings) - set(known)):
        raise StgTuneError(f"Unknown settings of vae_temporal: {', '.join(unknown)}. Known: {', '.join(known)}.")
    return TemporalVAE(**settings)


def _check_channels(spatial: SpatialVAE, temporal: TemporalVAE, shift: Sequence[float], scale: Sequence[float]) -> None:
    if spatial.latent_channels != temporal.in_channels:
        raise StgTuneError(
            f"vae_2d's latent_channels={spatial.latent_channels} and vae_temporal's "
            f"in_out_channels={temporal.in_channels} differ; the second must equal the first."
        )
    if not len(shift) == len(scale) == temporal.latent_channels:
        raise StgTuneError(
            f"shift has {len(shift)} and scale {len(scale)} values; both need {temporal.latent_channels}, "
            "one for every latent channel (embed_dim of vae_temporal)."
        )
    if 0 in (spatial.scaling, *scale):
        raise StgTuneError(
            f"spatial_scaling={spatial.scaling} and scale={list(scale)} are divided by and may not be 0. "
            "Open-Sora 1.2 uses 0.18215 and [3.85, 2.32, 2.33, 3.06]."
        )


def _check_video(x: Tensor, *, channels: int, smallest: int) -> None:
    if x.ndim != 5 or x.shape[1] != channels or min(x.shape[2:]) < 1 or min(x.shape[3:]) < smallest:
        raise StgTuneError(
            f"A tensor of shape {tuple(x.shape)} was given to the video autoencoder; it takes (batch, {channels}, "
            f"frames, height, width), height and width at least {smallest}."
        )


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise StgTuneError(
            f"{name}={value} is not allowed. Give a number of frames from 1 up, or None for all at once."
        )
    return value
