"""Trains the video autoencoder of ``open-sora-tiny``: spatial half on frames, temporal half on latents, then both.

``stage``, ``rows_of`` and ``pixel_loss`` serve the other autoencoders too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from stg_tune.embedded import digits
from stg_tune.embedded.checkpoints import Loop, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from stg_tune.models.open_sora.vae import OpenSoraVAE

SPATIAL = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [16, 32, 48, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": digits.SIZE,
}
"""Constructor arguments of diffusers' ``AutoencoderKL``: the real 8x8 compression to 4 channels, narrow."""
TEMPORAL = {
    "in_out_channels": 4,
    "latent_embed_dim": 4,
    "embed_dim": 4,
    "filters": 32,
    "num_res_blocks": 1,
    "channel_multipliers": [1, 1, 2, 2],
    "temporal_downsample": [True, True, False],
    "num_groups": 8,
}
"""Constructor arguments of the temporal half: the real 4x compression in time."""
KL_WEIGHT = 1e-4
POOL = 1500
"""Videos rendered for a sitting; every sitting renders others."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Length of the three stages."""

    spatial: int = 2_100
    """The spatial half, 20 single frames a step."""
    temporal: int = 1_900
    """The temporal half, spatial latents of 16 whole videos a step."""
    joint: int = 150
    """Both halves, 2 whole videos a step."""


def train_vae(folder: Path, steps: Steps) -> OpenSoraVAE:
    """Train (or go on with) the autoencoder; ``folder`` holds one checkpoint a stage."""
    torch.manual_seed(0)
    vae = _build()
    _spatial_stage(vae, folder / "vae_spatial.ckpt.pt", steps.spatial)
    _temporal_stage(vae, folder / "vae_temporal.ckpt.pt", steps.temporal)
    _joint_stage(vae, folder / "vae_joint.ckpt.pt", steps.joint)
    _normalise(vae)
    vae.eval()
    return vae


def _build() -> OpenSoraVAE:
    from stg_tune.models.open_sora.vae import OpenSoraVAE

    vae: OpenSoraVAE = OpenSoraVAE(
        vae_2d=SPATIAL, vae_temporal=TEMPORAL, shift=[0.0] * 4, scale=[1.0] * 4, micro_batch_size=None
    )
    vae.spatial_vae.to(memory_format=torch.channels_last)
    return vae


def _spatial_stage(vae: OpenSoraVAE, path: Path, steps: int) -> None:
    module = vae.spatial_vae.module

    def loss_of(frames: Tensor) -> tuple[Tensor, Tensor]:
        posterior = module.encode(frames.contiguous(memory_format=torch.channels_last)).latent_dist
        restored = module.decode(posterior.sample()).sample
        return pixel_loss(restored, frames), posterior.kl().sum() / posterior.mean.numel()

    def batches(seed: int) -> Iterator[Tensor]:
        frames = digits.render(POOL, "train", seed=1000 + seed).frames[:, ::4].reshape(-1, 64, 64, 3)
        for rows in rows_of(len(frames), 20, seed):
            yield to_pixels(frames[rows])

    stage(module, path, steps, batches, loss_of, peak=2e-3)


def _temporal_stage(vae: OpenSoraVAE, path: Path, steps: int) -> None:
    def loss_of(latents: Tensor) -> tuple[Tensor, Tensor]:
        posterior = vae.temporal_vae.encode(latents)
        restored = vae.temporal_vae.decode(posterior.sample(), latents.shape[2])
        error = (restored.float() - latents).square().mean() / latents.var()
        return error, posterior.kl().sum() / posterior.mean.numel()

    def batches(seed: int) -> Iterator[Tensor]:
        latents = _spatial_latents(vae, seed)
        for rows in rows_of(len(latents), 16, seed):
            yield latents[rows]

    stage(vae.temporal_vae, path, steps, batches, loss_of, peak=2e-3)


def _joint_stage(vae: OpenSoraVAE, path: Path, steps: int) -> None:
    def loss_of(videos: Tensor) -> tuple[Tensor, Tensor]:
        posterior = vae.encode_moments(videos)
        restored = vae.spatial_decode(vae.temporal_vae.decode(posterior.sample(), videos.shape[2]))
        return pixel_loss(restored, videos), posterior.kl().sum() / posterior.mean.numel()

    def batches(seed: int) -> Iterator[Tensor]:
        frames = digits.render(POOL, "train", seed=3000 + seed).frames
        for rows in rows_of(len(frames), 2, seed):
            yield to_pixels(frames[rows]).transpose(1, 2)

    stage(vae, path, steps, batches, loss_of, peak=1e-4)


@torch.no_grad()
def _spatial_latents(vae: OpenSoraVAE, seed: int) -> Tensor:
    frames = digits.render(POOL, "train", seed=2000 + seed).frames
    with torch.autocast("cpu", torch.bfloat16):
        parts = [
            vae.spatial_encode(to_pixels(frames[first : first + 8]).transpose(1, 2), sample_posterior=False)
            for first in range(0, len(frames), 8)
        ]
    return torch.cat(parts).float()


def stage(
    module: nn.Module,
    path: Path,
    steps: int,
    batches: Callable[[int], Iterator[Tensor]],
    loss_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    peak: float,
) -> None:
    """Train (or go on with) a module for some steps.

    Args:
        module: What is trained.
        path: Its checkpoint.
        steps: Steps of the stage, all sittings together.
        batches: Seed -> endless stream of batches.
        loss_of: Batch -> error and divergence of the posterior.
        peak: Greatest learning rate.
    """
    optimiser = torch.optim.AdamW(module.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=1e-4)
    loop = Loop(path=path, state={"module": module, "optimiser": optimiser}, steps=steps)
    loop.resume()
    stream = batches(loop.step)

    def train_step(step: int) -> dict[str, float]:
        for group in optimiser.param_groups:
            group["lr"] = loop.learning_rate(peak=peak)
        with torch.autocast("cpu", torch.bfloat16):
            error, divergence = loss_of(next(stream))
        optimiser.zero_grad(set_to_none=True)
        (error + KL_WEIGHT * divergence).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        return {"error": error.item(), "kl": divergence.item()}

    loop.run(train_step)


def rows_of(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Endless random rows (size,) of ``count``."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(count, (size,), generator=generator)


def pixel_loss(restored: Tensor, pixels: Tensor) -> Tensor:
    """Mean absolute error plus twice the mean squared error, of pixels in [-1, 1]."""
    restored = restored.float()
    return functional.l1_loss(restored, pixels) + 2 * functional.mse_loss(restored, pixels)


@torch.no_grad()
def _normalise(vae: OpenSoraVAE) -> None:
    """Set shift and scale so that every latent channel has mean 0 and standard deviation 1."""
    frames = digits.render(200, "train", seed=5000).frames
    parts = [
        vae.encode(to_pixels(frames[i : i + 10]).transpose(1, 2), sample_posterior=False) for i in range(0, 200, 10)
    ]
    latents = torch.cat(parts) * vae.scale + vae.shift
    shift, scale = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    vae.shift.copy_(shift.view_as(vae.shift))
    vae.scale.copy_(scale.view_as(vae.scale))
    vae.register_to_config(shift=shift.tolist(), scale=scale.tolist())
