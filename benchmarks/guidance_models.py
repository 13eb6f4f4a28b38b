"""The denoisers of ``benchmarks.guidance``: random weights, realistic depth, small width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import diffusers
import torch

from stg_tune.models.families import LTX, MOCHI
from stg_tune.models.open_sora.record import ARCHITECTURE
from stg_tune.models.open_sora.transformer import STDiT3
from stg_tune.records import SkipTerm

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.models.base import Architecture


@dataclass(frozen=True, kw_only=True)
class Model:
    """A denoiser with the arguments of a call for so many rows."""

    name: str
    record: Architecture
    build: Callable[[], torch.nn.Module]
    inputs: Callable[[int], dict[str, Any]]
    term: SkipTerm


def mochi() -> torch.nn.Module:
    """48 blocks."""
    return diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=4, attention_head_dim=64, num_layers=48, pooled_projection_dim=128,
        in_channels=12, text_embed_dim=128, time_embed_dim=64, activation_fn="swiglu", max_sequence_length=64,
    )  # fmt: skip


def mochi_inputs(rows: int) -> dict[str, Any]:
    """3 latent frames of 16x24: 288 video tokens, 64 text tokens."""
    return {
        "hidden_states": torch.randn(rows, 12, 3, 16, 24),
        "encoder_hidden_states": torch.randn(rows, 64, 128),
        "timestep": torch.full((rows,), 500.0),
        "encoder_attention_mask": torch.ones(rows, 64, dtype=torch.bool),
        "return_dict": False,
    }


def ltx() -> torch.nn.Module:
    """28 blocks."""
    return diffusers.LTXVideoTransformer3DModel(
        in_channels=32, out_channels=32, num_attention_heads=6, attention_head_dim=64, cross_attention_dim=384,
        num_layers=28, caption_channels=128,
    )  # fmt: skip


def ltx_inputs(rows: int) -> dict[str, Any]:
    """4 latent frames of 8x12: 384 tokens."""
    return {
        "hidden_states": torch.randn(rows, 384, 32),
        "encoder_hidden_states": torch.randn(rows, 64, 128),
        "timestep": torch.full((rows,), 500.0),
        "encoder_attention_mask": torch.ones(rows, 64, dtype=torch.int64),
        "num_frames": 4,
        "height": 8,
        "width": 12,
        "return_dict": False,
    }


def open_sora() -> torch.nn.Module:
    """28 spatial and 28 temporal blocks."""
    return STDiT3(hidden_size=192, depth=28, num_heads=4, caption_channels=64, model_max_length=64)


def open_sora_inputs(rows: int) -> dict[str, Any]:
    """5 latent frames of 16x24."""
    return {
        "x": torch.randn(rows, 4, 5, 16, 24),
        "timestep": torch.full((rows,), 500.0),
        "y": torch.randn(rows, 1, 64, 64),
        "mask": torch.ones(rows, 64, dtype=torch.int64),
        "fps": torch.full((rows,), 24.0),
        "height": torch.full((rows,), 128.0),
        "width": torch.full((rows,), 192.0),
    }


def skip(op: str, **layers: tuple[int, ...]) -> SkipTerm:
    """One term of scale 1."""
    return SkipTerm(name="stg", skip_layers=layers, skip_op=op, stg_scale=1.0)  # type: ignore[arg-type]


MODELS = (
    Model(name="mochi-like", record=MOCHI, build=mochi, inputs=mochi_inputs, term=skip("residual", blocks=(34,))),
    Model(name="ltx-like", record=LTX, build=ltx, inputs=ltx_inputs, term=skip("attention", blocks=(19,))),
    Model(
        name="open-sora-like",
        record=ARCHITECTURE,
        build=open_sora,
        inputs=open_sora_inputs,
        term=skip("attention", spatial=(14,), temporal=(14,)),
    ),
)
