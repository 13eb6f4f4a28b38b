"""The real `OpenSoraPipeline`, unmodified, under `stg_tune.guided`."""

from __future__ import annotations

import pytest
import torch

import stg_tune
from stg_tune.errors import StgTuneError
from stg_tune.guidance.families import architecture_of
from stg_tune.models.open_sora.pipeline import OpenSoraPipeline
from stg_tune.models.open_sora.record import ARCHITECTURE
from stg_tune.models.open_sora.schedule import OpenSoraScheduler
from stg_tune.models.open_sora.vae import OpenSoraVAE

VAE_2D = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [4, 4, 4, 4],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
    "sample_size": 32,
}
VAE_TEMPORAL = {"filters": 4, "num_res_blocks": 1, "channel_multipliers": [1, 1, 1, 1], "num_groups": 2}


@pytest.fixture(scope="module")
def pipe(stdit):
    pipe = OpenSoraPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=OpenSoraVAE(vae_2d=VAE_2D, vae_temporal=VAE_TEMPORAL).eval(),
        transformer=stdit,
        scheduler=OpenSoraScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def arguments(golden_sample):
    """Those of the recorded runs."""
    sizes = {name: int(golden_sample[f"args.{name}"][0]) for name in ("height", "width", "num_frames", "fps")}
    return {
        **sizes,
        "latents": golden_sample["z0"],
        "prompt_embeds": golden_sample["text.y"],
        "prompt_attention_mask": golden_sample["text.mask"],
        "num_inference_steps": 6,
        "output_type": "latent",
    }


def two_terms(harness, op, scale):
    return (
        harness.term("s", op=op, scale=scale, spatial=[1]),
        harness.term("t", op=op, scale=scale, temporal=[2]),
    )


@pytest.mark.parametrize(
    ("name", "op", "scale", "options"),
    [
        ("A_eq20", "attention", 1.0, {}),
        ("R_eq21", "residual", 0.5, {"combination": "orthogonal"}),
        ("A_eq20_active123", "attention", 1.0, {"start": 1 / 6, "stop": 4 / 6}),
    ],
)
def test_recorded_runs(harness, pipe, arguments, golden_sample, name, op, scale, options):
    before = harness.traces(pipe.transformer)
    spec = harness.spec(*two_terms(harness, op, scale), **options)
    with stg_tune.guided(pipe, spec) as run:
        out = pipe(**arguments, guidance_scale=3.0).frames
    torch.testing.assert_close(out, golden_sample[f"{name}.out"], atol=1e-4, rtol=0)
    assert harness.traces(pipe.transformer) == before
    assert min(run.effects().values()) > 1e-2


def test_no_effect_is_bit_for_bit_the_plain_pipeline(harness, pipe, arguments):
    plain = pipe(**arguments, guidance_scale=7.0).frames
    with stg_tune.guided(pipe, harness.spec(harness.term(scale=0.0, spatial=[1]))) as run:
        found = pipe(**arguments, guidance_scale=7.0).frames
    assert torch.equal(found, plain)
    assert run.forwards == 6 * 4


def test_stg_works_without_cfg_and_an_unused_cfg_costs_nothing(harness, pipe, arguments):
    spec = harness.spec(harness.term(op="attention", temporal=[2]), cfg=1.0)
    with stg_tune.guided(pipe, spec) as run:
        alone = pipe(**arguments, guidance_scale=1.0).frames
        single = run.forwards
        batched = pipe(**arguments, guidance_scale=7.0).frames
    torch.testing.assert_close(alone, batched, atol=1e-5, rtol=0)
    assert single == run.forwards / 2 == pytest.approx(6 * 2 * (1 + 3 / 8))
    with pytest.raises(StgTuneError, match="guidance_scale > 1"), stg_tune.guided(pipe, harness.spec()):
        pipe(**arguments, guidance_scale=1.0)


def test_several_videos_of_a_prompt_equal_calls_of_their_own(harness, pipe, arguments):
    spec = harness.spec(*two_terms(harness, "residual", 0.5), combination="orthogonal", rescale=0.7)
    one = {name: arguments[name][:1] for name in ("prompt_embeds", "prompt_attention_mask")}
    with stg_tune.guided(pipe, spec):
        both = pipe(**{**arguments, **one}, num_videos_per_prompt=2).frames
        second = pipe(**{**arguments, **one, "latents": arguments["latents"][1:]}).frames
    torch.testing.assert_close(both[1:], second, atol=1e-4, rtol=0)


def test_the_family_is_found_by_the_class_of_the_pipeline(pipe):
    class Derived(type(pipe)):
        pass

    assert architecture_of(pipe) is ARCHITECTURE
    assert architecture_of(object.__new__(Derived)) is ARCHITECTURE
    with pytest.raises(
        StgTuneError, match=r"dict is not a known pipeline \(.*OpenSoraPipeline.*\): pass architecture="
    ):
        architecture_of({})


def test_a_path_is_read_as_a_preset(pipe, tmp_path):
    with pytest.raises(StgTuneError, match=r"absent\.json"), stg_tune.guided(pipe, tmp_path / "absent.json"):
        pass
    with pytest.raises(StgTuneError, match=r"absent\.json"), stg_tune.guided(pipe, str(tmp_path / "absent.json")):
        pass
