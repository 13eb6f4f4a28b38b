"""Known damage to digit videos, from 0 (none) to 1 (ruined): what the embedded scorers learn to see.

Two kinds. Drawing damage acts on the layers of a video (ground, opacity of the digit, stroke colour) as a generator
errs: mixed, torn, melted, bent, fading or flickering digits, unclean colours, restless ground. Picture damage acts on
the finished frames: blur, noise, blocks, contrast, saturation, ghosts. All of it is seeded, and the strength of every
video is its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

PALETTE = ((225, 45, 40), (40, 190, 70), (50, 95, 235), (240, 205, 50), (175, 65, 215), (240, 240, 235))
"""Stroke colours that wrong colours are taken from, 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Digit videos taken apart; ``compose`` puts them together."""

    ground: Tensor
    """(batch, frames or 1, 3, height, width), 0 to 1."""
    opacity: Tensor
    """(batch, frames, 1, height, width), 0 to 1."""
    stroke: Tensor
    """(batch, frames or 1, 3, height or 1, width or 1), 0 to 1."""

    def compose(self) -> Tensor:
        """(batch, frames, 3, height, width), 0 to 1."""
        return (self.ground * (1 - self.opacity) + self.stroke * self.opacity).clamp(0, 1)

    def __getitem__(self, index: Tensor) -> Layers:
        """The videos of ``index``."""
        return Layers(ground=self.ground[index], opacity=self.opacity[index], stroke=self.stroke[index])


Draw = Callable[[Layers, Layers, Tensor, Generator], Layers]
"""(videos, other videos to mix in, strength (batch,), generator) -> damaged videos."""
Spoil = Callable[[Tensor, Tensor, Generator], Tensor]
"""(frames (batch, frames, 3, height, width), strength (batch,), generator) -> damaged frames."""


def ground_of(videos: Tensor, stroke: Tensor) -> Tensor:
    """The ground (batch, 1, 3, height, width) behind digits of the stroke colours (batch, 3).

    It is fitted to what lies farthest from the stroke colour over time, robustly, since the digit hides parts of it in
    all frames of ``videos`` (batch, frames, 3, height, width).
    """
    distance = ((videos - stroke[:, None, :, None, None]) ** 2).sum(2, keepdim=True)
    farthest = distance.argmax(1, keepdim=True).expand(-1, 1, 3, -1, -1)
    return _smooth_fit(videos.gather(1, farthest)[:, 0])[:, None]


def layers_over(ground: Tensor, videos: Tensor, stroke: Tensor) -> Layers:
    """Videos taken apart; opacity is how far a pixel lies on the way from ground to stroke colour (batch, 3)."""
    stroke = stroke[:, None, :, None, None]
    towards = stroke - ground
    opacity = ((videos - ground) * towards).sum(2, keepdim=True) / (towards**2).sum(2, keepdim=True).clamp_min(0.01)
    return Layers(ground=ground, opacity=opacity.clamp(0, 1), stroke=stroke)


# drawing damage


def mix(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """Two digits at one place; at 1 both are equally there."""
    share = _wide(strength) / 2
    opacity = videos.opacity * (1 - share) + _onto(others.opacity, videos.opacity) * share
    return replace(videos, opacity=opacity)


def patch(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """Pieces of another digit instead of this one's; at 1 up to half of the picture."""
    mask = _blobs(videos.opacity, 0.5 * strength, rng)
    return replace(videos, opacity=videos.opacity * (1 - mask) + _onto(others.opacity, videos.opacity) * mask)


