"""What is written for LTX-2 is run by the installed diffusers, on a tiny random model, beside our own runtime."""

import importlib.util
import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import stg_tune
from stg_tune.export import export
from stg_tune.preset import find_published

diffusers = pytest.importorskip("diffusers")


def families():
    """The tiny pipelines that the guidance tests run on."""
    key, file = "stg_tune_tests_tiny_families", Path(__file__).parents[1] / "guidance" / "families" / "conftest.py"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, file)
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


def load(text, folder):
    (folder / "guider_config.json").write_text(text)
    return getattr(diffusers, json.loads(text)["_class_name"]).from_pretrained(folder)


def assert_equal(ours, theirs):
    torch.testing.assert_close(theirs, ours, atol=1e-5 * max(1.0, float(ours.abs().max())), rtol=0)


def pipeline(*, perturbed_attn):
    """LTX-2 with three random blocks; ``perturbed_attn`` as its converted checkpoints have it, 2.0 False, 2.3 True."""
    made = families()
    torch.manual_seed(0)
    pipe = made.ltx2()
    torch.manual_seed(0)
    transformer = diffusers.LTX2VideoTransformer3DModel.from_config(
        pipe.transformer.config, perturbed_attn=perturbed_attn
    )
    pipe.transformer = transformer.eval()
    assert pipe.transformer.transformer_blocks[1].perturbed_attn is perturbed_attn
    for weight in pipe.transformer.parameters():
        torch.nn.init.normal_(weight, std=0.2) if weight.abs().max() == 0 else None
    pipe.set_progress_bar_config(disable=True)
    return pipe


def preset_of(*, rescale=0.0):
    base = find_published("ltx2/published-2-3")
    (segment,) = base.spec.segments
    term = replace(segment.terms[0], skip_layers={"blocks": (1,)}, stg_scale=1.5)
    spec = replace(base.spec, segments=(replace(segment, terms=(term,), rescale=rescale),))
    generation = replace(base.generation, num_inference_steps=2)
    return replace(base, spec=spec, stacks={"blocks": 3}, checkpoint="a/tiny-LTX-2.3", generation=generation, sigmas=())


def after_one_step(pipe, **arguments):
    """The video latents behind step 0: later steps see sound, which each runtime guides in its own way."""
    kept = []

    def keep(_pipe, _step, _time, values):
        kept.append(values["latents"].clone())
        return {}

    inputs = families().ltx2_inputs(1, 3.0)
    pipe(**inputs | arguments, output_type="latent", callback_on_step_end=keep)
    return kept[0]


@torch.no_grad()
def test_the_arguments_make_the_pipeline_predict_what_our_runtime_does():
    preset = preset_of()
    theirs = after_one_step(pipeline(perturbed_attn=True), **json.loads(export(preset, "diffusers-ltx2").text))
    pipe = pipeline(perturbed_attn=True)
    plain = after_one_step(pipe)
    with stg_tune.guided(pipe, preset):
        ours = after_one_step(pipe)
    assert_equal(ours, theirs)
    assert (ours - plain).abs().max() > 1e-3, "the skip must matter"


@torch.no_grad()
def test_the_rescale_is_that_of_x0_as_the_preset_says():
    """By hand, by the exported arguments and by ``guided``, all the same."""
    preset, factor = preset_of(rescale=0.7), 0.7
    pipe = pipeline(perturbed_attn=True)
    theirs = after_one_step(pipe, **json.loads(export(preset, "diffusers-ltx2").text))
    start, (first, second) = families().ltx2_inputs(1, 3.0)["latents"], pipe.scheduler.sigmas[:2]
    cond = after_one_step(pipe, guidance_scale=1.0)
    with stg_tune.guided(pipe, preset_of()):
        free = after_one_step(pipe)
    c, x = (start - first * (end - start) / (second - first) for end in (cond, free))
    x = x * (factor * c.std() / x.std() + 1 - factor)
    assert_equal(start + (second - first) * (start - x) / first, theirs)
    with stg_tune.guided(pipe, preset):
        ours = after_one_step(pipe)
    assert_equal(ours, theirs)


@torch.no_grad()
def test_a_model_converted_without_perturbable_attention_skips_nothing():
    """What the note of the export says of LTX-2.0: the pass is paid for, and nothing comes of it."""
    arguments = json.loads(export(preset_of(), "diffusers-ltx2").text)
    pipe = pipeline(perturbed_attn=False)
    skipped, plain = after_one_step(pipe, **arguments), after_one_step(pipe)
    torch.testing.assert_close(skipped, plain, atol=1e-5, rtol=0)


@torch.no_grad()
def test_ltx2_guidance_combines_as_the_preset_says(kit, tmp_path):
    """The blocks are the pipeline's business; the guider combines predictions of x0."""
    preset = find_published("ltx2/published-2-3")
    guider = load(export(preset, "diffusers-ltx2-guider").text, tmp_path)
    assert guider.spatio_temporal_guidance_blocks == [28]
    guider.set_state(step=0, num_inference_steps=30, timestep=1.0)
    assert guider.active_predictions() == ["pred_cond", "pred_uncond", "pred_cond_stg"]
    c, u, p = torch.randn(3, 1, 4, 8)
    x = u + 3.0 * (c - u) + 1.0 * (c - p)
    x = x * (0.7 * c.std() / x.std() + 0.3)
    assert_equal(x, guider.forward(pred_cond=c, pred_uncond=u, pred_cond_stg=p).pred)


def test_arguments_of_ltx2_pipelines_exist():
    arguments = json.loads(export(find_published("ltx2/published"), "diffusers-ltx2").text)
    known = inspect.signature(diffusers.LTX2Pipeline.__call__).parameters
    assert set(arguments) <= set(known)
