"""Image-to-video and video-to-video pipelines of the families, in tiny form."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import diffusers
import torch
from PIL import Image
from torch import nn

parts = sys.modules["stg_tune_tests_families_parts"]
base = sys.modules["stg_tune_tests_families_bases"]


class TinyEye(nn.Module):
    """An image encoder: four tokens of the mean colours."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 4 * width).reshape(4, width))
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def forward(self, pixel_values, **_):
        tokens = pixel_values.mean((1, 2, 3))[:, None, None] + self.weight
        return SimpleNamespace(hidden_states=(tokens, tokens, tokens), last_hidden_state=tokens)


class TinyProcessor:
    """Pixels of an image, whatever else is asked for."""

    def __call__(self, images, return_tensors="pt", **_):
        images = images if isinstance(images, list) else [images]
        pixels = torch.stack([torch.tensor(list(image.resize((4, 4)).getdata())).float() / 255 for image in images])
        return Pixels(pixel_values=pixels.reshape(len(images), 4, 4, 3).permute(0, 3, 1, 2))

    preprocess = __call__


class Pixels(dict):
    def to(self, *_, **__):
        return self


def picture(width=32, height=32):
    values = parts.rand(height, width, 3).sigmoid().mul(255).to(torch.uint8)
    return Image.fromarray(values.numpy())


def seeded(*_):
    return torch.Generator().manual_seed(0)


def eye(width):
    return {"image_encoder": TinyEye(width), "image_processor": TinyProcessor()}


def cogvideox_v2v():
    pipe = base.cogvideox("CogVideoXPipeline")
    return parts.without("CogVideoXVideoToVideoPipeline", *parts.TEXT, vae=parts.TinyVae(4),
                         transformer=pipe.transformer, scheduler=pipe.scheduler)  # fmt: skip


def cogvideox_v2v_inputs(n, cfg):
    inputs = base.cogvideox_inputs(n, cfg)
    del inputs["num_frames"]
    return {**inputs, "latents": None, "video": [picture()] * 9, "generator": seeded(), "strength": 0.7,
            "num_inference_steps": 3}  # fmt: skip


def wan_v2v():
    return parts.without("WanVideoToVideoPipeline", *parts.TEXT, vae=parts.TinyVae(16),
                         transformer=base.wan_transformer(), scheduler=base.unipc())  # fmt: skip


def wan_v2v_inputs(n, cfg):
    inputs = base.wan_inputs(n, cfg)
    del inputs["num_frames"]
    return {**inputs, "latents": None, "video": [picture(48, 32)] * 5, "generator": seeded(), "strength": 0.7,
            "num_inference_steps": 3}  # fmt: skip


def wan_21_i2v():
    transformer = base.wan_transformer(in_channels=36, image_dim=20, added_kv_proj_dim=24)
    return parts.without("WanImageToVideoPipeline", *parts.TEXT, vae=parts.TinyVae(16), transformer=transformer,
                         transformer_2=None, boundary_ratio=None, scheduler=base.unipc(), **eye(20))  # fmt: skip


def wan_22_i2v():
    """Two experts, no image tokens."""
    return parts.without("WanImageToVideoPipeline", *parts.TEXT, "image_encoder", "image_processor",
                         vae=parts.TinyVae(16), transformer=base.wan_transformer(in_channels=36),
                         transformer_2=base.wan_transformer(in_channels=36), boundary_ratio=0.9,
                         scheduler=base.unipc())  # fmt: skip


def wan_i2v_inputs(n, cfg):
    return {**base.wan_inputs(n, cfg), **parts.texts(n, 512, 32), "image": picture(48, 32)}


def wan_22_i2v_inputs(n, cfg):
    return {**base.wan_2_inputs(n, cfg), "image": picture(48, 32)}


