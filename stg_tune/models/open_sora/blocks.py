"""Blocks of the Open-Sora 1.2 transformer.

Tokens keep their grid all the way, ``(batch, frames, patches of a frame, channels)``, so a block reads everything about
the layout from its input. Parameter names are those of the published checkpoint.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stg_tune.models.open_sora.embeddings import FeedForward

Axis = Literal["spatial", "temporal"]

_EPS = 1e-6


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without own parameters, then ``x * (1 + scale) + shift`` (adaptive layer norm of DiT)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=_EPS), 1 + scale)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, computed in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """``x / rms(x) * weight`` in the shape and dtype of ``x``."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + _EPS)
        return self.weight * wide.to(x.dtype)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns each pair of neighbouring channels of ``(batch, length, heads, dim)`` by the angle of its position.

    A pair is one complex number and ``rotation`` ``(length, 1, dim / 2)`` holds the unit numbers to multiply it by.
    """
    pairs = torch.view_as_complex(x.to(rotation.real.dtype).view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention with normalised queries and keys, ``(batch, length, channels)`` to the same shape."""

    def __init__(self, hidden_size: int, num_heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = hidden_size // num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.q_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Attention of ``x`` to itself; ``rotation`` turns queries and keys by their position after the norm."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def value_passthrough(self, x: Tensor) -> Tensor:
        """Output when every token attends to itself alone: ``proj(V)``, the attention skip of arXiv:2411.18664."""
        start = 2 * x.shape[-1]
        if _is_plain(self.qkv):
            value = F.linear(x, self.qkv.weight[start:], self.qkv.bias[start:])
        else:
            value = self.qkv(x)[..., start:]
        projected: Tensor = self.proj(value)
        return projected


def _is_plain(linear: nn.Linear) -> bool:
    """No adapter, quantiser or offload hook stands between the weights and the output, so a part may be computed."""
    return type(linear) is nn.Linear and type(linear.weight) is nn.Parameter and "forward" not in vars(linear)


class CrossAttention(nn.Module):
    """Attention of all tokens of a video to the text: ``(batch, n, channels)`` to the same shape."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(hidden_size, hidden_size)
        self.kv_linear = nn.Linear(hidden_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Reads ``y`` (batch, length, channels) where the bool ``mask`` (batch, 1, 1, length) is true."""
        q = self.q_linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv_linear(y).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


class STDiT3Block(nn.Module):
    """Self-attention along one axis, cross-attention to the text, feed-forward; the first and last are modulated.

    A spatial block mixes the patches of a frame, a temporal block the frames at a patch. Skipping the block means
    returning ``x``; skipping its attention means ``attn.value_passthrough`` in place of ``attn``.
    """

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float, axis: Axis, *, qk_norm: bool) -> None:
        super().__init__()
        self.axis = axis
        self.attn = SelfAttention(hidden_size, num_heads, qk_norm=qk_norm)
        self.cross_attn = CrossAttention(hidden_size, num_heads)
        self.mlp = FeedForward(hidden_size, int(hidden_size * mlp_ratio), hidden_size)
        self.scale_shift_table = nn.Parameter(torch.randn(6, hidden_size) / math.sqrt(hidden_size))

    def forward(
        self, x: Tensor, y: Tensor, t: Tensor, mask: Tensor | None = None, rotation: Tensor | None = None
    ) -> Tensor:
        """One block.

        Args:
            x: Tokens ``(batch, frames, patches, channels)``.
            y: Text ``(batch, length, channels)``.
            t: Modulation ``(batch, 1 or frames, 6, channels)``: shift, scale, gate of attention, then of feed-forward.
            mask: Valid text tokens, bool ``(batch, 1, 1, length)``; ``None``: all.
            rotation: Table of :func:`rotate` for the frames; only temporal blocks use it.

        Returns:
            Tokens in the shape of ``x``.
        """
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (self.scale_shift_table + t).unsqueeze(3).unbind(2)
        x = torch.addcmul(x, gate_a, self._attend(modulated_norm(x, shift_a, scale_a), rotation))
        x = x + self.cross_attn(x.flatten(1, 2), y, mask).view_as(x)
        return torch.addcmul(x, gate_m, self.mlp(modulated_norm(x, shift_m, scale_m)))

    def _attend(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        batch, frames, patches, channels = x.shape
        if self.axis == "spatial":
            mixed: Tensor = self.attn(x.reshape(batch * frames, patches, channels))
            return mixed.view(x.shape)
        mixed = self.attn(x.transpose(1, 2).reshape(batch * patches, frames, channels), rotation)
        return mixed.view(batch, patches, frames, channels).transpose(1, 2)


class FinalLayer(nn.Module):
    """Modulated norm and the linear map from tokens to the values of their patches."""

    def __init__(self, hidden_size: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, out_features)
        self.scale_shift_table = nn.Parameter(torch.randn(2, hidden_size) / math.sqrt(hidden_size))

    def forward(self, x: Tensor, t: Tensor, t0: Tensor | None = None, x_mask: Tensor | None = None) -> Tensor:
        """Tokens ``(batch, frames, patches, channels)`` to patch values.

        Args:
            x: Tokens.
            t: Timestep embedding ``(batch, channels)``.
            t0: The same of timestep 0, for clean frames.
            x_mask: Bool ``(batch, frames)``, false where a frame is clean. Clean frames are normalised and modulated
                twice, by ``t`` and then by ``t0``, because the published model was trained that way.
        """
        x = self._modulate(x, t)
        if x_mask is not None and t0 is not None:
            x = torch.where(x_mask[:, :, None, None], x, self._modulate(x, t0))
        projected: Tensor = self.linear(x)
        return projected

    def _modulate(self, x: Tensor, t: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + t[:, None])[:, :, None, None].unbind(1)
        return modulated_norm(x, shift, scale)
