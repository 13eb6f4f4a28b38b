"""What the Open-Sora 1.2 transformer is told besides the latents: positions, timestep, frame rate and text.

Shapes, formulas and parameter names follow Open-Sora v1.2.0 (https://github.com/hpcaitech/Open-Sora, commit 17cce908).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MAX_PERIOD = 10000.0


class PatchEmbed3D(nn.Module):
    """Linear map of every patch of the latents to one token; sizes the patch does not divide are padded with zeros."""

    def __init__(self, patch_size: tuple[int, int, int], in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = _PatchProjection(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, frames, height, width)`` to ``(batch, t, rows * columns, hidden)``, row by row."""
        missing = [-size % patch for size, patch in zip(x.shape[2:], self.patch_size, strict=True)]
        if any(missing):
            x = F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))
        tokens: Tensor = self.proj(x)
        return tokens


class _PatchProjection(nn.Conv3d):
    """A convolution whose stride is its kernel, as the matrix product it is, channels last; faster than Conv3d."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        pt, ph, pw = self.kernel_size
        t, h, w = x.shape[2] // pt, x.shape[3] // ph, x.shape[4] // pw
        x = x.reshape(batch, channels, t, pt, h, ph, w, pw).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return F.linear(x.reshape(batch, t, h * w, -1), self.weight.flatten(1), self.bias)


class RotaryTable(nn.Module):
    """Rotation angles of the temporal attention; ``freqs`` is a parameter of the checkpoint that is never trained."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2).float() / head_dim
        self.freqs = nn.Parameter(_MAX_PERIOD**-exponents, requires_grad=False)

    def forward(self, length: int) -> Tensor:
        """Unit complex numbers ``exp(i * position * frequency)``, ``(length, 1, head_dim / 2)``.

        Angles, cosines and sines are rounded to the dtype of ``freqs``, as in the official model.
        """
        positions = torch.arange(length, device=self.freqs.device, dtype=self.freqs.dtype)
        angles = (positions[:, None] * self.freqs).unsqueeze(1)
        wide = torch.promote_types(angles.dtype, torch.float32)  # there are no complex numbers of bf16
        return torch.complex(angles.cos().to(wide), angles.sin().to(wide))


@lru_cache(maxsize=8)
def position_table(
    hidden_size: int, rows: int, columns: int, scale: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Sine-cosine embedding of the patch grid, ``(1, rows * columns, hidden_size)``: first half column, second row.

    Args:
        hidden_size: Channels, a multiple of 4.
        rows: Patches from top to bottom.
        columns: Patches from left to right.
        scale: ``sqrt(height * width) / input_sq_size`` in pixels.
        dtype: Of the result; the frequencies are rounded to it as well, as in the official model.
        device: Of the result.
    """
    # A table first made under inference mode could otherwise not be used in training.
    with torch.inference_mode(mode=False), torch.no_grad():
        half = hidden_size // 2
        frequencies = 1.0 / _MAX_PERIOD ** (torch.arange(0, half, 2, device=device).float() / half)
        frequencies = frequencies.to(dtype).float()
        side = round(math.sqrt(rows * columns))
        row = _sin_cos(_grid(rows, side, scale, device), frequencies)[:, None].expand(-1, columns, -1)
        column = _sin_cos(_grid(columns, side, scale, device), frequencies)[None].expand(rows, -1, -1)
        return torch.cat([column, row], dim=-1).reshape(1, rows * columns, hidden_size).to(dtype)


def _grid(length: int, side: int, scale: float, device: torch.device) -> Tensor:
    return torch.arange(length, device=device) / scale * (side / length)


def _sin_cos(positions: Tensor, frequencies: Tensor) -> Tensor:
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def frequency_embedding(values: Tensor, dim: int) -> Tensor:
    """Cosines, then sines, of ``(rows,)`` scalars at ``dim / 2`` frequencies, float32 ``(rows, dim)``."""
    half = dim // 2
    # Timesteps reach 1000, so the last bit of a frequency shows in the angle: keep the official order of operations.
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values[:, None].float() * torch.exp(-math.log(_MAX_PERIOD) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ScalarEmbedder(nn.Module):
    """Embeds one number a row, ``(rows,) -> (rows, hidden)``: the timestep, or the frame rate."""

    def __init__(self, hidden_size: int, frequency_dim: int = 256) -> None:
        super().__init__()
        self.frequency_dim = frequency_dim
        self.mlp = nn.Sequential(nn.Linear(frequency_dim, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    def forward(self, values: Tensor) -> Tensor:
        """Embeds ``values``, which are in the dtype of the weights."""
        embedded: Tensor = self.mlp(frequency_embedding(values, self.frequency_dim).to(values.dtype))
        return embedded


class FeedForward(nn.Module):
    """Two linear maps with a tanh-approximated GELU between them, applied to every token."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class CaptionEmbedder(nn.Module):
    """Projects text features to the hidden size and owns ``y_embedding``, the features of the empty caption.

    ``y_embedding`` is ``(model_max_length, caption_channels)`` and a buffer: guidance and caption dropout pass it in
    place of the text.
    """

    y_embedding: Tensor

    def __init__(self, caption_channels: int, hidden_size: int, model_max_length: int) -> None:
        super().__init__()
        self.y_proj = FeedForward(caption_channels, hidden_size, hidden_size)
        null = torch.randn(model_max_length, caption_channels) / math.sqrt(caption_channels)
        self.register_buffer("y_embedding", null)

    def forward(self, y: Tensor) -> Tensor:
        """``(..., caption_channels)`` to ``(..., hidden)``."""
        projected: Tensor = self.y_proj(y)
        return projected
