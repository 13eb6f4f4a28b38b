"""Videos decoded from damaged latents: a latent video model errs in latent space, and this is how that looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from stg_tune.embedded.digits import NUM_FRAMES
from stg_tune.embedded.scorers_data import TIMES, Clean, Sample, described

if TYPE_CHECKING:
    from stg_tune.models.open_sora.vae import OpenSoraVAE

CLEAN_SHARE = 0.25
"""Share of the latents that are decoded as they are."""

Damage = Callable[[Tensor, Tensor, Tensor, Generator], Tensor]
"""(latents (batch, 4, T, h, w) of unit spread, other latents, strength (batch, 1, 1, 1, 1), generator) -> damaged."""


def stir(z: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """White noise, standard deviation up to 0.9."""
    return z + 0.9 * strength * torch.randn(z.shape, generator=rng)


def tilt(z: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """The same noise in all frames, standard deviation up to 0.9."""
    return z + 0.9 * strength * torch.randn((*z.shape[:2], 1, *z.shape[3:]), generator=rng)


def average(z: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Between two videos; at 1 half-way."""
    return z + strength / 2 * (others - z)


def splice(z: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Cells of another video; at 1 half of them."""
    mask = torch.rand((len(z), 1, 1, *z.shape[3:]), generator=rng) < strength / 2
    return torch.where(mask, others, z)


def inflate(z: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Too strong, as under too much guidance: up to 2.2 times."""
    return z * (1 + 1.2 * strength)


def shrink(z: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Too weak: down to 0.2 times."""
    return z * (1 - 0.8 * strength)


def smear(z: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Towards the mean of 3x3 cells."""
    flat = z.transpose(1, 2).flatten(0, 1)
    soft = F.avg_pool2d(flat, 3, stride=1, padding=1, count_include_pad=False)
    return z + strength * (soft.view(z.transpose(1, 2).shape).transpose(1, 2) - z)


def jumble(z: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Cells swapped with a neighbour; at 1 half of them."""
    moved = torch.roll(z, (1, 0) if float(torch.rand((), generator=rng)) < 0.5 else (0, 1), dims=(3, 4))
    mask = torch.rand((len(z), 1, 1, *z.shape[3:]), generator=rng) < strength / 2
    return torch.where(mask, moved, z)


LATENT: Mapping[str, Damage] = MappingProxyType(
    {f.__name__: f for f in (stir, tilt, average, splice, inflate, shrink, smear, jumble)}
)
"""Damage to latents, by name."""


@torch.inference_mode()
def decode_damaged(vae: OpenSoraVAE, clean: Clean, n: int, seed: int, *, copies: int = 2, batch: int = 8) -> Sample:
    """Encode the first ``n`` videos of ``clean``, damage the latents of each in ``copies`` ways, decode.

    Args:
        vae: autoencoder of the embedded model, in eval mode.
        clean: renders.
        n: how many videos.
        seed: of kinds, strengths and noise.
        copies: damaged versions of a video.
        batch: videos at a time.
    """
    rng = torch.Generator().manual_seed(seed)
    latents = torch.cat([_encode(vae, frames) for frames in torch.split(clean.frames[:n], batch)])
    others = latents[_partners(clean.colour[:n], rng)]
    before = _decode(vae, latents, batch)
    versions = [_damaged(latents, others, rng) for _ in range(copies)]
    return described(
        torch.cat([_decode(vae, damaged, batch) for damaged, _ in versions]),
        before.repeat(copies, 1, 1, 1, 1),
        torch.cat([strength for _, strength in versions]),
        clean.captions[:n] * copies,
        ["latent"] * n * copies,
    )


def _damaged(latents: Tensor, others: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """One damaged version of every latent, and how strong the damage is."""
    n = len(latents)
    strength = torch.rand(n, generator=rng) * (torch.rand(n, generator=rng) > CLEAN_SHARE)
    kinds = torch.randint(len(LATENT), (n,), generator=rng)
    damaged = latents.clone()
    for i, damage in enumerate(LATENT.values()):
        members = torch.nonzero(kinds == i)[:, 0]
        wide = strength[members].view(-1, 1, 1, 1, 1)
        damaged[members] = damage(latents[members], others[members], wide, rng)
    return damaged, strength


def _encode(vae: OpenSoraVAE, frames: Tensor) -> Tensor:
    pixels = (frames.float() / 127.5 - 1).transpose(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        return vae.encode(pixels, sample_posterior=False).float()


def _decode(vae: OpenSoraVAE, latents: Tensor, batch: int) -> Tensor:
    """The frames ``TIMES`` of every video, uint8; the image half is not asked for the others."""
    parts = []
    for z in torch.split(latents, batch):
        with torch.autocast("cpu", torch.bfloat16):
            images = vae.temporal_vae.decode(z * vae.scale + vae.shift, num_frames=NUM_FRAMES)[:, :, list(TIMES)]
            pixels = vae.spatial_decode(images).float()
        parts.append(((pixels.transpose(1, 2) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)


def _partners(colour: Tensor, rng: Generator) -> Tensor:
    """For every video another one; for every second video, one of its colour if there is, which is harder to see."""
    partners = []
    for i in range(len(colour)):
        allowed = torch.arange(len(colour)) != i
        same = allowed & (colour == colour[i])
        pool = torch.nonzero(same if i % 2 and bool(same.any()) else allowed)[:, 0]
        partners.append(pool[torch.randint(len(pool), (), generator=rng)])
    return torch.stack(partners)
