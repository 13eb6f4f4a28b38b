"""STDiT3, the transformer of Open-Sora 1.2, for inference and training.

Written from the shapes and formulas of Open-Sora v1.2.0 (https://github.com/hpcaitech/Open-Sora, commit 17cce908);
loads its published checkpoints key by key.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.blocks import FinalLayer, STDiT3Block
from stg_tune.models.open_sora.embeddings import (
    CaptionEmbedder,
    PatchEmbed3D,
    RotaryTable,
    ScalarEmbedder,
    position_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


_SMALL = re.compile(r"(t_embedder|fps_embedder\.mlp\.0|t_block|y_embedder)\S*\.weight$")
_ZERO = re.compile(
    r"(fps_embedder\.mlp\.2|final_layer\.linear|\w+\.\d+\.cross_attn\.proj"
    r"|temporal_blocks\.\d+\.(attn\.proj|mlp\.fc2))\.weight$"
)


class _Conditions(NamedTuple):
    """What every block gets after the tokens, in the order of its arguments."""

    y: Tensor
    t: Tensor
    mask: Tensor | None
    rotation: Tensor


class STDiT3(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Spatio-temporal diffusion transformer: spatial block 0, temporal block 0, spatial block 1, ...

    ``spatial_blocks`` and ``temporal_blocks`` are called one by one as ``block(x, ...)``, so an entry may be replaced
    by anything that maps tokens to tokens.

    Args:
        input_size: Latent frames, height, width of the training data; recorded only, every size runs.
        input_sq_size: Pixels of the square side at which the position embedding has scale 1.
        in_channels: Latent channels.
        patch_size: Latent frames, rows, columns of one token.
        hidden_size: Channels of a token, a multiple of 4 and of ``2 * num_heads``.
        depth: Number of spatial and of temporal blocks.
        num_heads: Attention heads.
        mlp_ratio: Width of the feed-forward over ``hidden_size``.
        class_dropout_prob: Caption dropout the model was trained with; recorded only, a training loop drops captions by
            passing ``y_embedder.y_embedding``.
        pred_sigma: Output ``2 * in_channels`` channels, of which the first half is the velocity.
        caption_channels: Channels of the text features.
        model_max_length: Tokens of a caption.
        qk_norm: RMS-normalise queries and keys of the self-attention.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("STDiT3Block",)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        input_size: Sequence[int | None] = (None, None, None),
        input_sq_size: int = 512,
        in_channels: int = 4,
        patch_size: Sequence[int] = (1, 2, 2),
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        class_dropout_prob: float = 0.1,
        pred_sigma: bool = True,
        caption_channels: int = 4096,
        model_max_length: int = 300,
        qk_norm: bool = True,
    ) -> None:
        super().__init__()
        _check_sizes(hidden_size, num_heads, patch_size)
        self.gradient_checkpointing = False
        self.patch_size = (patch_size[0], patch_size[1], patch_size[2])
        self.input_sq_size = input_sq_size
        self.hidden_size = hidden_size
        self.out_channels = in_channels * (2 if pred_sigma else 1)
        self.rope = RotaryTable(hidden_size // num_heads)
        self.x_embedder = PatchEmbed3D(self.patch_size, in_channels, hidden_size)
        self.t_embedder = ScalarEmbedder(hidden_size)
        self.fps_embedder = ScalarEmbedder(hidden_size)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.y_embedder = CaptionEmbedder(caption_channels, hidden_size, model_max_length)
        self.spatial_blocks = nn.ModuleList(
            STDiT3Block(hidden_size, num_heads, mlp_ratio, "spatial", qk_norm=qk_norm) for _ in range(depth)
        )
        self.temporal_blocks = nn.ModuleList(
            STDiT3Block(hidden_size, num_heads, mlp_ratio, "temporal", qk_norm=qk_norm) for _ in range(depth)
        )
        self.final_layer = FinalLayer(hidden_size, math.prod(patch_size) * self.out_channels)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Starting point for training: every block begins as a small change, and the prediction as zero.

        Xavier-uniform linear maps, normal(0.02) embedders (PixArt-alpha, https://arxiv.org/abs/2310.00426), zeros in
        the output of the cross-attention, of every branch of the temporal blocks (Open-Sora 1.2), of the frame rate
        embedding and of the model.
        """
        self.apply(_xavier)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.data.flatten(1))
        for name, parameter in self.named_parameters():
            if _SMALL.match(name):
                nn.init.normal_(parameter, std=0.02)
            elif _ZERO.match(name):
                nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        fps: Tensor | None = None,
        height: Tensor | None = None,
        width: Tensor | None = None,
    ) -> Tensor:
        """Predicts the velocity (and an unused variance) of noisy latents.

        Args:
            x: Latents ``(batch, channels, frames, height, width)``; any size, odd ones are padded and cropped.
            timestep: ``(batch,)`` in [0, 1000].
            y: Text features ``(batch, 1, length, caption_channels)``.
            mask: ``(batch or a divisor, length)``, nonzero where a text token is valid; fewer rows are repeated.
            x_mask: Bool ``(batch, frames)``: false marks clean frames, which are treated as timestep 0.
            fps: Frames per second ``(batch or a divisor,)``; 120 for a single image.
            height: Pixels ``(batch or a divisor,)``; row 0 counts for all.
            width: Pixels, as ``height``.

        Returns:
            float32 ``(batch, 2 * channels, frames, height, width)``; the velocity is the first half of the channels.

        Raises:
            StgTuneError: ``fps``, ``height`` or ``width`` is missing, a caption has no valid token, or row counts do
                not divide.
        """
        dtype = self.x_embedder.proj.weight.dtype
        frames, rows, columns = (-(-size // patch) for size, patch in zip(x.shape[2:], self.patch_size, strict=True))
        scale = self._scale(height, width)
        t, t0 = self._embed_time(timestep.to(dtype), fps, x_mask)
        text, text_mask = self._embed_text(y.to(dtype), mask)
        conditions = _Conditions(text, self._modulation(t, t0, x_mask), text_mask, self.rope(frames))
        tokens = self.x_embedder(x.to(dtype))
        tokens = tokens + position_table(self.hidden_size, rows, columns, scale, dtype, x.device)
        tokens = self.final_layer(self._run_blocks(tokens, conditions), t, t0, x_mask)
        return self._unpatchify(tokens, (frames, rows, columns), x.shape[2:])

    def _scale(self, height: Tensor | None, width: Tensor | None) -> float:
        if height is None or width is None:
            raise StgTuneError(
                f"STDiT3 got height={height} and width={width}. The position embedding depends on the pixel size: "
                "pass both as tensors with one number a video, e.g. height=torch.tensor([240.0])."
            )
        return math.sqrt(height.flatten()[0].item() * width.flatten()[0].item()) / self.input_sq_size

    def _embed_time(self, timestep: Tensor, fps: Tensor | None, x_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if fps is None:
            raise StgTuneError(
                "STDiT3 got fps=None. Pass frames per second, e.g. torch.tensor([24.0]), 120 for images."
            )
        rate = _repeat_rows(self.fps_embedder(fps.flatten().to(timestep.dtype)), timestep.shape[0], "fps")
        t = self.t_embedder(timestep) + rate
        return t, None if x_mask is None else self.t_embedder(torch.zeros_like(timestep)) + rate

    def _modulation(self, t: Tensor, t0: Tensor | None, x_mask: Tensor | None) -> Tensor:
        modulation: Tensor = self.t_block(t).unflatten(-1, (1, 6, -1))
        if x_mask is None or t0 is None:
            return modulation
        return torch.where(x_mask[:, :, None, None], modulation, self.t_block(t0).unflatten(-1, (1, 6, -1)))

    def _embed_text(self, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Projected text ``(batch, length, hidden)`` cut to tokens that a row needs, and the mask still needed."""
        y = y.flatten(1, 2)
        if mask is None:
            return self.y_embedder(y), None
        valid = _repeat_rows(mask.reshape(mask.shape[0], -1) != 0, y.shape[0], "mask")
        if not bool(valid.any(1).all()):
            raise StgTuneError("a caption has no valid token in mask. Every row needs at least one nonzero entry.")
        kept = _columns(valid)
        valid = valid[:, kept]
        return self.y_embedder(y[:, kept]), None if bool(valid.all()) else valid[:, None, None]

    def _run_blocks(self, x: Tensor, conditions: _Conditions) -> Tensor:
        checkpointing = self.gradient_checkpointing and torch.is_grad_enabled()
        for pair in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            for block in pair:
                x = self._gradient_checkpointing_func(block, x, *conditions) if checkpointing else block(x, *conditions)
        return x

    def _unpatchify(self, tokens: Tensor, grid: tuple[int, int, int], size: Sequence[int]) -> Tensor:
        batch = tokens.shape[0]
        x = tokens.float().reshape(batch, *grid, *self.patch_size, self.out_channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        sizes = (count * patch for count, patch in zip(grid, self.patch_size, strict=True))
        return x.reshape(batch, self.out_channels, *sizes)[:, :, : size[0], : size[1], : size[2]]


def _check_sizes(hidden_size: int, num_heads: int, patch_size: Sequence[int]) -> None:
    if hidden_size % 4 or hidden_size % (2 * num_heads):
        raise StgTuneError(
            f"STDiT3 got hidden_size={hidden_size} with num_heads={num_heads}. hidden_size must be a multiple of 4 and "
            "of 2 * num_heads; change one of them in the model's config."
        )
    if len(patch_size) != 3:
        raise StgTuneError(f"STDiT3 got patch_size={list(patch_size)}. It needs frames, rows, columns, e.g. [1, 2, 2].")


def _repeat_rows(values: Tensor, rows: int, name: str) -> Tensor:
    if values.shape[0] == rows:
        return values
    if rows % values.shape[0]:
        raise StgTuneError(f"{name} has {values.shape[0]} rows for a batch of {rows}. Pass one row, or one a video.")
    return values.repeat(rows // values.shape[0], *[1] * (values.dim() - 1))


def _columns(valid: Tensor) -> Tensor:
    """Indices of the text tokens that are valid in any row; text has no positions here, so the order is free.

    On CPU a few invalid ones stay, under the mask, to fill whole vector registers: attention to 12 tokens takes 4 times
    as long as to 16.
    """
    used = valid.any(0)
    length = int(used.sum())
    if valid.device.type == "cpu":
        length += -length % 16
    return used.int().argsort(descending=True, stable=True)[:length]


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
