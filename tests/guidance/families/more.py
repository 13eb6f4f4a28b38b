"""Pipelines of known families that call their denoiser in yet another way."""

from __future__ import annotations

import sys

import diffusers
import torch

parts = sys.modules["stg_tune_tests_families_parts"]


def wan_5b():
    """Wan 2.2 TI2V: a timestep for every token."""
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32,
        freq_dim=64, ffn_dim=32, num_layers=3, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )  # fmt: skip
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return parts.without(
        "WanPipeline", *parts.TEXT, "vae", transformer=transformer, scheduler=scheduler, expand_timesteps=True
    )


def wan_inputs(n, cfg):
    return {
        **parts.texts(n, 16, 32), "latents": parts.per_prompt(n, 16, 2, 4, 6), "height": 32, "width": 48,
        "num_frames": 5,
        "num_inference_steps": 2, "guidance_scale": cfg,
    }  # fmt: skip


def kandinsky():
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16, out_visual_dim=4, patch_size=(1, 2, 2),
        model_dim=24, ff_dim=32, num_text_blocks=1, num_visual_blocks=3, axes_dims=(4, 4, 4),
    )  # fmt: skip
    return parts.without(
        "Kandinsky5T2VPipeline", *parts.TEXTS, "vae", transformer=transformer, scheduler=parts.flow(shift=5.0)
    )


def kandinsky_inputs(n, cfg):
    lengths = torch.tensor([0, *[8 * (k + 1) for k in range(n)]], dtype=torch.int32)
    return {
        "prompt_embeds_qwen": parts.per_prompt(n, 8, 16), "prompt_embeds_clip": parts.per_prompt(n, 8),
        "negative_prompt_embeds_qwen": parts.per_prompt(n, 8, 16, seed=4),
        "negative_prompt_embeds_clip": parts.per_prompt(n, 8, seed=5),
        "prompt_cu_seqlens": lengths, "negative_prompt_cu_seqlens": lengths, "latents": parts.per_prompt(n, 2, 4, 4, 4),
        "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "guidance_scale": cfg,
    }  # fmt: skip


CASES = (
    parts.Case(name="wan-ti2v", pipeline="WanPipeline", build=wan_5b, inputs=wan_inputs),
    parts.Case(name="kandinsky5", pipeline="Kandinsky5T2VPipeline", build=kandinsky, inputs=kandinsky_inputs),
)
