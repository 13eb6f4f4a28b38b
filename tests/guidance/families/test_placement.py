"""Guidance where a pipeline is offloaded, compiled, quantised, adapted, or computes attention in another way."""

from __future__ import annotations

import dataclasses

import accelerate
import diffusers
import pytest
import torch
from torch import nn

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

CPU = torch.device("cpu")


@pytest.fixture
def made(cases, request):
    return next(case for case in cases if case.name == getattr(request, "param", "wan"))


def spec_of(case, *ops):
    terms = tuple(SkipTerm(name=op, skip_layers=case.layers, skip_op=op, stg_scale=1.5) for op in ops)
    return GuidanceSpec(cfg_scale=case.cfg + 1.25, segments=(Segment(terms=terms),))


def guided_run(case, pipe, *ops):
    with guided(pipe, spec_of(case, *ops)) as run:
        found = case.run(pipe)
    assert all(effect > 1e-4 for effect in run.effects().values())
    return found


def sequential(pipe):
    accelerate.cpu_offload(denoiser_of(pipe), execution_device=CPU)
    assert next(denoiser_of(pipe).parameters()).device.type == "meta"


def denoiser_of(pipe):
    return getattr(pipe, "transformer", None) or pipe.unet


OFFLOADS = {
    "whole models": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "sequential": sequential,
    "groups of leaves": lambda pipe: denoiser_of(pipe).enable_group_offload(
        onload_device=CPU, offload_device=CPU, offload_type="leaf_level"
    ),
    "groups of one block": lambda pipe: pipe.enable_group_offload(
        onload_device=CPU, offload_device=CPU, offload_type="block_level", num_blocks_per_group=1
    ),
}


@pytest.mark.parametrize(
    ("made", "how"),
    [
        *(("wan", how) for how in OFFLOADS),
        ("cogvideox", "whole models"),
        ("latte", "sequential"),
        ("svd", "groups of one block"),
        ("hunyuan-video", "groups of one block"),
        ("open-sora", "whole models"),
    ],
    indirect=["made"],
)
def test_offloaded_weights_give_the_same_videos(made, how):
    expected = guided_run(made, made.pipe(), "attention", "residual")
    pipe = made.pipe()
    OFFLOADS[how](pipe)
    for _ in range(2):  # some hooks are taken off and put on again after a call
        assert torch.equal(guided_run(made, pipe, "attention", "residual"), expected)
    forwards = [vars(denoiser_of(pipe)).get(name) for name in ("forward", "_old_forward")]
    assert not any(hasattr(forward, "stg_tune_guided") for forward in forwards)


@pytest.mark.parametrize("made", ["cogvideox"], indirect=True)
def test_weights_stored_in_fewer_bits_are_cast_in_perturbed_passes_too(made):
    pipe = made.pipe()
    denoiser_of(pipe).enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    found = guided_run(made, pipe, "attention", "residual")
    rounded = made.pipe()
    stored = dict(denoiser_of(pipe).named_parameters())
    for name, weight in denoiser_of(rounded).named_parameters():
        if stored[name].dtype == torch.bfloat16:
            weight.data = weight.data.bfloat16().float()
    torch.testing.assert_close(found, guided_run(made, rounded, "attention", "residual"), atol=1e-5, rtol=0)


