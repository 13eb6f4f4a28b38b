"""The family that the package itself adds to diffusers."""

from __future__ import annotations

import sys

from stg_tune.models.open_sora.pipeline import OpenSoraPipeline
from stg_tune.models.open_sora.schedule import OpenSoraScheduler
from stg_tune.models.open_sora.transformer import STDiT3
from stg_tune.models.open_sora.vae import OpenSoraVAE

parts = sys.modules["stg_tune_tests_families_parts"]


def open_sora():
    vae = OpenSoraVAE(
        vae_2d={
            "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
            "block_out_channels": [4] * 4, "layers_per_block": 1, "norm_num_groups": 2, "latent_channels": 4,
        },
        vae_temporal={"filters": 4, "num_res_blocks": 1, "channel_multipliers": [1, 1, 1, 1], "num_groups": 2},
    )  # fmt: skip
    transformer = STDiT3(hidden_size=24, depth=3, num_heads=2, caption_channels=16, model_max_length=12)
    return OpenSoraPipeline(
        tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=OpenSoraScheduler()
    )


def inputs(n, cfg):
    return {
        **parts.texts(n, 1, 12, 16), **parts.masks(n, 12), "latents": parts.per_prompt(n, 4, 2, 4, 4), "height": 32,
        "width": 32, "num_frames": 17, "num_inference_steps": 2, "guidance_scale": cfg,
    }  # fmt: skip


CASES = (
    parts.Case(name="open-sora", pipeline="OpenSoraPipeline", build=open_sora, inputs=inputs,
               layers={"spatial": (1,), "temporal": (2,)}),
)  # fmt: skip