def skyreels_i2v():
    transformer = diffusers.SkyReelsV2Transformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=36, out_channels=16,
        text_dim=32, freq_dim=64, ffn_dim=32, num_layers=3, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", rope_max_seq_len=32, image_dim=20, added_kv_proj_dim=24,
    )  # fmt: skip
    return parts.without("SkyReelsV2ImageToVideoPipeline", *parts.TEXT, vae=parts.TinyVae(16), transformer=transformer,
                         scheduler=base.unipc(), **eye(20))  # fmt: skip


def hunyuan_transformer(**more):
    return diffusers.HunyuanVideoTransformer3DModel(**{
        "in_channels": 9, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 10, "num_layers": 2,
        "num_single_layers": 2, "num_refiner_layers": 1, "patch_size": 1, "patch_size_t": 1, "guidance_embeds": True,
        "text_embed_dim": 16, "pooled_projection_dim": 8, "rope_axes_dim": (2, 4, 4), **more,
    })  # fmt: skip


def hunyuan_i2v(**more):
    return parts.without("HunyuanVideoImageToVideoPipeline", *parts.TEXTS, "image_processor",
                         vae=parts.TinyVae(4), transformer=hunyuan_transformer(**more),
                         scheduler=parts.flow(shift=7.0))  # fmt: skip


def hunyuan_skyreels():
    return parts.without("HunyuanSkyreelsImageToVideoPipeline", *parts.TEXTS, vae=parts.TinyVae(4),
                         transformer=hunyuan_transformer(in_channels=8), scheduler=parts.flow(shift=7.0))  # fmt: skip


def hunyuan_i2v_inputs(n, cfg):
    return {**base.hunyuan_inputs(n, cfg), "image": picture(), "generator": seeded()}


def hunyuan15_i2v():
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=3, num_refiner_layers=1,
        mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=16, text_embed_2_dim=8, image_embed_dim=12,
        rope_axes_dim=(2, 2, 4), target_size=32, task_type="i2v",
    )  # fmt: skip
    return parts.without("HunyuanVideo15ImageToVideoPipeline", *parts.TEXTS, vae=parts.TinyVae(4),
                         transformer=transformer, scheduler=parts.flow(shift=7.0),
                         guider=diffusers.ClassifierFreeGuidance(guidance_scale=4.0), image_encoder=TinyEye(12),
                         feature_extractor=TinyProcessor())  # fmt: skip


def hunyuan15_i2v_inputs(n, cfg):
    inputs = base.hunyuan15_inputs(n, cfg)
    return {**{name: value for name, value in inputs.items() if name not in ("height", "width", "latents")},
            "image": picture(), "generator": seeded()}  # fmt: skip


def cosmos_v2w():
    scheduler = base.cosmos().scheduler
    return parts.without("CosmosVideoToWorldPipeline", *parts.TEXT, vae=parts.TinyVae(4, temporal=8),
                         transformer=base.cosmos_transformer(in_channels=5), scheduler=scheduler,
                         safety_checker=parts.Lenient())  # fmt: skip


def cosmos_v2w_inputs(n, cfg):
    return {**base.cosmos_inputs(n, cfg), "image": picture(), "generator": seeded()}


def cosmos_25():
    return parts.without("Cosmos2_5_PredictBasePipeline", *parts.TEXT, vae=parts.TinyVae(4),
                         transformer=base.cosmos_transformer(in_channels=5, extra_pos_embed_type=None),
                         scheduler=base.unipc(), safety_checker=parts.Lenient())  # fmt: skip


def cosmos_25_inputs(n, cfg):
    return {**base.cosmos_inputs(n, cfg), "image": picture(), "num_frames": 5, "generator": seeded()}


def kandinsky_i2v():
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16, out_visual_dim=4, patch_size=(1, 2, 2),
        model_dim=24, ff_dim=32, num_text_blocks=1, num_visual_blocks=3, axes_dims=(4, 4, 4), visual_cond=True,
    )  # fmt: skip
    return parts.without("Kandinsky5I2VPipeline", *parts.TEXTS, vae=parts.TinyVae(4), transformer=transformer,
                         scheduler=parts.flow(shift=5.0))  # fmt: skip


