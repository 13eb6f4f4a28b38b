"""What a guided step costs, in multiplications: these are the same on every machine and under any load."""

from __future__ import annotations

from types import SimpleNamespace

import diffusers
import pytest
import torch

from stg_tune.guidance import guided
from stg_tune.guidance.perturb import layout_of
from stg_tune.models.families import LTX, MOCHI
from stg_tune.models.open_sora.record import ARCHITECTURE
from stg_tune.models.open_sora.transformer import STDiT3
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

TOKENS = 48


def ltx():
    model = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        num_layers=12, caption_channels=16,
    )  # fmt: skip
    return model, lambda rows: {
        "hidden_states": torch.randn(rows, TOKENS, 8), "encoder_hidden_states": torch.randn(rows, 8, 16),
        "encoder_attention_mask": torch.ones(rows, 8, dtype=torch.int64), "num_frames": 3, "height": 4, "width": 4,
    }  # fmt: skip


def mochi():
    model = diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=12, pooled_projection_dim=16,
        in_channels=12, text_embed_dim=32, time_embed_dim=4, activation_fn="swiglu", max_sequence_length=8,
    )  # fmt: skip
    return model, lambda rows: {
        "hidden_states": torch.randn(rows, 12, 3, 8, 8), "encoder_hidden_states": torch.randn(rows, 8, 32),
        "encoder_attention_mask": torch.ones(rows, 8, dtype=torch.bool),
    }  # fmt: skip


def open_sora():
    model = STDiT3(hidden_size=24, depth=12, num_heads=2, caption_channels=16, model_max_length=8)
    return model, lambda rows: {
        "x": torch.randn(rows, 4, 3, 8, 8), "y": torch.randn(rows, 1, 8, 16),
        "mask": torch.ones(rows, 8, dtype=torch.int64), "fps": torch.full((rows,), 24.0),
        "height": torch.full((rows,), 64.0), "width": torch.full((rows,), 64.0),
    }  # fmt: skip


def operations(denoiser, call):
    """Multiplications of all linear layers."""
    found = []
    linears = [module for module in denoiser.modules() if isinstance(module, torch.nn.Linear)]
    hooks = [linear.register_forward_pre_hook(lambda own, args: found.append(args[0].numel() * own.out_features))
             for linear in linears]  # fmt: skip
    denoiser(**call, timestep=torch.full((len(next(iter(call.values()))),), 500.0))
    for hook in hooks:
        hook.remove()
    return sum(found)


@pytest.mark.parametrize(
    ("build", "record", "layers", "op"),
    [
        (mochi, MOCHI, {"blocks": (8,)}, "residual"),
        (ltx, LTX, {"blocks": (8,)}, "attention"),
        (open_sora, ARCHITECTURE, {"spatial": (6,), "temporal": (6,)}, "attention"),
    ],
)
def test_a_guided_step_computes_the_blocks_from_the_first_skipped_one_on_and_hardly_more(build, record, layers, op):
    denoiser, inputs = build()
    order = layout_of(denoiser.eval(), record).order
    first = min(order.index((stack, index)) for stack, indices in layers.items() for index in indices)
    share = (len(order) - first) / len(order)
    scheduler = SimpleNamespace(timesteps=torch.tensor([500.0]))
    pipe = SimpleNamespace(transformer=denoiser, scheduler=scheduler, guidance_scale=4.5)
    term = SkipTerm(name="t", skip_layers=layers, skip_op=op, stg_scale=1.0)
    with guided(pipe, GuidanceSpec(cfg_scale=4.5, segments=(Segment(terms=(term,)),)), architecture=record):
        found = operations(denoiser, inputs(2))
    ratio = found / operations(denoiser, inputs(3))
    assert (2 + share) / 3 - 0.04 < ratio < (2 + share) / 3 + 0.02
