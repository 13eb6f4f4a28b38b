"""The family that ``docs/models/add-a-model.md`` adds."""

from __future__ import annotations

import sys

import diffusers

parts = sys.modules["stg_tune_tests_families_parts"]


def easyanimate():
    transformer = diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=16, num_layers=3, mmdit_layers=2, sample_width=4, sample_height=4, patch_size=2,
    )  # fmt: skip
    return diffusers.EasyAnimatePipeline(
        vae=parts.TinyVae(4), text_encoder=None, tokenizer=None, transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip


def inputs(n, cfg):
    return {
        **parts.texts(n, 8, 16), **parts.masks(n, 8), "latents": parts.per_prompt(n, 4, 2, 4, 4), "height": 32,
        "width": 32, "num_frames": 5, "num_inference_steps": 2, "guidance_scale": cfg,
    }  # fmt: skip


CASES = (parts.Case(name="easyanimate", pipeline="EasyAnimatePipeline", build=easyanimate, inputs=inputs),)
