"""Nothing is left behind, and nobody else's patch is run over."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided


@pytest.fixture
def spec(harness):
    return harness.spec(
        harness.term("a", op="attention", spatial=[1], temporal=[2]), harness.term("r", spatial=[3], temporal=[0])
    )


def test_shells_are_there_inside_and_gone_after(harness, stdit, spec):
    before = harness.traces(stdit)
    plain = stdit(**harness.inputs())
    with guided(harness.pipe(stdit), spec, architecture=harness.architecture):
        assert harness.traces(stdit) != before
        guidance = stdit(**harness.inputs())
    assert harness.traces(stdit) == before
    assert not torch.equal(guidance, plain)
    assert torch.equal(stdit(**harness.inputs()), plain)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_error_between_calls(harness, stdit, spec, error):
    before = harness.traces(stdit)

    def run_and_stop():
        with guided(harness.pipe(stdit), spec, architecture=harness.architecture):
            stdit(**harness.inputs())
            raise error

    with pytest.raises(error):
        run_and_stop()
    assert harness.traces(stdit) == before


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
@pytest.mark.parametrize("nth_call", [1, 2, 3])
def test_an_error_inside_any_pass_leaves_nothing_and_the_next_call_is_right(harness, stdit, spec, error, nth_call):
    """The last temporal block runs in the prompted pass and in both weak ones."""
    calls = 0
    pipe, inputs, before = harness.pipe(stdit), harness.inputs(), harness.traces(stdit)
    with guided(pipe, spec, architecture=harness.architecture):
        expected = stdit(**inputs)

        def fail(*_):
            nonlocal calls
            calls += 1
            if calls == nth_call:
                raise error

        hook = stdit.final_layer.register_forward_pre_hook(fail)
        with pytest.raises(error):
            stdit(**inputs)
        hook.remove()
        assert torch.equal(stdit(**inputs), expected)
    assert calls == nth_call
    assert harness.traces(stdit)[0] == before[0]
    assert "forward" not in vars(stdit)


def test_an_unusable_specification_leaves_nothing(harness, stdit):
    before = harness.traces(stdit)
    spec = harness.spec(harness.term(spatial=[1]))
    stdit.temporal_blocks[0].forward = lambda x, *_, **__: x
    try:
        spec = harness.spec(harness.term(temporal=[2]))
        with (
            pytest.raises(StgTuneError, match=r"temporal_blocks\[0\] carries a replaced forward of another tool"),
            guided(harness.pipe(stdit), spec, architecture=harness.architecture),
        ):
            pass
    finally:
        del stdit.temporal_blocks[0].forward
    assert harness.traces(stdit) == before


def test_one_denoiser_cannot_be_guided_twice(harness, stdit, spec):
    before = harness.traces(stdit)
    cfg_only = harness.spec(cfg=3.0)
    for outer, inner in [(spec, spec), (cfg_only, spec), (spec, cfg_only)]:
        with (
            guided(harness.pipe(stdit), outer, architecture=harness.architecture),
            pytest.raises(StgTuneError, match="already guided"),
            guided(harness.pipe(stdit), inner, architecture=harness.architecture),
        ):
            pass
        assert harness.traces(stdit) == before


def test_foreign_hooks_on_blocks_and_attentions_are_refused(harness, stdit):
    block = stdit.spatial_blocks[1]
    spec = harness.spec(harness.term(op="attention", spatial=[1]))
    for module, where in [(block, r"spatial_blocks\[1\]"), (block.attn, "attn of spatial_blocks")]:
        hook = module.register_forward_hook(lambda *_: None)
        with (
            pytest.raises(StgTuneError, match=f"{where} carries the hook .* of another tool"),
            guided(harness.pipe(stdit), spec, architecture=harness.architecture),
        ):
            pass
        hook.remove()


def test_hooks_of_diffusers_on_blocks_are_refused(harness, stdit):
    from diffusers.hooks import HookRegistry, ModelHook

    block = stdit.spatial_blocks[1]
    registry = HookRegistry.check_if_exists_or_initialize(block)
    registry.register_hook(ModelHook(), "some_cache")
    with (
        pytest.raises(StgTuneError, match="some_cache"),
        guided(harness.pipe(stdit), harness.spec(harness.term(spatial=[1])), architecture=harness.architecture),
    ):
        pass
    registry.remove_hook("some_cache")
    del block._diffusers_hook
    vars(block).pop("forward", None)


def test_a_denoiser_compiled_as_a_whole_is_refused(harness, stdit, spec):
    for denoiser in (torch.compile(stdit, backend="eager"),):
        pipe = harness.pipe(denoiser)
        with (
            pytest.raises(StgTuneError, match="compile the blocks instead"),
            guided(pipe, spec, architecture=harness.architecture),
        ):
            pass


def offload(module):
    """What accelerate's CPU offload does to a denoiser's forward."""
    inner = module.forward

    def hooked(*args, **kwargs):
        return module._old_forward(*args, **kwargs)

    module._old_forward, module.forward, module._hf_hook = inner, hooked, SimpleNamespace()


def load(module):
    module.forward = module._old_forward
    del module._old_forward, module._hf_hook


def test_guidance_survives_the_offload_hook_that_a_pipeline_renews_after_each_call(harness, stdit, spec):
    inputs = harness.inputs()
    with guided(harness.pipe(stdit), spec, architecture=harness.architecture):
        expected = stdit(**inputs)
    plain = stdit(**inputs)
    offload(stdit)
    with guided(harness.pipe(stdit), spec, architecture=harness.architecture):
        assert torch.equal(stdit(**inputs), expected)
        load(stdit)
        offload(stdit)
        assert torch.equal(stdit(**inputs), expected)
    assert torch.equal(stdit(**inputs), plain)
    load(stdit)
    assert torch.equal(stdit(**inputs), plain)
    del stdit.forward  # accelerate leaves the bound method behind


def test_offload_put_on_inside_the_with_does_not_keep_guidance_alive(harness, stdit, spec):
    inputs = harness.inputs()
    plain = stdit(**inputs)
    with guided(harness.pipe(stdit), spec, architecture=harness.architecture):
        offload(stdit)
    assert torch.equal(stdit(**inputs), plain)
    load(stdit)
    del stdit.forward
