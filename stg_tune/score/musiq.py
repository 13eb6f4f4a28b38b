"""MUSIQ (Ke et al., arXiv:2108.05997) with the SPAQ weights: the imaging quality of VBench.

The network is written from the paper; where its two published programs differ, the numbers of the PyTorch one count,
because VBench uses it: bicubic pyramids without antialiasing and weights standardised by the unbiased deviation. Frames
that fill no whole patches are padded. What does not change the number is left out: the empty tokens of the original,
which the mask hides from every other token, and all but the class token of the last block.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, scored
from stg_tune.score.placement import in_batches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stg_tune.score.placement import Placement

PATCH = 32
"""Side of a patch, in pixels."""
LONGER_SIDES = (224, 384)
"""Longer side of the resized copies; the frame itself is the last scale."""
GRID = 10
"""Positions are hashed to a grid of this side."""
MOST_PIXELS = 512
"""VBench shrinks frames whose longer side is greater."""
TOKEN_BYTES = 500_000
"""Memory that the convolutions take, in bytes a token."""
CPU_PATCHES = 64
"""Patches that go through the convolutions at a time on a CPU, so that their maps stay in its cache: half the time."""


class StandardisedConv(nn.Conv2d):
    """Convolution with zero padding as TensorFlow's ``SAME`` and weights of zero mean and unit deviation."""

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same, at ``1 / stride`` of the size, rounded up."""
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(pad_same(maps, self.kernel_size[0], self.stride[0]), weight, stride=self.stride)


class Bottleneck(nn.Module):
    """Residual block of three convolutions, ``width`` to ``out`` channels."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv1 = StandardisedConv(width, width, 1, bias=False)
        self.gn1 = nn.GroupNorm(32, width, eps=1e-4)
        self.conv2 = StandardisedConv(width, width, 3, bias=False)
        self.gn2 = nn.GroupNorm(32, width, eps=1e-4)
        self.conv3 = StandardisedConv(width, out, 1, bias=False)
        self.gn3 = nn.GroupNorm(32, out, eps=1e-4)
        self.conv_proj = StandardisedConv(width, out, 1, bias=False)
        self.gn_proj = nn.GroupNorm(32, out, eps=1e-4)

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, width, height, width) -> (batch, out, height, width)."""
        inner = F.relu(self.gn1(self.conv1(maps)))
        inner = F.relu(self.gn2(self.conv2(inner)))
        return F.relu(self.gn3(self.conv3(inner)) + self.gn_proj(self.conv_proj(maps)))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, asking: Tensor, tokens: Tensor) -> Tensor:
        """What the tokens ``asking`` (batch, m, dim) take from ``tokens`` (batch, n, dim), (batch, m, dim)."""
        parts = self.query(asking), self.key(tokens), self.value(tokens)
        split = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]
        mixed: Tensor = self.out(F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, tokens: Tensor, wanted: int | None = None) -> Tensor:
        """(batch, tokens, dim) -> the same; of the result only the first ``wanted`` tokens."""
        normed = self.norm1(tokens)
        tokens = tokens[:, :wanted] + self.attention(normed[:, :wanted], normed)
        inner: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(tokens))))
        return tokens + inner


class Encoder(nn.Module):
    """Adds hashed positions and the scale to the tokens, puts the class token before them, and transforms."""

    def __init__(self, dim: int, hidden: int, heads: int, layers: int) -> None:
        super().__init__()
        self.posembed_input = nn.ParameterDict({"position_emb": nn.Parameter(torch.zeros(1, GRID * GRID, dim))})
        scales = len(LONGER_SIDES) + 1
        self.scaleembed_input = nn.ParameterDict({"scale_emb": nn.Parameter(torch.zeros(scales, dim))})
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.encoder_norm = nn.LayerNorm(dim, eps=1e-6)
        self.transformer = nn.ModuleDict({f"encoderblock_{i}": Block(dim, hidden, heads) for i in range(layers)})

    def forward(self, tokens: Tensor, positions: Tensor, scales: Tensor) -> Tensor:
        """Tokens (batch, n, dim) with positions (n,) and scales (n,) -> the class token, (batch, dim)."""
        places = self.posembed_input["position_emb"][0, positions] + self.scaleembed_input["scale_emb"][scales]
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens + places], dim=1)
        *blocks, last = self.transformer.values()
        for block in blocks:
            tokens = block(tokens)
        final: Tensor = self.encoder_norm(last(tokens, 1))
        return final[:, 0]


class Musiq(nn.Module):
    """Frames of any size -> quality; the keys of the state dict are those of the published PyTorch checkpoints.

    Args:
        dim: width of a token.
        hidden: width of the perceptrons.
        heads: of the attention.
        layers: blocks.
        stem: channels of the convolutions.
    """

    def __init__(self, *, dim: int = 384, hidden: int = 1152, heads: int = 6, layers: int = 14, stem: int = 64) -> None:
        super().__init__()
        self.conv_root = StandardisedConv(3, stem, 7, stride=2, bias=False)
        self.gn_root = nn.GroupNorm(32, stem, eps=1e-6)
        self.block1 = Bottleneck(stem, stem * 4)
        self.embedding = nn.Linear(stem * 4 * (PATCH // 4) ** 2, dim)
        self.transformer_encoder = Encoder(dim, hidden, heads, layers)
        self.head = nn.Linear(dim, 1)

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> Musiq:
        """A network as large as the weights in ``state``, whose heads are 64 wide as in all published ones."""
        dim, stem = state["head.weight"].shape[1], state["conv_root.weight"].shape[0]
        hidden = state["transformer_encoder.transformer.encoderblock_0.mlp.fc1.weight"].shape[0]
        layers = sum(key.endswith("mlp.fc1.weight") for key in state)
        return cls(dim=dim, hidden=hidden, heads=max(1, dim // 64), layers=layers, stem=stem)

    def forward(self, frames: Tensor) -> Tensor:
        """(batch, 3, height, width) in [0, 1] -> (batch,); with the SPAQ weights 0 (bad) to 100 (excellent)."""
        pyramid = [*(shrunk(2 * frames - 1, side) for side in LONGER_SIDES), 2 * frames - 1]
        parts = [patches(level) for level in pyramid]
        tokens = torch.cat([self.embed(part) for part in parts], dim=1)
        positions = torch.cat([hashed_positions(*level.shape[-2:]) for level in pyramid]).to(tokens.device)
        scales = torch.cat([torch.full((part.shape[1],), scale) for scale, part in enumerate(parts)])
        points: Tensor = self.head(self.transformer_encoder(tokens, positions, scales.to(tokens.device)))
        return points[:, 0]

    def embed(self, pictures: Tensor) -> Tensor:
        """Patches (batch, n, 3, 32, 32) in [-1, 1] -> tokens (batch, n, dim)."""
        at_once = CPU_PATCHES if pictures.device.type == "cpu" else None
        rows = in_batches(self._embed, pictures.flatten(0, 1), at_once)
        return rows.view(*pictures.shape[:2], -1)

    def _embed(self, pictures: Tensor) -> Tensor:
        maps = pad_same(F.relu(self.gn_root(self.conv_root(pictures))), 3, 2)
        # a CPU pools channels last, and normalises groups channels first, several times faster than the other way
        pooled = F.max_pool2d(maps.contiguous(memory_format=torch.channels_last), 3, 2).contiguous()
        # channels last: the checkpoints come from TensorFlow
        tokens: Tensor = self.embedding(self.block1(pooled).permute(0, 2, 3, 1).flatten(1))
        return tokens


def pad_same(maps: Tensor, kernel: int, stride: int) -> Tensor:
    """Zero padding after which a convolution gives ``ceil(size / stride)``; the odd pixel goes right and below."""
    height, width = (max(0, (math.ceil(size / stride) - 1) * stride + kernel - size) for size in maps.shape[-2:])
    return F.pad(maps, (width // 2, width - width // 2, height // 2, height - height // 2))


def shrunk(frames: Tensor, longer: int) -> Tensor:
    """The frames at a longer side of ``longer`` pixels, enlarged if need be."""
    height, width = frames.shape[-2:]
    ratio = longer / max(height, width)
    return F.interpolate(frames, (round(height * ratio), round(width * ratio)), mode="bicubic")


def patches(frames: Tensor) -> Tensor:
    """(batch, 3, height, width) -> (batch, patches, 3, 32, 32), row by row."""
    columns = F.unfold(pad_same(frames, PATCH, PATCH), PATCH, stride=PATCH).transpose(1, 2)
    return columns.reshape(*columns.shape[:2], 3, PATCH, PATCH)


def hashed_positions(height: int, width: int) -> Tensor:
    """Index of each patch's place in the ``GRID`` x ``GRID`` table, (patches,)."""
    table = torch.arange(float(GRID)).view(1, 1, GRID)
    # interpolate rounds in float32; integer arithmetic would differ from it at a few sizes
    along_y, along_x = (
        F.interpolate(table, math.ceil(side / PATCH), mode="nearest").flatten().long() for side in (height, width)
    )
    index: Tensor = along_y[:, None] * GRID + along_x
    return index.flatten()


