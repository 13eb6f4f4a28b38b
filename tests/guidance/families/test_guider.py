"""The guider in its two homes: a standard pipeline that takes guiders, and the loop of a modular pipeline."""

from __future__ import annotations

import diffusers
import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
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


def modular_loop(guider, model, steps=2):
    """What ``LoopDenoiser`` of the modular Wan pipeline does, on plain latents."""
    latents = LATENTS
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
def test_an_error_in_a_pass_is_cleaned_up():
    model, guider = transformer(), STGGuider(spec_of().to_dict(), "wan")
    blocks = list(model.blocks)
    guider.set_state(step=0, num_inference_steps=1, timestep=torch.tensor([900.0]))
    guider.prepare_models(model)
    assert list(model.blocks) != blocks
    guider.close()
    assert list(model.blocks) == blocks


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
