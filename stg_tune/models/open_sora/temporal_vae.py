"""The temporal half of Open-Sora 1.2's autoencoder: causal 3D convolutions that shorten time four times.

Source: ``VAE_Temporal`` of https://github.com/hpcaitech/Open-Sora (v1.2.0), after MAGVIT-v2 (arXiv:2310.05737).
Shapes: B batch, C channels, F frames, T latent frames, H/W height and width of the spatial latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import starmap, zip_longest
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ACTIVATIONS: dict[str, type[nn.Module]] = {"swish": nn.SiLU, "relu": nn.ReLU}


class Gaussian:
    """A diagonal normal distribution over latents, from moments (B, 2C, ...): mean first, then log-variance."""

    def __init__(self, moments: Tensor) -> None:
        self.mean, logvar = moments.chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)

    @property
    def std(self) -> Tensor:
        """Standard deviation, the shape of ``mean``."""
        return torch.exp(0.5 * self.logvar)

    def mode(self) -> Tensor:
        """The most likely latents, (B, C, ...)."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (B, C, ...), differentiable in the moments; without ``generator`` from torch's global one."""
        noise = randn_tensor(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        drawn: Tensor = self.mean + self.std * noise
        return drawn

    def kl(self) -> Tensor:
        """Kullback-Leibler divergence to the standard normal in nats, (B,), summed over everything but the batch."""
        per_element = 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar)
        return per_element.flatten(1).sum(1)


class CausalConv3d(nn.Module):
    """3D convolution whose output frame sees no later input frame; keeps H and W, divides F by ``time_stride``."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, time_stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.front = kernel - time_stride
        side = kernel // 2
        self.conv = nn.Conv3d(
            in_channels, out_channels, kernel, stride=(time_stride, 1, 1), padding=(0, side, side), bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, out_channels, F / time_stride, H, W)."""
        out: Tensor = self.conv(pad_front(x, self.front))
        return out


class ResBlock(nn.Module):
    """Two normalised causal convolutions around a shortcut (1x1x1 when the channels change)."""

    def __init__(self, in_channels: int, out_channels: int, *, num_groups: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, 3, bias=False)
        self.norm2 = nn.GroupNorm(num_groups, out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, 3, bias=False)
        self.activation = activation()
        if in_channels != out_channels:
            self.conv3 = CausalConv3d(in_channels, out_channels, 1, bias=False)
        self.changes_channels = in_channels != out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, out_channels, F, H, W)."""
        h = self.conv1(self.activation(self.norm1(x)))
        h = self.conv2(self.activation(self.norm2(h)))
        out: Tensor = h + (self.conv3(x) if self.changes_channels else x)
        return out


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What encoder and decoder share: stage i has ``widths[i]`` channels."""

    widths: tuple[int, ...]
    """Channels."""
    downsample: tuple[bool, ...]
    """For every stage but the last, whether time is halved behind it."""
    num_res_blocks: int
    """Residual blocks in a stage, 1 or more."""
    num_groups: int
    """Groups of the group norms; divides every width."""
    activation: type[nn.Module]
    """Class of the activation."""

    def blocks(self, in_channels: int, width: int) -> nn.Sequential:
        """The residual blocks of one stage."""
        inputs = (in_channels, *[width] * (self.num_res_blocks - 1))
        return nn.Sequential(
            *[ResBlock(channels, width, num_groups=self.num_groups, activation=self.activation) for channels in inputs]
        )


class Encoder(nn.Module):
    """Spatial latents (B, in_channels, F, H, W) -> (B, out_channels, T, H, W); F must divide evenly."""

    def __init__(self, in_channels: int, out_channels: int, stages: Stages) -> None:
        super().__init__()
        widths = stages.widths
        self.conv_in = CausalConv3d(in_channels, widths[0], 3, bias=False)
        inputs = (widths[0], *widths[:-1])
        self.block_res_blocks = nn.ModuleList(starmap(stages.blocks, zip(inputs, widths, strict=True)))
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, width, 3, time_stride=2) if halve else nn.Identity()
            for width, halve in zip(widths, stages.downsample, strict=False)
        )
        self.res_blocks = stages.blocks(widths[-1], widths[-1])
        self.norm1 = nn.GroupNorm(stages.num_groups, widths[-1])
        self.activation = stages.activation()
        self.conv2 = CausalConv3d(widths[-1], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, F, H, W) -> (B, out_channels, T, H, W)."""
        x = self.conv_in(x)
        for blocks, shorten in zip_longest(self.block_res_blocks, self.conv_blocks):
            x = blocks(x)
            x = x if shorten is None else shorten(x)
        x = self.res_blocks(x)
        out: Tensor = self.conv2(self.activation(self.norm1(x)))
        return out


class Decoder(nn.Module):
    """Latents (B, in_channels, T, H, W) -> spatial latents (B, out_channels, F, H, W), stages in reverse order."""

    def __init__(self, in_channels: int, out_channels: int, stages: Stages) -> None:
        super().__init__()
        widths = stages.widths
        self.conv1 = CausalConv3d(in_channels, widths[-1], 3)
        self.res_blocks = stages.blocks(widths[-1], widths[-1])
        inputs = (*widths[1:], widths[-1])
        self.block_res_blocks = nn.ModuleList(starmap(stages.blocks, zip(inputs, widths, strict=True)))
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, 2 * width, 3) if double else nn.Identity()
            for width, double in zip(widths[1:], stages.downsample, strict=True)
        )
        self.doubles = stages.downsample
        self.norm1 = nn.GroupNorm(stages.num_groups, widths[0])
        self.activation = stages.activation()
        self.conv_out = CausalConv3d(widths[0], out_channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) -> (B, out_channels, F, H, W), F = T times the time compression."""
        x = self.res_blocks(self.conv1(z))
        for stage in reversed(range(len(self.block_res_blocks))):
            x = self.block_res_blocks[stage](x)
            if stage > 0 and self.doubles[stage - 1]:
                x = _channels_to_time(self.conv_blocks[stage - 1](x))
        out: Tensor = self.conv_out(self.activation(self.norm1(x)))
        return out


