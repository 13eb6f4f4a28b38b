"""Pipelines of known families that call their denoiser in yet another way."""

from __future__ import annotations

import sys

import diffusers

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


CASES = (parts.Case(name="wan-ti2v", pipeline="WanPipeline", build=wan_5b, inputs=wan_inputs),)