class MusiqQuality:
    """Mean over frames, divided by 100: the formula of VBench's ``imaging_quality`` for one video.

    Frames with a longer side above 512 pixels are shrunk to it without antialiasing.

    Args:
        net: network in eval mode.
        placement: where it runs.
        weights: checksum of the network.
        frames: at most so many frames are looked at; ``None``: every one, as VBench does.
    """

    requires: Requirement = "picture"

    def __init__(self, net: Musiq, placement: Placement, *, weights: str, frames: int | None = None) -> None:
        self._net, self._placement, self._frames = net, placement, frames
        self.kind = ScoreKind(
            name="musiq",
            direction="maximize",
            low=float("-inf"),  # the last layer is linear: nothing bounds it but its training
            high=float("inf"),
            unit="hundredths of the 0-100 SPAQ scale",
            weights=weights,
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        chosen = view.sample(self._frames)
        height, width = chosen.frames.shape[-2:]
        scale = min(1.0, MOST_PIXELS / max(height, width))
        frames = chosen.resized_levels(int(scale * height), int(scale * width), "bilinear") / 255
        tokens = sum(len(hashed_positions(*size)) for size in ((224, 224), (384, 384), frames.shape[-2:]))
        points = in_batches(self._net, frames, self._placement.batch(TOKEN_BYTES * tokens))
        return scored(self.kind, float(points.mean()) / 100)

    def frames_seen(self, frames: int) -> int:
        """How many of a video's frames count."""
        return min(frames, self._frames or frames)
