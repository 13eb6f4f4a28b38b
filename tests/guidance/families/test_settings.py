"""Settings as users combine them, in every family: windows, several terms, dtypes, tiling, real depths."""

from __future__ import annotations

import dataclasses

import diffusers
import pytest
import torch

from stg_tune.guidance import guided
from stg_tune.guidance.perturb import layout_of
from stg_tune.models.families import SVD
from stg_tune.records import GuidanceSpec, Segment, SkipTerm


@pytest.fixture
def made(cases, request):
    return next(case for case in cases if case.name == getattr(request, "param", "wan"))


def terms_of(case, *ops, scales=(1.5, 0.8)):
    return tuple(
        SkipTerm(name=op, skip_layers=case.layers, skip_op=op, stg_scale=scale)
        for op, scale in zip(ops, scales, strict=False)
    )


def test_a_window_with_orthogonal_terms_a_rescale_and_a_scale_of_its_own(case, reference):
    """Steps before the window are plain CFG of another scale; a wrong step or a mix of samples would show."""
    late = Segment(start=0.5, cfg_scale=case.cfg + 2, terms=terms_of(case, "residual", "attention"),
                   combination="orthogonal", rescale=0.7)  # fmt: skip
    num_steps = case.inputs(1, case.cfg)["num_inference_steps"]
    prompts = 2 if case.batch else 1
    recipe = reference.LateRecipe(num_steps=num_steps, cfg_before=case.cfg + 1.25)
    expected = reference.run(case, late.terms, cfg=late.cfg_scale, prompts=prompts, recipe=recipe)
    pipe = case.pipe()
    with guided(pipe, GuidanceSpec(cfg_scale=case.cfg + 1.25, segments=(late,))) as run:
        found = case.run(pipe, prompts=prompts)
    torch.testing.assert_close(found, expected, atol=3e-4 * max(float(expected.std()), 1), rtol=0)
    assert all(len(series) == num_steps // 2 for series in run.effect_series().values())


def test_the_published_unet_has_16_spatial_and_16_temporal_blocks():
    with torch.device("meta"):
        layout = layout_of(diffusers.UNetSpatioTemporalConditionModel(), SVD)
    assert {stack: layout.depth(stack) for stack in layout.stacks} == {"spatial": 16, "temporal": 16}
    assert layout.slots["spatial", 7].path.startswith("up_blocks[1].attentions[0]")  # "u0" of the authors


@pytest.mark.parametrize("made", ["wan", "mochi"], indirect=True)
def test_a_pipeline_may_change_its_dtype_before_and_inside(made):
    """Weights in bfloat16 by ``pipe.to``: the same video up to their rounding, whenever that happens."""
    spec = GuidanceSpec(cfg_scale=made.cfg + 1.25, segments=(Segment(terms=terms_of(made, "attention")),))
    exact_pipe, before, inside = made.pipe(), made.pipe(), made.pipe()
    with guided(exact_pipe, spec):
        exact = made.run(exact_pipe)
    half = dataclasses.replace(made, inputs=lambda n, cfg: halved(made.inputs(n, cfg)))
    before.to(torch.bfloat16)
    with guided(before, spec):
        found = half.run(before)
    with guided(inside, spec):
        inside.to(torch.bfloat16)
        assert torch.equal(half.run(inside), found)
    assert torch.equal(half.run(inside), half.run(before))
    assert 0 < (found.float() - exact).abs().mean() < 0.1 * exact.std()


def halved(inputs):
    wide = (torch.Tensor,)
    return {name: value.to(torch.bfloat16) if isinstance(value, wide) and value.is_floating_point() else value
            for name, value in inputs.items()}  # fmt: skip


def with_real_vae(pipe):
    torch.manual_seed(2)
    pipe.vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        sample_height=32, sample_width=32,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("made", ["cogvideox"], indirect=True)
def test_tiles_and_slices_of_the_autoencoder_decode_guided_latents(made):
    pipe = made.pipe()
    with_real_vae(pipe)
    pipe.vae.enable_tiling(tile_sample_min_height=16, tile_sample_min_width=16)
    pipe.vae.enable_slicing()
    spec = GuidanceSpec(cfg_scale=made.cfg + 1.25, segments=(Segment(terms=terms_of(made, "residual")),))
    with guided(pipe, spec):
        latents = made.run(pipe)
        video = pipe(**made.inputs(1, made.cfg), output_type="pt", return_dict=False)[0]
    decoded = pipe.video_processor.postprocess_video(pipe.decode_latents(latents), output_type="pt")
    assert torch.equal(video, decoded)
    plain = pipe(**made.inputs(1, made.cfg), output_type="pt", return_dict=False)[0]
    assert (video - plain).abs().max() > 1e-3