class Int8Linear(nn.Module):
    """Weights in int8 with a scale a row, as weight-only quantisers keep them: no float weight is left."""

    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("quantised", (linear.weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x):
        return nn.functional.linear(x, self.quantised.to(x.dtype) * self.scale, self.bias)


class Adapted(nn.Module):
    """A linear layer with a LoRA beside it, laid out as peft does."""

    def __init__(self, linear):
        super().__init__()
        generator = torch.Generator().manual_seed(linear.in_features)
        self.base_layer = linear
        self.lora_A, self.lora_B = nn.Linear(linear.in_features, 2, bias=False), nn.Linear(2, linear.out_features)
        for weight in (self.lora_A.weight, self.lora_B.weight):
            weight.data = torch.randn(weight.shape, generator=generator)

    def forward(self, x):
        return self.base_layer(x) + 0.5 * self.lora_B(self.lora_A(x))


def replaced(case, kind):
    """The case with other linear layers in its attentions and feed-forwards."""

    def build():
        pipe = case.build()
        for name, module in list(denoiser_of(pipe).named_modules()):
            if isinstance(module, nn.Linear) and ".attn1." in name:
                owner, _, key = name.rpartition(".")
                setattr(denoiser_of(pipe).get_submodule(owner), key, kind(module))
        return pipe

    return dataclasses.replace(case, build=build)


@pytest.mark.parametrize(("made", "kind"), [("wan", Int8Linear), ("cogvideox", Adapted)], indirect=["made"])
def test_other_linear_layers_take_part_in_every_pass(made, reference, kind):
    other = replaced(made, kind)
    spec = spec_of(other, "attention", "residual")
    expected = reference.run(other, spec.segments[0].terms, cfg=spec.cfg_scale)
    found = guided_run(other, other.pipe(), "attention", "residual")
    torch.testing.assert_close(found, expected, atol=1e-4 * max(1, float(expected.std())), rtol=0)
    assert (found - guided_run(made, made.pipe(), "attention", "residual")).abs().max() > 1e-4


def test_torch_compiles_blocks_and_guidance_stays_right(made):
    """Real graphs (``backend="eager"`` spares the code generation); the perturbed pass leaves none behind."""
    expected = guided_run(made, made.pipe(), "attention", "residual")
    pipe = made.pipe()
    plain = made.run(pipe)
    denoiser_of(pipe).compile_repeated_blocks(backend="eager")
    for _ in range(2):
        torch.testing.assert_close(guided_run(made, pipe, "attention", "residual"), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(made.run(pipe), plain, atol=1e-5, rtol=0)


def test_a_denoiser_compiled_as_a_whole_is_refused(made):
    pipe = made.pipe()
    denoiser_of(pipe).compile(backend="eager")
    with (
        pytest.raises(StgTuneError, match=r"compiled as a whole.*compile_repeated_blocks"),
        guided(pipe, spec_of(made, "residual")),
    ):
        pass


CACHES = (
    diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        current_timestep_callback=lambda: 500,
        spatial_attention_block_identifiers=("blocks",),
    ),
    diffusers.FirstBlockCacheConfig(threshold=0.2),
    diffusers.TaylorSeerCacheConfig(cache_interval=2, cache_identifiers=[r"blocks\.\d+\.attn1"]),
    diffusers.MagCacheConfig(num_inference_steps=2, calibrate=True),
    diffusers.FasterCacheConfig(
        current_timestep_callback=lambda: 500,
        is_guidance_distilled=True,
        spatial_attention_block_identifiers=("blocks",),
    ),
)


@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: type(cache).__name__)
def test_caches_are_refused_wherever_they_sit_and_welcome_where_nothing_is_skipped(made, cache):
    """They answer one pass with what another one has computed; some sit on attentions, some on the denoiser."""
    pipe = made.pipe()
    pipe.transformer.enable_cache(cache)
    with pytest.raises(StgTuneError, match=r"of another tool.*disable_cache"), guided(pipe, spec_of(made, "residual")):
        pass
    with guided(pipe, GuidanceSpec(cfg_scale=made.cfg)):
        pass
    pipe.transformer.disable_cache()
    guided_run(made, pipe, "residual")


@pytest.fixture
def native_afterwards():
    """Choosing a backend for one model changes the one of the whole process in diffusers."""
    yield
    with torch.device("meta"):
        model = diffusers.WanTransformer3DModel(num_attention_heads=1, attention_head_dim=12, num_layers=1)
    model.set_attention_backend("native")


@pytest.mark.usefixtures("native_afterwards")
def test_attention_backends_are_right_or_say_that_they_are_not(made):
    expected = guided_run(made, made.pipe(), "attention", "residual")
    pipe = made.pipe()
    pipe.transformer.set_attention_backend("_native_math")
    torch.testing.assert_close(guided_run(made, pipe, "attention", "residual"), expected, atol=1e-5, rtol=0)
    pipe = made.pipe()
    pipe.transformer.set_attention_backend("flex")
    with (
        pytest.raises(StgTuneError, match=r"had no hold on WanAttention.*set_attention_backend\('native'\)"),
        guided(pipe, spec_of(made, "attention")),
    ):
        made.run(pipe)
    alone = guided_run(made, made.pipe(), "residual")
    torch.testing.assert_close(guided_run(made, pipe, "residual"), alone, atol=1e-5, rtol=0)