def kandinsky_i2v_inputs(n, cfg):
    return {**base.kandinsky_inputs(n, cfg), "latents": None, "image": picture(), "generator": seeded(),
            "num_frames": 21}  # fmt: skip  # the first 4 latent frames are normalised by those after them


def ltx2_variant(pipeline):
    pipe = base.ltx2()
    return parts.without(pipeline, *parts.TEXT, "vocoder", vae=pipe.vae, audio_vae=pipe.audio_vae,
                         connectors=pipe.connectors, transformer=pipe.transformer,
                         scheduler=pipe.scheduler)  # fmt: skip


def ltx2_i2v_inputs(n, cfg):
    return {**base.ltx2_inputs(n, cfg), "latents": None, "image": picture(64, 64), "image_crf": 0,
            "generator": seeded()}  # fmt: skip


def ltx2_condition_inputs(n, cfg):
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    condition = LTX2VideoCondition(frames=picture(64, 64), index=0, strength=1.0, crf=0)
    return {**base.ltx2_inputs(n, cfg), "latents": None, "audio_latents": None, "conditions": [condition],
            "generator": seeded()}  # fmt: skip


def case(name, pipeline, build, inputs, **more):
    return parts.Case(name=name, pipeline=pipeline, build=build, inputs=inputs, batch=False, **more)


HUNYUAN = {"layers": {"double": (1,), "single": (0,)}}
VARIANTS = (
    case("cogvideox-v2v", "CogVideoXVideoToVideoPipeline", cogvideox_v2v, cogvideox_v2v_inputs),
    case("wan-v2v", "WanVideoToVideoPipeline", wan_v2v, wan_v2v_inputs),
    case("wan-2.1-i2v", "WanImageToVideoPipeline", wan_21_i2v, wan_i2v_inputs),
    case("wan-2.2-i2v", "WanImageToVideoPipeline", wan_22_i2v, wan_22_i2v_inputs),
    case("skyreels-v2-i2v", "SkyReelsV2ImageToVideoPipeline", skyreels_i2v, wan_i2v_inputs),
    case("hunyuan-i2v", "HunyuanVideoImageToVideoPipeline", lambda: hunyuan_i2v(image_condition_type="latent_concat"),
         hunyuan_i2v_inputs, **HUNYUAN),
    case("hunyuan-i2v-replace", "HunyuanVideoImageToVideoPipeline",
         lambda: hunyuan_i2v(image_condition_type="token_replace", in_channels=4), hunyuan_i2v_inputs, **HUNYUAN),
    case("hunyuan-skyreels", "HunyuanSkyreelsImageToVideoPipeline", hunyuan_skyreels, hunyuan_i2v_inputs, **HUNYUAN),
    case("hunyuan-1.5-i2v", "HunyuanVideo15ImageToVideoPipeline", hunyuan15_i2v, hunyuan15_i2v_inputs),
    case("cosmos-v2w", "CosmosVideoToWorldPipeline", cosmos_v2w, cosmos_v2w_inputs, cfg=3.0),
    case("cosmos-2.5", "Cosmos2_5_PredictBasePipeline", cosmos_25, cosmos_25_inputs, cfg=3.0),
    case("kandinsky5-i2v", "Kandinsky5I2VPipeline", kandinsky_i2v, kandinsky_i2v_inputs),
    case("ltx2-i2v", "LTX2ImageToVideoPipeline", lambda: ltx2_variant("LTX2ImageToVideoPipeline"), ltx2_i2v_inputs),
    case("ltx2-condition", "LTX2ConditionPipeline", lambda: ltx2_variant("LTX2ConditionPipeline"),
         ltx2_condition_inputs),
)  # fmt: skip
