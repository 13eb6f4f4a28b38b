"""Tiny random pipelines of every family, built from configurations: no downloads, no real weights."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import diffusers
import pytest
import torch


def _load(name):
    """A module beside this one: test folders are no packages."""
    key = f"stg_tune_tests_families_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, Path(__file__).parent / f"{name}.py")
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


_parts = _load("parts")
Case, Lenient, TinyVae = _parts.Case, _parts.Lenient, _parts.TinyVae
FURTHER = (*_load("recipe").CASES, *_load("more").CASES, *_load("own").CASES)
kandinsky_inputs = _load("more").kandinsky_inputs
TEXT, TEXTS, flow, without = _parts.TEXT, _parts.TEXTS, _parts.flow, _parts.without
masks, per_prompt, rand, texts, valid = _parts.masks, _parts.per_prompt, _parts.rand, _parts.texts, _parts.valid


def mochi():
    transformer = diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=3, pooled_projection_dim=16,
        in_channels=12, text_embed_dim=32, time_embed_dim=4, activation_fn="swiglu", max_sequence_length=16,
    )  # fmt: skip
    return without("MochiPipeline", *TEXT, "vae", transformer=transformer, scheduler=flow(invert_sigmas=True))


def mochi_inputs(n, cfg):
    return {
        **texts(n, 16, 32), **masks(n, 16, torch.bool), "latents": per_prompt(n, 12, 2, 4, 6), "height": 32,
        "width": 48,
        "num_frames": 7, "num_inference_steps": 2, "guidance_scale": cfg,
    }  # fmt: skip


def svd():
    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 32, 64), layers_per_block=2, sample_size=8, in_channels=8, out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal",
                          "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=32, num_attention_heads=(2, 2, 2), projection_class_embeddings_input_dim=96,
        addition_time_embed_dim=32,
    )  # fmt: skip
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(hidden_size=32, projection_dim=32, num_hidden_layers=1, num_attention_heads=4,
                              image_size=32, intermediate_size=37, patch_size=16)  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", interpolation_type="linear",
        num_train_timesteps=1000, prediction_type="v_prediction", sigma_max=700.0, sigma_min=0.002, steps_offset=1,
        timestep_spacing="leading", timestep_type="continuous", trained_betas=None, use_karras_sigmas=True,
    )  # fmt: skip
    return diffusers.StableVideoDiffusionPipeline(
        vae=TinyVae(4), image_encoder=CLIPVisionModelWithProjection(vision), unet=unet, scheduler=scheduler,
        feature_extractor=CLIPImageProcessor(crop_size=32, size=32),
    )  # fmt: skip


def svd_inputs(n, cfg):
    return {
        "image": per_prompt(n, 3, 32, 32).sigmoid(), "latents": per_prompt(n, 2, 4, 8, 8), "height": 64, "width": 64,
        "num_frames": 2, "num_inference_steps": 2, "max_guidance_scale": cfg,
        "min_guidance_scale": min(1.5, cfg), "generator": torch.Generator().manual_seed(0), "noise_aug_strength": 0.0,
    }  # fmt: skip


def ltx_transformer():
    return diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, num_layers=3, caption_channels=32,
    )  # fmt: skip


def ltx(pipeline):
    vae = TinyVae(8, spatial=32, temporal=8) if pipeline != "LTXPipeline" else None
    scheduler = flow(use_dynamic_shifting=pipeline != "LTXConditionPipeline")
    return without(pipeline, *TEXT, vae=vae, transformer=ltx_transformer(), scheduler=scheduler)


def ltx_inputs(n, cfg):
    return {
        **texts(n, 16, 32), **masks(n, 16), "latents": per_prompt(n, 24, 8), "height": 64, "width": 128,
        "num_frames": 17, "num_inference_steps": 2, "guidance_scale": cfg,
    }  # fmt: skip


def ltx_i2v_inputs(n, cfg):
    return {**ltx_inputs(n, cfg), "image": rand(n, 3, 64, 128), "latents": None,
            "generator": [torch.Generator().manual_seed(k) for k in range(n)]}  # fmt: skip


def ltx_condition_inputs(n, cfg):
    return {**ltx_inputs(n, cfg), "image": rand(1, 3, 64, 128), "latents": None, "image_cond_noise_scale": 0.0,
            "generator": torch.Generator().manual_seed(0)}  # fmt: skip


def cogvideox(pipeline):
    image = pipeline != "CogVideoXPipeline"
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=8 if image else 4, out_channels=4, time_embed_dim=2,
        text_embed_dim=32, num_layers=3, sample_width=2, sample_height=2, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=16,
    )  # fmt: skip
    vae = TinyVae(4) if image else None
    return without(pipeline, *TEXT, vae=vae, transformer=transformer, scheduler=diffusers.CogVideoXDDIMScheduler())


def cogvideox_inputs(n, cfg):
    return {
        **texts(n, 16, 32), "latents": per_prompt(n, 3, 4, 4, 4), "height": 32, "width": 32, "num_frames": 9,
        "num_inference_steps": 2, "guidance_scale": cfg,
    }  # fmt: skip


def cogvideox_i2v_inputs(n, cfg):
    return {**cogvideox_inputs(n, cfg), "image": rand(n, 3, 32, 32), "generator": torch.Generator().manual_seed(0)}


def hunyuan():
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=2, num_single_layers=2,
        num_refiner_layers=1, patch_size=1, patch_size_t=1, guidance_embeds=True, text_embed_dim=16,
        pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    return without("HunyuanVideoPipeline", *TEXTS, "vae", transformer=transformer, scheduler=flow(shift=7.0))


def hunyuan_inputs(n, cfg):
    return {
        **texts(n, 16, 16), **masks(n, 16), "pooled_prompt_embeds": per_prompt(n, 8, seed=5),
        "negative_pooled_prompt_embeds": per_prompt(n, 8, seed=6), "latents": per_prompt(n, 4, 2, 4, 4), "height": 32,
        "width": 32, "num_frames": 5, "num_inference_steps": 2, "true_cfg_scale": cfg,
    }  # fmt: skip


def hunyuan15():
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=3, num_refiner_layers=1,
        mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=16, text_embed_2_dim=8, image_embed_dim=12,
        rope_axes_dim=(2, 2, 4), target_size=16, task_type="t2v",
    )  # fmt: skip
    guider = diffusers.ClassifierFreeGuidance(guidance_scale=4.0)
    return without("HunyuanVideo15Pipeline", *TEXTS, vae=TinyVae(4), transformer=transformer,
    scheduler=flow(shift=7.0),
                   guider=guider)  # fmt: skip


def hunyuan15_inputs(n, cfg):
    sides = ("", "negative_")
    kinds = (("prompt_embeds", 16, 16), ("prompt_embeds_2", 8, 8))
    return {
        **{f"{side}{kind}": per_prompt(n, length, width, seed=len(side)) for side in sides for kind, length,
        width in kinds},
        **{f"{side}prompt_embeds_mask": valid(n, 16) for side in sides},
        **{f"{side}prompt_embeds_mask_2": valid(n, 8) for side in sides},
        "latents": per_prompt(n, 4, 2, 4, 4), "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2,
    }  # fmt: skip


def wan_transformer(**more):
    return diffusers.WanTransformer3DModel(**{
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16,
        "out_channels": 16, "text_dim": 32, "freq_dim": 64, "ffn_dim": 32, "num_layers": 3, "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 32, **more,
    })  # fmt: skip


def unipc():
    return diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def wan():
    return without("WanPipeline", *TEXT, "vae", transformer=wan_transformer(), scheduler=unipc())


def wan_two_experts():
    return without("WanPipeline", *TEXT, "vae", transformer=wan_transformer(), scheduler=unipc(),
                   transformer_2=wan_transformer(), boundary_ratio=0.9)  # fmt: skip


def wan_i2v():
    return without("WanImageToVideoPipeline", *TEXT, "image_encoder", "image_processor", vae=TinyVae(16),
                   transformer=wan_transformer(in_channels=36), transformer_2=None, boundary_ratio=None,
                   scheduler=unipc())  # fmt: skip


def wan_inputs(n, cfg):
    return {
        **texts(n, 16, 32), "latents": per_prompt(n, 16, 2, 4, 6), "height": 32, "width": 48, "num_frames": 5,
        "num_inference_steps": 2, "guidance_scale": cfg,
    }  # fmt: skip


def wan_2_inputs(n, cfg):
    return {**wan_inputs(n, cfg), "num_inference_steps": 3, "guidance_scale_2": cfg if cfg == 1 else 3.0}


def wan_i2v_inputs(n, cfg):
    return {**wan_inputs(n, cfg), "image": rand(1, 3, 32, 48), "image_embeds": None}


def skyreels():
    transformer = diffusers.SkyReelsV2Transformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32,
        freq_dim=64, ffn_dim=32, num_layers=3, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )  # fmt: skip
    return without("SkyReelsV2Pipeline", *TEXT, "vae", transformer=transformer, scheduler=unipc())


def latte():
    transformer = diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=3, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=32,
        in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        video_length=2,
    )  # fmt: skip
    return without("LattePipeline", *TEXT, "vae", transformer=transformer, scheduler=diffusers.DDIMScheduler())


def latte_inputs(n, cfg):
    return {
        **texts(n, 8, 32), "negative_prompt": None, "latents": per_prompt(n, 4, 2, 8, 8), "height": 64, "width": 64,
        "video_length": 2, "num_inference_steps": 2, "guidance_scale": cfg, "mask_feature": False,
        "clean_caption": False,
    }  # fmt: skip


def allegro():
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, num_layers=3,
        cross_attention_dim=24,
        sample_width=8, sample_height=8, sample_frames=8, caption_channels=24,
    )  # fmt: skip
    return without("AllegroPipeline", *TEXT, "vae", transformer=transformer,
                   scheduler=diffusers.DDIMScheduler())  # fmt: skip


def allegro_inputs(n, cfg):
    return {
        **texts(n, 8, 24), **masks(n, 8), "negative_prompt": None, "latents": per_prompt(n, 4, 2, 8, 8), "height": 64,
        "width": 64, "num_frames": 8, "num_inference_steps": 2, "guidance_scale": cfg, "clean_caption": False,
    }  # fmt: skip


def cosmos_transformer(**more):
    return diffusers.CosmosTransformer3DModel(**{
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3,
        "mlp_ratio": 2, "text_embed_dim": 32, "adaln_lora_dim": 4, "max_size": (4, 32, 32), "patch_size": (1, 2, 2),
        "rope_scale": (2.0, 1.0, 1.0), "concat_padding_mask": True, "extra_pos_embed_type": "learnable", **more,
    })  # fmt: skip


def cosmos():
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80, sigma_data=0.5, sigma_schedule="karras",
                                            num_train_timesteps=1000, prediction_type="epsilon", rho=7.0,
                                            final_sigmas_type="sigma_min")  # fmt: skip
    return without("CosmosTextToWorldPipeline", *TEXT, "vae", transformer=cosmos_transformer(), scheduler=scheduler,
                   safety_checker=Lenient())  # fmt: skip


def cosmos_inputs(n, cfg):
    return {
        **texts(n, 16, 32), "latents": per_prompt(n, 4, 2, 4, 4), "height": 32, "width": 32, "num_frames": 9,
        "num_inference_steps": 2, "guidance_scale": cfg,
    }  # fmt: skip


def cosmos2():
    scheduler = flow(use_karras_sigmas=True)
    transformer = cosmos_transformer(in_channels=5, concat_padding_mask=True, extra_pos_embed_type=None)
    return without("Cosmos2VideoToWorldPipeline", *TEXT, vae=TinyVae(4), transformer=transformer, scheduler=scheduler,
                   safety_checker=Lenient())  # fmt: skip


def cosmos2_inputs(n, cfg):
    return {**cosmos_inputs(n, cfg), "image": rand(1, 3, 32, 32), "num_frames": 5, "latents": None,
            "generator": torch.Generator().manual_seed(0)}  # fmt: skip


def ltx2():
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4,
        audio_cross_attention_dim=8, num_layers=3, qk_norm="rms_norm_across_heads", caption_channels=16,
    )  # fmt: skip
    connectors = LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=2, video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8, video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2, audio_connector_attention_head_dim=8, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
    )  # fmt: skip
    return without("LTX2Pipeline", *TEXT, "vocoder", vae=TinyVae(4, spatial=32, temporal=8), audio_vae=TinyVae(2,
    statistics=4),
                   connectors=connectors, transformer=transformer,
                   scheduler=flow(use_dynamic_shifting=True))  # fmt: skip


def ltx2_inputs(n, cfg):
    return {
        **texts(n, 16, 32), **masks(n, 16), "latents": per_prompt(n, 12, 4), "audio_latents": per_prompt(n, 18, 4),
        "height": 64, "width": 64, "num_frames": 17, "num_inference_steps": 2, "guidance_scale": cfg,
        "audio_guidance_scale": cfg, "stg_scale": 0.0, "audio_stg_scale": 0.0, "modality_scale": 1.0,
        "audio_modality_scale": 1.0, "guidance_rescale": 0.0, "audio_guidance_rescale": 0.0,
    }  # fmt: skip


HUNYUAN_LAYERS = {"double": (1,), "single": (0,)}
FACTORISED = {"spatial": (1,), "temporal": (2,)}

CASES = (
    Case(name="mochi", pipeline="MochiPipeline", build=mochi, inputs=mochi_inputs),
    Case(name="svd", pipeline="StableVideoDiffusionPipeline", build=svd, inputs=svd_inputs,
         layers={"spatial": (6,), "temporal": (5,)}),
    Case(name="ltx", pipeline="LTXPipeline", build=lambda: ltx("LTXPipeline"), inputs=ltx_inputs),
    Case(name="ltx-i2v", pipeline="LTXImageToVideoPipeline", build=lambda: ltx("LTXImageToVideoPipeline"),
         inputs=ltx_i2v_inputs),
    Case(name="ltx-condition", pipeline="LTXConditionPipeline", build=lambda: ltx("LTXConditionPipeline"),
         inputs=ltx_condition_inputs, batch=False),
    Case(name="ltx2", pipeline="LTX2Pipeline", build=ltx2, inputs=ltx2_inputs),
    Case(name="cogvideox", pipeline="CogVideoXPipeline", build=lambda: cogvideox("CogVideoXPipeline"),
         inputs=cogvideox_inputs),
    Case(name="cogvideox-i2v", pipeline="CogVideoXImageToVideoPipeline",
         build=lambda: cogvideox("CogVideoXImageToVideoPipeline"), inputs=cogvideox_i2v_inputs, batch=False),
    Case(name="hunyuan-video", pipeline="HunyuanVideoPipeline", build=hunyuan, inputs=hunyuan_inputs,
         layers=HUNYUAN_LAYERS),
    Case(name="hunyuan-video-1.5", pipeline="HunyuanVideo15Pipeline", build=hunyuan15, inputs=hunyuan15_inputs),
    Case(name="wan", pipeline="WanPipeline", build=wan, inputs=wan_inputs),
    Case(name="wan-2.2", pipeline="WanPipeline", build=wan_two_experts, inputs=wan_2_inputs),
    Case(name="wan-i2v", pipeline="WanImageToVideoPipeline", build=wan_i2v, inputs=wan_i2v_inputs, batch=False),
    Case(name="skyreels-v2", pipeline="SkyReelsV2Pipeline", build=skyreels, inputs=wan_inputs),
    Case(name="latte", pipeline="LattePipeline", build=latte, inputs=latte_inputs, layers=FACTORISED),
    Case(name="allegro", pipeline="AllegroPipeline", build=allegro, inputs=allegro_inputs),
    Case(name="cosmos", pipeline="CosmosTextToWorldPipeline", build=cosmos, inputs=cosmos_inputs, cfg=3.0),
    Case(name="cosmos-2", pipeline="Cosmos2VideoToWorldPipeline", build=cosmos2, inputs=cosmos2_inputs, cfg=3.0,
         batch=False),
)  # fmt: skip
CASES = (*CASES, *FURTHER)
sys.modules["stg_tune_tests_families_bases"] = SimpleNamespace(**globals())
VARIANTS = _load("variants").VARIANTS


@pytest.fixture(scope="session")
def cases():
    """Every tiny pipeline."""
    return CASES


@pytest.fixture(scope="session")
def variants():
    """Further pipeline classes of the families."""
    return VARIANTS


@pytest.fixture(scope="session")
def reference():
    """An independent slow way to guide a pipeline."""
    return _load("slowly")


def pytest_generate_tests(metafunc):
    """A test with an argument ``case`` runs for every tiny pipeline, with ``variant`` for further classes."""
    for argument, cases in (("case", CASES), ("variant", VARIANTS)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, cases, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