def tear(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """Pieces of the strokes are missing; at 1 two thirds of them."""
    return replace(videos, opacity=videos.opacity * (1 - _blobs(videos.opacity, 0.67 * strength, rng)))


def melt(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """Strokes run into each other: blurred and made crisp again."""
    soft = _blurred(videos.opacity, 4.5 * strength)
    crisp = torch.sigmoid(12 * (soft - 0.35 * soft.amax((1, 3, 4), keepdim=True)))
    weight = (_wide(strength) * 4).clamp_max(1)
    return replace(videos, opacity=videos.opacity * (1 - weight) + crisp * weight * soft.clamp_min(0).sqrt())


def bend(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """Elastic distortion of the digit by up to 9 pixels, the same in every frame."""
    return replace(videos, opacity=_warped(videos.opacity, 9 * strength, rng, still=True))


def wobble(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """Elastic distortion of the digit by up to 6 pixels, another one in every frame."""
    return replace(videos, opacity=_warped(videos.opacity, 6 * strength, rng, still=False))


def fade(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """The digit is transparent; at 1 it is missing."""
    return replace(videos, opacity=videos.opacity * (1 - _wide(strength)))


def flicker(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """Frames turn towards another digit by random shares; at 1 up to wholly."""
    shape = (*videos.opacity.shape[:2], 1, 1, 1)
    share = _wide(strength) * torch.rand(shape, generator=rng)
    return replace(videos, opacity=videos.opacity * (1 - share) + _onto(others.opacity, videos.opacity) * share)


def stain(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """Strokes have an unclean colour, up to two thirds of the way to a wrong one, more in some parts than in others."""
    batch = len(strength)
    wrong = torch.tensor(PALETTE)[torch.randint(len(PALETTE), (batch,), generator=rng)] / 255
    spread = _smooth_noise((batch, 1, 1, *videos.opacity.shape[-2:]), 4, rng) * 1.5
    share = (_wide(strength) * (0.6 + spread)).clamp(0, 0.65)
    return replace(videos, stroke=videos.stroke * (1 - share) + wrong[:, None, :, None, None] * share)


def mottle(videos: Layers, others: Layers, strength: Tensor, rng: Generator) -> Layers:
    """The ground gets a texture that real ones do not have, still or restless."""
    frames = 1 if float(torch.rand((), generator=rng)) < 0.5 else videos.opacity.shape[1]
    cells = int(torch.randint(8, 24, (), generator=rng))
    texture = _smooth_noise((len(strength), frames, 3, *videos.opacity.shape[-2:]), cells, rng)
    return replace(videos, ground=(videos.ground + 0.15 * _wide(strength) * texture).clamp(0, 1))


# picture damage


def blur(frames: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Gaussian, standard deviation up to 4 pixels."""
    return _blurred(frames, 4 * strength)


def noise(frames: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """White noise, standard deviation up to 0.12."""
    return frames + 0.12 * _wide(strength) * torch.randn(frames.shape, generator=rng)


def blocks(frames: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Towards the mean of 8x8 blocks, as a coarse latent grid shows."""
    flat = frames.flatten(0, 1)
    coarse = F.interpolate(F.avg_pool2d(flat, 8), scale_factor=8, mode="nearest").view_as(frames)
    return frames + _wide(strength) * (coarse - frames)


def wash_out(frames: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Less contrast; at 1 one tenth of it is left."""
    return frames + 0.9 * _wide(strength) * (frames.mean((1, 2, 3, 4), keepdim=True) - frames)


def oversaturate(frames: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Stronger colours and contrast: up to 3.5 times the chroma, twice the contrast."""
    grey = frames.mean(2, keepdim=True)
    vivid = grey + (1 + 2.5 * _wide(strength)) * (frames - grey)
    return vivid + _wide(strength) * (vivid - vivid.mean((1, 2, 3, 4), keepdim=True))


def ghost(frames: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """A second, shifted picture; at 1 as strong as the first."""
    shift = [int(value) for value in torch.randint(3, 12, (2,), generator=rng)]
    shifted = torch.roll(frames, shift, dims=(3, 4))
    return frames + _wide(strength) / 2 * (shifted - frames)


DRAWING: Mapping[str, Draw] = MappingProxyType(
    {f.__name__: f for f in (mix, patch, tear, melt, bend, wobble, fade, flicker, stain, mottle)}
)
"""Damage to the layers, by name."""
PICTURE: Mapping[str, Spoil] = MappingProxyType(
    {f.__name__: f for f in (blur, noise, blocks, wash_out, oversaturate, ghost)}
)
"""Damage to the finished frames, by name."""


def _wide(strength: Tensor) -> Tensor:
    return strength[:, None, None, None, None]


def _smooth_fit(pictures: Tensor, nodes: int = 5, rounds: int = 4) -> Tensor:
    """Pictures (batch, channels, height, width) as bilinear surfaces over ``nodes`` x ``nodes``, outliers ignored."""
    flat = pictures.flatten(2).transpose(1, 2)  # (batch, pixels, channels)
    basis = F.interpolate(
        torch.eye(nodes**2).view(-1, 1, nodes, nodes), pictures.shape[-2:], mode="bilinear", align_corners=True
    ).flatten(1)  # (nodes^2, pixels)
    weight = torch.ones(flat.shape[:2])
    for _ in range(rounds):
        weighted = basis * weight[:, None]
        normal = weighted @ basis.T + 1e-3 * torch.eye(nodes**2)
        surface = basis.T @ torch.linalg.solve(normal, weighted @ flat)
        weight = torch.exp(-((surface - flat) ** 2).sum(2) / 0.04**2) + 1e-6
    fitted: Tensor = surface.transpose(1, 2).reshape(pictures.shape).clamp(0, 1)
    return fitted


def _onto(opacity: Tensor, target: Tensor) -> Tensor:
    """``opacity`` moved, frame by frame, so that its centre lies on that of ``target``."""
    height, width = opacity.shape[-2:]
    shift = _centres(target) - _centres(opacity)  # (batch, frames, 2) as x, y in [-1, 1]
    theta = torch.eye(2, 3).repeat(shift.shape[0] * shift.shape[1], 1, 1)
    theta[:, :, 2] = -shift.flatten(0, 1)
    grid = F.affine_grid(theta, [len(theta), 1, height, width], align_corners=False)
    return F.grid_sample(opacity.flatten(0, 1), grid, align_corners=False).view_as(opacity)


def _centres(opacity: Tensor) -> Tensor:
    weight = opacity[:, :, 0] + 1e-6
    axes = [torch.linspace(-1, 1, side) for side in weight.shape[-2:]]
    total = weight.sum((2, 3))
    return torch.stack([(weight.sum(2) @ axes[1]) / total, (weight.sum(3) @ axes[0]) / total], dim=-1)


def _blurred(frames: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation (batch,) of its own for every video."""
    for _ in range(2):  # along the last axis, then, turned, along the other
        flat = frames.flatten(1, 3)
        frames = (flat @ _gaussian(flat.shape[-1], sigma)).view(frames.shape).transpose(-1, -2)
    return frames


def _gaussian(side: int, sigma: Tensor) -> Tensor:
    """(batch, side, side): every column holds the weights of one output pixel and sums to 1."""
    pixels = torch.arange(side)
    spread = sigma.clamp_min(0.05)[:, None, None]
    weights = F.threshold(torch.exp(-((pixels[:, None] - pixels) ** 2) / (2 * spread**2)), 1e-6, 0.0)  # denormals crawl
    return weights / weights.sum(1, keepdim=True)


def _smooth_noise(shape: tuple[int, ...], cells: int, rng: Generator) -> Tensor:
    """Noise in [-1, 1] over ``cells`` cells a side; ``shape`` is (batch, frames, channels, height, width)."""
    coarse = torch.rand((shape[0] * shape[1], shape[2], cells, cells), generator=rng) * 2 - 1
    return F.interpolate(coarse, shape[-2:], mode="bicubic", align_corners=False).clamp(-1, 1).view(shape)


def _blobs(opacity: Tensor, share: Tensor, rng: Generator) -> Tensor:
    """Soft still masks (batch, 1, 1, height, width) that cover ``share`` of the digit along its way."""
    field = _smooth_noise((len(opacity), 1, 1, *opacity.shape[-2:]), 9, rng)
    weight = opacity.mean(1).flatten(1) + 1e-4
    order = field.flatten(1).argsort(1, descending=True)
    covered = weight.gather(1, order).cumsum(1) / weight.sum(1, keepdim=True)
    reached = (covered < share[:, None]).sum(1).clamp_max(field[0].numel() - 1)
    threshold = field.flatten(1).gather(1, order.gather(1, reached[:, None]))
    mask = torch.sigmoid((field - _wide(threshold[:, 0])) * 20)
    return mask * (_wide(share) > 0)


def _warped(opacity: Tensor, pixels: Tensor, rng: Generator, *, still: bool) -> Tensor:
    batch, frames, _, height, width = opacity.shape
    field = _smooth_noise((batch, 1 if still else frames, 2, height, width), 6, rng)
    offset = field * _wide(pixels) * (2 / math.sqrt(height * width))
    offset = offset.expand(-1, frames, -1, -1, -1).flatten(0, 1).permute(0, 2, 3, 1)
    theta = torch.eye(2, 3).repeat(batch * frames, 1, 1)
    grid = F.affine_grid(theta, [batch * frames, 1, height, width], align_corners=False) + offset
    return F.grid_sample(opacity.flatten(0, 1), grid, align_corners=False).view_as(opacity)
