"""The conformance suite: every family of the package is in it, or a test fails."""

from __future__ import annotations

import inspect
import warnings

import diffusers
import pytest
import torch

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
from stg_tune.guidance.families import architecture_of
from stg_tune.models.families import FAMILIES
from stg_tune.records import GuidanceSpec, Segment, SkipTerm


def spec_of(case, *ops, cfg=None, scale=1.5, **more):
    terms = tuple(SkipTerm(name=op, skip_layers=case.layers, skip_op=op, stg_scale=scale) for op in ops)
    return GuidanceSpec(cfg_scale=cfg_of(case) if cfg is None else cfg, segments=(Segment(terms=terms),), **more)


def cfg_of(case):
    """Another scale than the pipeline's own, so that nothing can be left to it."""
    return case.cfg + 1.25


def traces(case, pipe):
    """Identity of everything that guidance may touch."""
    return [
        (
            [(name, id(module), sorted(vars(module)), id(vars(module).get("forward"))) for name, module in named],
            [id(getattr(module, "processor", None)) for _, module in named],
            [
                id(hook)
                for _, module in named
                for hooks in (module._forward_hooks, module._forward_pre_hooks)
                for hook in hooks.values()
            ],
            dict(denoiser.config),
        )
        for denoiser in case.denoisers(pipe)
        for named in [list(denoiser.named_modules())]
    ], [sorted(vars(pipe.scheduler)), sorted(name for name in vars(pipe) if name not in STATE)]


STATE = {"_guidance_scale", "_guidance_scale_2", "_attention_kwargs", "_current_timestep", "_interrupt",
"_num_timesteps",
         "_joint_attention_kwargs", "_guidance_rescale", "_audio_guidance_scale", "_audio_guidance_rescale",
         "_stg_scale",
         "_audio_stg_scale", "_modality_scale", "_audio_modality_scale"}  # fmt: skip


def test_every_family_is_in_the_suite(cases):
    covered = {case.pipeline for case in cases}
    for record in (*FAMILIES, *(models.entry(name).architecture for name in models.names())):
        assert record.pipeline.rpartition(":")[2] in covered, f"{record.family} has no tiny pipeline in conftest.py"


def test_every_pipeline_class_of_a_record_exists_and_finds_it():
    for record in FAMILIES:
        for name in (record.pipeline.rpartition(":")[2], *record.variants):
            kind = getattr(diffusers, name)
            assert architecture_of(kind.__new__(kind)) is record


@pytest.mark.parametrize("op", ["residual", "attention"])
def test_a_guided_run_equals_full_passes_by_hand(case, reference, op):
    spec = spec_of(case, op)
    expected = reference.run(case, spec.segments[0].terms, cfg=spec.cfg_scale)
    spread = float(expected.std())
    for prefix_reuse in (True, False):
        pipe = case.pipe()
        with guided(pipe, spec, prefix_reuse=prefix_reuse) as run:
            found = case.run(pipe)
        torch.testing.assert_close(found, expected, atol=1e-4 * max(spread, 1), rtol=0)
    assert run.effects()[op] > 1e-3
    assert (case.run(case.pipe()) - expected).abs().max() > 1e-2 * spread


def test_two_terms_without_cfg(case, reference):
    spec = spec_of(case, "residual", "attention", cfg=1.0)
    expected = reference.run(case, spec.segments[0].terms, cfg=1.0, pipeline_cfg=1.0)
    pipe = case.pipe()
    with guided(pipe, spec):
        found = case.run(pipe, cfg=1.0)
    torch.testing.assert_close(found, expected, atol=1e-4 * max(float(expected.std()), 1), rtol=0)


def test_cfg_1_wins_over_a_pipeline_with_cfg(case):
    """The negative prediction is not computed, and does not matter."""
    pipe = case.pipe()
    with guided(pipe, spec_of(case, "residual", cfg=1.0)) as run:
        found = case.run(pipe)
    alone = case.pipe()
    with guided(alone, spec_of(case, "residual", cfg=1.0)) as plain:
        expected = case.run(alone, cfg=1.0)
    if case.name != "ltx2":  # its conditioning of the text connectors depends on the batch
        torch.testing.assert_close(found, expected, atol=1e-4 * max(float(expected.std()), 1), rtol=0)
    assert run.forwards == pytest.approx(plain.forwards)


