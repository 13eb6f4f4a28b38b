"""The guider in its two homes: a standard pipeline that takes guiders, and the loop of a modular pipeline."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
from stg_tune.guidance.families import architecture_of
from stg_tune.guidance.guider import STGGuider
from stg_tune.records import GuidanceSpec, Segment, SkipTerm


def spec_of(cfg=4.0, *, branch="cond", op="residual", stop=1.0, **more):
    term = SkipTerm(name="t", skip_layers={"blocks": (1,)}, skip_op=op, stg_scale=1.0, branch=branch)
    return GuidanceSpec(cfg_scale=cfg, segments=(Segment(stop=stop, terms=(term,)),), **more)


def transformer():
    torch.manual_seed(0)
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32,
        freq_dim=64, ffn_dim=32, num_layers=3, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()  # fmt: skip


LATENTS = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
TEXTS = torch.randn(2, 1, 8, 32, generator=torch.Generator().manual_seed(2))


def modular_loop(guider, model, steps=2, latents=LATENTS):
    """What ``LoopDenoiser`` of the modular Wan pipeline does, on plain latents."""
    for step in range(steps):
        timestep = torch.tensor([900.0 - 300 * step])
        guider.set_state(step=step, num_inference_steps=steps, timestep=timestep)
        state = guider.prepare_inputs({"encoder_hidden_states": (TEXTS[0], TEXTS[1])})
        for batch in state:
            guider.prepare_models(model)
            text = batch.encoder_hidden_states
            batch.noise_pred = model(latents, timestep, encoder_hidden_states=text, return_dict=False)[0]
            guider.cleanup_models(model)
        latents = latents - 0.3 * guider(state)[0]
    return latents


def standard_loop(spec, model, steps=2):
    """The same with ``guided``, whose pipeline makes two calls a step."""
    latents = LATENTS
    scheduler = type("Scheduler", (), {"timesteps": torch.tensor([900.0, 600.0])[:steps]})()
    pipe = type("WanPipeline", (), {"transformer": model, "scheduler": scheduler, "_guidance_scale": 9.0})()
    with guided(pipe, spec):
        for t in scheduler.timesteps:
            c = model(latents, t[None], encoder_hidden_states=TEXTS[0], return_dict=False)[0]
            u = model(latents, t[None], encoder_hidden_states=TEXTS[1], return_dict=False)[0]
            latents = latents - 0.3 * (u + 9.0 * (c - u))
    return latents


@pytest.mark.parametrize("branch", ["cond", "uncond", "crossed", "from_guided"])
@torch.no_grad()
def test_a_modular_loop_gives_what_guided_gives(branch):
    model = transformer()
    spec = spec_of(branch=branch, stop=0.5)
    found = modular_loop(STGGuider(spec.to_dict(), "wan"), model)
    torch.testing.assert_close(found, standard_loop(spec, model), atol=1e-5, rtol=0)
    plain = modular_loop(STGGuider(GuidanceSpec(cfg_scale=4.0).to_dict(), "wan"), model)
    assert (found - plain).abs().max() > 1e-3


@torch.no_grad()
def test_prefix_reuse_changes_nothing_and_no_block_stays_replaced():
    model = transformer()
    blocks = list(model.blocks)
    found = [modular_loop(STGGuider(spec_of().to_dict(), "wan", prefix_reuse=reuse), model) for reuse in (True, False)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    assert list(model.blocks) == blocks


@torch.no_grad()
def test_it_reports_effects_and_names_a_term_without():
    """One frame of one patch: each token is alone, so the identity map changes nothing."""
    model = transformer()
    guider = STGGuider(spec_of().to_dict(), "wan")
    modular_loop(guider, model)
    assert guider.effects()["t"] > 1e-2
    lonely = STGGuider(spec_of(op="attention").to_dict(), "wan")
    with pytest.warns(UserWarning, match="term 't' had no effect"):
        modular_loop(lonely, model, latents=LATENTS[:, :, :1, :2, :2])
    assert lonely.effects()["t"] < 1e-5


@torch.no_grad()
def test_an_error_in_a_pass_is_cleaned_up():
    model, guider = transformer(), STGGuider(spec_of().to_dict(), "wan")
    blocks = list(model.blocks)
    guider.set_state(step=0, num_inference_steps=1, timestep=torch.tensor([900.0]))
    guider.prepare_models(model)
    assert list(model.blocks) != blocks
    guider.close()
    assert list(model.blocks) == blocks


GOLDEN = Path(__file__).parents[2] / "golden"
RECORDED = {"cfg_only": (5.0, 0.0, 0.0), "cfg_slg": (5.0, 2.0, 0.0), "cfg_slg_rescale0.7": (5.0, 2.0, 0.7),
            "slg_only_orig": (1.0, 2.0, 0.0)}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_the_arithmetic_of_diffusers_own_guider(name):
    golden = load_file(GOLDEN / "diffusers_slg" / "guider.safetensors")
    cfg, scale, rescale = RECORDED[name]
    term = SkipTerm(name="t", skip_layers={"blocks": (1,)}, skip_op="residual", stg_scale=scale)
    guider = STGGuider(
        GuidanceSpec(cfg_scale=cfg, segments=(Segment(terms=(term,), rescale=rescale),)).to_dict(), "wan"
    )
    guider.set_state(step=2, num_inference_steps=10, timestep=torch.tensor([500.0]))
    given = {"pred_cond": golden["cond"], "pred_uncond": golden["uncond"] if cfg != 1 else None}
    weak = {"pred_weak_2": golden["skip"]} if scale else {}
    torch.testing.assert_close(guider.forward(**given, **weak).pred, golden[name], atol=2e-6, rtol=1e-6)


@torch.no_grad()
def test_the_recorded_loop_of_diffusers_own_guider():
    folder = GOLDEN / "stg_official" / "wan"
    model = diffusers.WanTransformer3DModel.from_config(json.loads((folder / "transformer.config.json").read_text()))
    model.load_state_dict(load_file(folder / "transformer.safetensors"))
    model.eval()
    call, texts = load_file(GOLDEN / "diffusers_slg" / "wan.safetensors"), load_file(folder / "io.safetensors")
    term = SkipTerm(name="t", skip_layers={"blocks": (1,)}, skip_op="residual", stg_scale=2.0)
    guider = STGGuider(GuidanceSpec(cfg_scale=5.0, segments=(Segment(terms=(term,)),)).to_dict(), "wan")
    guider.set_state(step=1, num_inference_steps=4, timestep=call["in.timestep"])
    state = guider.prepare_inputs({"text": (texts["in1.prompt_embeds"], texts["in1.negative_prompt_embeds"])})
    for batch in state:
        guider.prepare_models(model)
        batch.noise_pred = model(call["in.hidden_states"], call["in.timestep"], batch.text, return_dict=False)[0]
        guider.cleanup_models(model)
    golden = load_file(GOLDEN / "diffusers_slg" / "guider.safetensors")
    torch.testing.assert_close(guider(state)[0], golden["wan_loop.cfg5_slg2"], atol=1e-4, rtol=0)


def late_spec(cfg):
    term = SkipTerm(name="t", skip_layers={"blocks": (1,)}, skip_op="residual", stg_scale=1.0)
    return GuidanceSpec(cfg_scale=cfg, segments=(Segment(start=0.4, terms=(term,), rescale=0.5),))


MODULAR = {
    "wan": ("wan.modular_blocks_wan", "WanBlocks"),
    "wan-2.2": ("wan.modular_blocks_wan22", "Wan22Blocks"),
    "ltx": ("ltx.modular_blocks_ltx", "LTXBlocks"),
    "hunyuan-video-1.5": ("hunyuan_video1_5.modular_blocks_hunyuan_video1_5", "HunyuanVideo15Blocks"),
}


@pytest.mark.parametrize("name", MODULAR)
@torch.no_grad()
def test_modular_pipelines_of_diffusers_give_what_guided_gives(cases, name):
    made = next(case for case in cases if case.name == name)
    pipe, spec = made.pipe(), late_spec(made.cfg + 1.25)
    family = architecture_of(pipe).family
    place, blocks = MODULAR[name]
    modular = getattr(importlib.import_module(f"diffusers.modular_pipelines.{place}"), blocks)()
    modular = modular.sub_blocks["denoise"].init_pipeline()
    parts = {"transformer": pipe.transformer, "scheduler": pipe.scheduler, "guider": STGGuider(spec.to_dict(), family)}
    if name == "wan-2.2":
        parts.update(transformer_2=pipe.transformer_2, guider_2=STGGuider(spec.to_dict(), family))
        modular.update_components(boundary_ratio=pipe.config.boundary_ratio)
    modular.update_components(**parts)
    modular.set_progress_bar_config(disable=True)
    inputs = made.inputs(1, made.cfg)
    found = modular(**{key: value for key, value in inputs.items() if "scale" not in key}, output="latents")
    pipe = made.pipe()
    with guided(pipe, spec):
        expected = made.run(pipe)
    plain = made.run(made.pipe())
    tokens = expected.dim() == 3  # LTX's standard pipeline leaves them so
    unpacked = pipe._unpack_latents(expected, *found.shape[2:]) if tokens else expected
    torch.testing.assert_close(found, unpacked, atol=1e-5, rtol=0)
    assert (expected - plain).abs().max() > 1e-2


@torch.no_grad()
def test_a_standard_pipeline_that_takes_guiders_takes_this_one(cases):
    made = next(case for case in cases if case.name == "hunyuan-video-1.5")
    pipe, guided_pipe, spec = made.pipe(), made.pipe(), late_spec(made.cfg + 1.25)
    pipe.guider = STGGuider(spec.to_dict(), "hunyuan-video-1.5")
    with guided(guided_pipe, spec):
        expected = made.run(guided_pipe)
    torch.testing.assert_close(made.run(pipe), expected, atol=1e-5, rtol=0)


def test_it_is_saved_and_loaded_as_plain_data(tmp_path):
    guider = STGGuider(spec_of(op="attention").to_dict(), "wan")
    guider.save_pretrained(tmp_path)
    again = STGGuider.from_pretrained(tmp_path)
    assert (again._spec, again._record) == (guider._spec, guider._record)


def test_what_a_guider_cannot_do_is_refused():
    with pytest.raises(StgTuneError, match="cannot restart"):
        STGGuider(spec_of(cfg_source="pipeline").to_dict(), "wan")
    with pytest.raises(StgTuneError, match="unknown family 'vvan'"):
        STGGuider(spec_of().to_dict(), "vvan")