class TemporalVAE(nn.Module):
    """Variational autoencoder over time: F frames of spatial latents <-> ceil(F / 4) latent frames.

    Frames are padded with zeros at the *front* to a multiple of ``time_compression``; decoding drops them again.
    The defaults are Open-Sora 1.2's.

    Args:
        in_out_channels: Channels of the spatial latents.
        latent_embed_dim: Channels between the encoder or decoder and its 1x1x1 quantisation convolution.
        embed_dim: Channels of the latents.
        filters: Width of the first stage.
        num_res_blocks: Residual blocks in each stage.
        channel_multipliers: Width of every stage, in units of ``filters``.
        temporal_downsample: For every stage but the last, whether time is halved behind it.
        num_groups: Groups of the group norms; divides every width.
        activation_fn: ``swish`` or ``relu``.

    Raises:
        StgTuneError: The settings contradict each other.
    """

    def __init__(
        self,
        *,
        in_out_channels: int = 4,
        latent_embed_dim: int = 4,
        embed_dim: int = 4,
        filters: int = 128,
        num_res_blocks: int = 4,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        temporal_downsample: Sequence[bool] = (False, True, True),
        num_groups: int = 32,
        activation_fn: str = "swish",
    ) -> None:
        super().__init__()
        widths = tuple(filters * multiplier for multiplier in channel_multipliers)
        downsample = tuple(temporal_downsample)
        _check(widths, downsample, num_res_blocks, num_groups, activation_fn)
        stages = Stages(
            widths=widths,
            downsample=downsample,
            num_res_blocks=num_res_blocks,
            num_groups=num_groups,
            activation=_ACTIVATIONS[activation_fn],
        )
        self.in_channels = in_out_channels
        self.latent_channels = embed_dim
        self.time_compression = 1 << sum(downsample)
        self.encoder = Encoder(in_out_channels, 2 * latent_embed_dim, stages)
        self.quant_conv = CausalConv3d(2 * latent_embed_dim, 2 * embed_dim, 1)
        self.post_quant_conv = CausalConv3d(embed_dim, latent_embed_dim, 1)
        self.decoder = Decoder(latent_embed_dim, in_out_channels, stages)

    def latent_frames(self, num_frames: int) -> int:
        """Number of latent frames of ``num_frames`` frames encoded at once."""
        return math.ceil(num_frames / self.time_compression)

    def padding(self, num_frames: int) -> int:
        """Zero frames put in front of ``num_frames`` frames."""
        return -num_frames % self.time_compression

    def moments(self, x: Tensor) -> Tensor:
        """(B, in_out_channels, F, H, W) -> mean and log-variance (B, 2 embed_dim, T, H, W) for ``Gaussian``."""
        out: Tensor = self.quant_conv(self.encoder(pad_front(x, self.padding(x.shape[2]))))
        return out

    def encode(self, x: Tensor) -> Gaussian:
        """(B, in_out_channels, F, H, W) -> posterior over (B, embed_dim, T, H, W)."""
        return Gaussian(self.moments(x))

    def decode(self, z: Tensor, num_frames: int) -> Tensor:
        """(B, embed_dim, T, H, W) -> (B, in_out_channels, num_frames, H, W).

        Raises:
            StgTuneError: ``num_frames`` frames do not have T latent frames.
        """
        if num_frames < 1 or self.latent_frames(num_frames) != z.shape[2]:
            top = z.shape[2] * self.time_compression
            raise StgTuneError(
                f"{z.shape[2]} latent frames cannot be decoded to num_frames={num_frames}: they hold "
                f"{top - self.time_compression + 1} to {top} frames. Pass a num_frames in that range."
            )
        x: Tensor = self.decoder(self.post_quant_conv(z))
        return x[:, :, self.padding(num_frames) :]


def pad_front(x: Tensor, frames: int) -> Tensor:
    """Puts ``frames`` zero frames before x (B, C, F, H, W)."""
    return F.pad(x, (0, 0, 0, 0, frames, 0)) if frames else x


def _channels_to_time(x: Tensor) -> Tensor:
    """(B, 2C, T, H, W) -> (B, C, 2T, H, W); channel 2c + s becomes frame 2t + s of channel c."""
    split = torch.unflatten(x, 1, (-1, 2))  # B C 2 T H W
    return split.transpose(2, 3).flatten(2, 3)


def _check(
    widths: Sequence[int], downsample: Sequence[bool], num_res_blocks: int, num_groups: int, activation_fn: str
) -> None:
    if len(downsample) != len(widths) - 1:
        raise StgTuneError(
            f"The temporal VAE's temporal_downsample has {len(downsample)} entries for {len(widths)} "
            f"channel_multipliers; it needs {len(widths) - 1}, one for every stage but the last."
        )
    if num_res_blocks < 1:
        raise StgTuneError(f"The temporal VAE's num_res_blocks={num_res_blocks} is too small. Give 1 or more.")
    if num_groups < 1 or any(width % num_groups for width in widths):
        raise StgTuneError(
            f"The temporal VAE's num_groups={num_groups} does not divide all of its widths {list(widths)} "
            "(filters times channel_multipliers). Choose a common divisor."
        )
    if activation_fn not in _ACTIVATIONS:
        raise StgTuneError(
            f"The temporal VAE's activation_fn={activation_fn!r} is unknown. Choose from: {', '.join(_ACTIVATIONS)}."
        )