def test_scale_0_is_the_plain_pipeline_bit_for_bit(case):
    plain = case.run(case.pipe())
    pipe = case.pipe()
    own = case.cfg + architecture_of(pipe).scale_offset
    same_twice = case.name == "wan-2.2"
    spec = spec_of(
        case, "residual", cfg=own, scale=0.0, cfg_source="pipeline" if same_twice or case.name == "svd" else "spec"
    )
    with guided(pipe, spec) as run:
        found = case.run(pipe)
    assert torch.equal(found, plain)
    assert run.effects() == {"residual": 0.0}


OWN_SCALES = {
    "svd": (lambda pipe: pipe.guidance_scale,),
    "wan-2.2": (lambda pipe: pipe._guidance_scale, lambda pipe: pipe._guidance_scale_2),
}
"""Scales that are not one number: one a frame, one an expert."""


def test_the_pipelines_own_scale_can_be_kept(case, reference):
    """Equation 6 of the pipeline, per frame, per expert or in any other way, plus the direction of the term."""
    pipe = case.pipe()
    record = architecture_of(pipe)
    kept = spec_of(case, "residual", cfg_source="pipeline")
    if case.name == "svd":  # a scale for each stack
        kept = GuidanceSpec(cfg_scale=1.0, cfg_source="pipeline", segments=(Segment(terms=tuple(
            SkipTerm(name=stack, skip_layers={stack: layers}, skip_op="attention", stg_scale=scale)
            for (stack, layers), scale in zip(case.layers.items(), (1.5, 0.6), strict=True))),))  # fmt: skip
    with guided(pipe, kept):
        found = case.run(pipe)
    if case.name in OWN_SCALES:
        expected = reference.run(case, kept.segments[0].terms, cfg=OWN_SCALES[case.name])
        torch.testing.assert_close(found, expected, atol=2e-4 * max(float(expected.std()), 1), rtol=0)
        return
    other = case.pipe()
    with guided(other, spec_of(case, "residual", cfg=case.cfg + record.scale_offset)):
        expected = case.run(other)
    torch.testing.assert_close(found, expected, atol=2e-4 * max(float(expected.std()), 1), rtol=0)


ONE_VIDEO = {"ltx-i2v": IndexError, "hunyuan-video-1.5": RuntimeError}
"""Pipelines that repeat the noise for every video, but not their image (or zeros in its place): nobody can run them."""
PER_VIDEO = ("latents", "audio_latents", "generator")


def repeat_texts(pipe):
    """Many pipelines repeat the features they make of a text for every video, but not features that they are given."""
    encode = getattr(pipe, "encode_prompt", None)

    def encode_prompt(*args, **kwargs):
        found = encode(*args, **kwargs)
        return tuple(part.repeat_interleave(2, 0) if isinstance(part, torch.Tensor) and len(part) == 1 else part
                     for part in found)  # fmt: skip

    if encode is not None and not type(pipe).__module__.startswith("stg_tune"):
        pipe.encode_prompt = encode_prompt


def test_prompts_of_a_batch_do_not_see_each_other(case):
    if not case.batch:
        pytest.skip("the pipeline takes one prompt")
    spec = spec_of(case, "attention", "residual")
    pipe = case.pipe()
    with guided(pipe, spec):
        together = case.run(pipe, prompts=2)
    pipe = case.pipe()
    with guided(pipe, spec):
        alone = case.run(pipe)
    atol = 5e-4 * max(float(alone.std()), 1)
    torch.testing.assert_close(together[: len(alone)], alone, atol=atol, rtol=0)
    if "num_videos_per_prompt" not in inspect.signature(type(pipe).__call__).parameters:
        return
    noise = {name: value for name, value in case.inputs(2, case.cfg).items() if name in PER_VIDEO}
    pipe = case.pipe()
    repeat_texts(pipe)
    if case.name in ONE_VIDEO:
        with pytest.raises(ONE_VIDEO[case.name]):
            case.run(pipe, **noise, num_videos_per_prompt=2)
        return
    with guided(pipe, spec):
        videos = case.run(pipe, **noise, num_videos_per_prompt=2)
    torch.testing.assert_close(videos[: len(alone)], alone, atol=atol, rtol=0)
    assert (videos[len(alone) :] - together[len(alone) :]).abs().max() > 10 * atol, "the other prompt"


def test_nothing_stays_and_the_next_plain_call_is_that_of_a_fresh_pipeline(case):
    pipe = case.pipe()
    plain = case.run(pipe)
    before = traces(case, pipe)
    with guided(pipe, spec_of(case, "attention", "residual")):
        case.run(pipe)
    assert traces(case, pipe) == before
    again = case.run(pipe)
    assert torch.equal(again, plain)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_nothing_stays_after_an_error_inside_the_call(case, error):
    pipe = case.pipe()
    plain = case.run(pipe)
    before = traces(case, pipe)
    spec = spec_of(case, "attention", "residual")

    def stop(*_):
        raise error

    target = case.denoisers(pipe)[0]
    last = next(m for m in reversed(list(target.modules())) if isinstance(m, torch.nn.Linear | torch.nn.Conv2d))

    def run_and_stop():
        handle = last.register_forward_pre_hook(stop)
        try:
            case.run(pipe)
        finally:
            handle.remove()

    with pytest.raises(error), guided(pipe, spec):
        run_and_stop()
    assert traces(case, pipe)[0] == before[0]
    assert torch.equal(case.run(pipe), plain)


@pytest.mark.parametrize("op", ["residual", "attention"])
def test_prefix_reuse_changes_a_weak_prediction_by_rounding_alone(case, reference, op):
    """With cfg_scale 1 and stg_scale -1 the answer is the weak prediction; the bar is 1e-5 in float32."""
    pipe = case.pipe()
    denoiser = case.denoisers(pipe)[0]
    calls = []
    inner = denoiser.forward
    denoiser.forward = lambda *args, **kwargs: calls.append((args, kwargs)) or inner(*args, **kwargs)
    case.run(pipe, cfg=1.0)
    del denoiser.forward
    args, kwargs = calls[0]
    found = []
    for prefix_reuse in (True, False):
        with guided(pipe, spec_of(case, op, cfg=1.0, scale=-1.0), prefix_reuse=prefix_reuse):
            output = denoiser(*args, **kwargs)
        found.append(reference.first_of(output))
    assert float((found[0] - found[1]).abs().max()) <= 1e-5 * max(1.0, float(found[0].std()))


def test_prefix_reuse_costs_the_share_of_the_blocks_that_run(case):
    pipe = case.pipe()
    with guided(pipe, spec_of(case, "residual")) as reused:
        case.run(pipe)
    pipe = case.pipe()
    with guided(pipe, spec_of(case, "residual"), prefix_reuse=False) as whole:
        case.run(pipe)
    assert reused.forwards < whole.forwards


LATENTS_IN_FLOAT32 = ("ltx", "ltx2", "wan", "wan-2.2", "skyreels-v2", "hunyuan-video", "hunyuan-video-1.5", "cosmos")


def halved(case):
    """A pipeline and its arguments in bfloat16, as far as the pipeline itself allows it."""
    pipe = case.pipe()
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            kept = getattr(component, "_keep_in_fp32_modules", None) or []
            component.to(torch.bfloat16)
            for name, module in component.named_modules():
                if any(part in name.split(".") for part in kept):
                    module.float()
    inputs = case.inputs(1, case.cfg)
    for name, value in inputs.items():
        wide = "latents" in name and case.name in LATENTS_IN_FLOAT32
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not wide:
            inputs[name] = value.to(torch.bfloat16)
    return pipe, inputs


def test_half_precision(case):
    pipe, inputs = halved(case)
    with warnings.catch_warnings(record=True) as caught, guided(pipe, spec_of(case, "residual")) as run:
        found = pipe(**inputs, output_type="latent", return_dict=False)[0]
    assert not [str(item.message) for item in caught if "no effect" in str(item.message)]
    assert torch.isfinite(found).all()
    assert run.effects()["residual"] > 1e-3


def test_a_term_that_does_not_fit_is_refused(case):
    pipe = case.pipe()
    name = next(iter(case.layers))
    term = SkipTerm(name="far", skip_layers={name: (99,)}, skip_op="residual", stg_scale=1.0)
    spec = GuidanceSpec(cfg_scale=3.0, segments=(Segment(terms=(term,)),))
    with pytest.raises(StgTuneError, match=f"skips {name} layer 99, but this model has"), guided(pipe, spec):
        pass
