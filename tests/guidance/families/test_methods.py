"""The paper's neighbours in the same specification: branches, operations, S2, Autoguidance, Restart; and guards."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
from stg_tune.guidance.families import architecture_of
from stg_tune.guidance.passes import drawn
from stg_tune.guidance.restart import repeated_steps
from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm


@pytest.fixture
def made(cases, request):
    return next(case for case in cases if case.name == getattr(request, "param", "wan"))


def term(op="residual", layers=(1,), scale=1.5, stack="blocks", **more):
    return SkipTerm(name="t", skip_layers={stack: layers} if layers else {}, skip_op=op, stg_scale=scale, **more)


def spec(*terms, cfg=4.0, **more):
    window = {name: more.pop(name) for name in ("start", "stop", "cfg_scale", "rescale") if name in more}
    return GuidanceSpec(cfg_scale=cfg, segments=(Segment(terms=terms, **window),), **more)


def both_calls(case, guidance, *, weak_model=None, prefix_reuse=True):
    """First step of a pipeline: ``(x, c, u, p(c), p(u))`` with block 1 skipped, ``x`` from the guided denoiser."""
    pipe = case.pipe()
    model = pipe.transformer
    calls = []
    inner = model.forward
    model.forward = lambda *args, **kwargs: calls.append((args, kwargs)) or inner(*args, **kwargs)
    case.run(pipe)
    del model.forward
    batched = architecture_of(pipe).calls == "batched"
    (args, kwargs), other = calls[0], calls[0 if batched else 1]
    c, u = predictions(model, args, kwargs, other, batched)
    block, blocks = model.get_submodule(blocks_name(model))[1], model.get_submodule(blocks_name(model))
    blocks[1] = Passing(2 if batched else 1)
    pc, pu = predictions(model, args, kwargs, other, batched)
    blocks[1] = block
    pipe.scheduler.timesteps = kwargs["timestep"].flatten()[:1]
    pipe.scheduler._step_index = None
    with guided(pipe, guidance, weak_model=weak_model, prefix_reuse=prefix_reuse) as run:
        x = model(*args, **kwargs)[0]
        if not batched:
            x = model(*other[0], **other[1])[0]
    return (x.chunk(2)[0] if batched else x), c, u, pc, pu, run


def blocks_name(model):
    return "blocks" if hasattr(model, "blocks") else "transformer_blocks"


class Passing(torch.nn.Module):
    def __init__(self, streams):
        super().__init__()
        self.streams = streams

    def forward(self, *args, **kwargs):
        inputs = (*args, *kwargs.values())[: self.streams]
        return inputs[0] if self.streams == 1 else inputs


def predictions(model, args, kwargs, other, batched):
    if batched:
        u, c = model(*args, **kwargs)[0].chunk(2)
        return c, u
    return model(*args, **kwargs)[0], model(*other[0], **other[1])[0]


G, W = 4.0, 1.5
BRANCHES = {
    "cond": lambda c, u, pc, pu: u + G * (c - u) + W * (c - pc),
    "uncond": lambda c, u, pc, pu: pu + G * (c - pu),
    "crossed": lambda c, u, pc, pu: u + G * (c - u) + W * (c - pu),
    "from_guided": lambda c, u, pc, pu: u + G * (c - u) + W * (u + G * (c - u) - pu),
}


@pytest.mark.parametrize("made", ["wan", "mochi"], indirect=True)
@pytest.mark.parametrize("branch", BRANCHES)
def test_every_branch_is_its_formula(made, branch):
    guidance = spec(term(scale=1.0 if branch == "uncond" else W, branch=branch), cfg=G)
    for prefix_reuse in (True, False):
        x, c, u, pc, pu, run = both_calls(made, guidance, prefix_reuse=prefix_reuse)
        expected = BRANCHES[branch](c, u, pc, pu)
        torch.testing.assert_close(x, expected, atol=1e-4 * max(1, float(expected.std())), rtol=0)
        assert run.effects()["t"] > 1e-3


def test_the_unconditional_branch_costs_nothing_after_its_one_measurement(made):
    pipe = made.pipe()
    with guided(pipe, spec(term(scale=1.0, branch="uncond"))) as run:
        made.run(pipe)
        first = run.forwards
        made.run(pipe)
    assert run.forwards - first < 2 * 2  # two steps of two rows, less the skipped block
    assert first > run.forwards - first


@pytest.mark.parametrize("branch", ["crossed", "from_guided"])
def test_negative_branches_work_without_cfg(made, branch):
    x, c, _, _, pu, _ = both_calls(made, spec(term(branch=branch), cfg=1.0))
    torch.testing.assert_close(x, c + W * (c - pu), atol=5e-5, rtol=0)


def test_a_branch_that_would_do_nothing_is_refused(made):
    for guidance, match in [
        (spec(term(scale=1.0, branch="uncond"), cfg=1.0), "cfg_scale 1 does not use"),
        (
            spec(
                term(op="weak_model", layers=()),
            ),
            "needs a weaker model",
        ),
        (spec(term(), cfg_source="pipeline", rescale=0.5), "needs the finished prediction"),
        (spec(term(branch="from_guided"), cfg_source="pipeline"), "leaves to the pipeline"),
    ]:
        with pytest.raises(StgTuneError, match=match), guided(made.pipe(), guidance):
            pass


OPS = ("attention_all", "attention_with_text", "attention_off", "attention_input", "attention_projected_input",
       "feed_forward", "blur")  # fmt: skip


@pytest.mark.parametrize("made", ["wan", "mochi", "cogvideox", "svd", "hunyuan-video-1.5"], indirect=True)
@pytest.mark.parametrize("op", OPS)
def test_every_operation_acts_and_needs_no_full_pass(made, op):
    terms = [SkipTerm(name="t", skip_layers=made.layers, skip_op=op, stg_scale=1.0)]
    found = []
    for prefix_reuse in (True, False):
        pipe = made.pipe()
        with guided(pipe, spec(*terms), prefix_reuse=prefix_reuse) as run:
            found.append(made.run(pipe))
        assert run.effects()["t"] > 1e-4
    torch.testing.assert_close(*found, atol=5e-4 * max(1, float(found[0].std())), rtol=0)


JOINT = ("mochi", "cogvideox", "hunyuan-video", "hunyuan-video-1.5", "easyanimate", "ltx2", "open-sora")


@pytest.mark.parametrize("made", JOINT, indirect=True)
@pytest.mark.parametrize("op", ["attention_all", "attention_with_text", "feed_forward", "blur"])
def test_operations_equal_masks_and_modules_set_by_hand(made, reference, op):
    """Where text and video share an attention, in either order and with padding; and where they do not."""
    only_double = (made.name, op) == ("hunyuan-video", "feed_forward")
    layers = {"double": (1,)} if only_double else made.layers
    if (made.name, op) == ("open-sora", "feed_forward"):
        pytest.skip("its record names none")
    terms = (SkipTerm(name="t", skip_layers=layers, skip_op=op, stg_scale=1.5),)
    expected = reference.run(made, terms, cfg=G)
    pipe = made.pipe()
    with guided(pipe, spec(*terms, cfg=G)):
        found = made.run(pipe)
    torch.testing.assert_close(found, expected, atol=1e-4 * max(1, float(expected.std())), rtol=0)


def test_blur_is_attention_of_the_mean_query(made):
    """With one key the blurred weights are the weights; in general they are the same for every query."""
    pipe = made.pipe()
    seen = []
    attention = pipe.transformer.blocks[1].attn1.to_out[0]
    hook = attention.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with guided(pipe, spec(term("blur"), cfg=1.0)):
        made.run(pipe, cfg=1.0)
    hook.remove()
    plain, blurred = seen[0], seen[1]
    assert plain.std(1).mean() > 1e-3
    torch.testing.assert_close(blurred, blurred[:, :1].expand_as(blurred), atol=1e-5, rtol=0)


def test_another_way_to_compute_attention_is_noticed(made):
    pipe = made.pipe()

    class Manual:
        def __call__(self, attn, hidden_states, *_args, **_kwargs):
            return attn.to_out[0](attn.to_v(hidden_states))

    pipe.transformer.blocks[1].attn1.processor = Manual()
    with (
        pytest.raises(StgTuneError, match=r"had no hold on WanAttention.*Manual"),
        guided(pipe, spec(term("attention"))),
    ):
        made.run(pipe)
    with guided(pipe, spec(term("residual"))):
        made.run(pipe)


def test_draws_are_seeded_anew_every_step_and_within_the_list():
    pool = term(layers=(0, 3, 5, 7, 8), draw=2, seed=4)
    picks = [drawn(pool, step).skip_layers["blocks"] for step in range(30)]
    assert picks == [drawn(pool, step).skip_layers["blocks"] for step in range(30)]
    assert all(len(pick) == 2 and set(pick) <= {0, 3, 5, 7, 8} for pick in picks)
    assert len(set(picks)) > 5
    assert [drawn(term(layers=(0, 3, 5, 7, 8), draw=2, seed=5), s).skip_layers["blocks"] for s in range(30)] != picks


@pytest.mark.parametrize("made", ["wan", "svd"], indirect=True)
def test_drawn_blocks_reuse_their_prefix(made):
    stack = next(iter(made.layers))
    found = []
    for prefix_reuse in (True, False):
        pipe = made.pipe()
        pool = SkipTerm(name="t", skip_layers={stack: (0, 1, 2)}, skip_op="residual", stg_scale=1.0, draw=1, seed=3)
        with guided(pipe, spec(pool), prefix_reuse=prefix_reuse) as run:
            found.append(made.run(pipe))
        assert run.effects()["t"] > 1e-3
    torch.testing.assert_close(*found, atol=5e-4 * max(1, float(found[0].std())), rtol=0)


def test_autoguidance_takes_the_predictions_of_a_weak_model(made):
    weak = copy.deepcopy(made.pipe().transformer)
    weak.blocks[1] = Passing(1)
    guidance = spec(term("weak_model", layers=()))
    x, c, u, pc, _, _ = both_calls(made, guidance, weak_model=weak)
    torch.testing.assert_close(x, u + G * (c - u) + W * (c - pc), atol=5e-5, rtol=0)


def test_a_cfg_interval_is_a_segment_with_scale_1_outside(made):
    """arXiv:2404.07724: CFG in a window alone; outside it the negative prediction is not computed."""
    pipe = made.pipe()
    interval = GuidanceSpec(cfg_scale=1.0, segments=(Segment(start=0.5, stop=1.0, cfg_scale=4.0),))
    with guided(pipe, interval) as run:
        made.run(pipe)
    assert run.forwards == 3.0


@pytest.mark.parametrize("made", ["cogvideox"], indirect=True)
def test_a_scale_that_moves_cannot_be_replaced_in_silence(made):
    pipe = made.pipe()
    with pytest.raises(StgTuneError, match="set cfg_source to 'pipeline'"), guided(pipe, spec(term())):
        made.run(pipe, use_dynamic_cfg=True, num_inference_steps=3)


@pytest.mark.parametrize("made", ["ltx2"], indirect=True)
def test_the_pipelines_own_stg_is_refused_and_its_own_modality_guidance_is_kept(made):
    pipe = made.pipe()
    more = {"spatio_temporal_guidance_blocks": [1], "stg_scale": 1.0}
    with pytest.raises(StgTuneError, match=r"stg_scale=0\.0"), guided(pipe, spec(term())):
        made.run(pipe, **more)
    plain, pipe = made.pipe(), made.pipe()
    with guided(pipe, spec(term(scale=0.0), cfg=made.cfg + 1)):
        with_modality = made.run(pipe, modality_scale=3.0, audio_modality_scale=1.0)
    assert (with_modality - made.run(plain, guidance_scale=made.cfg + 1)).abs().max() > 1e-4
    expected = made.run(made.pipe(), modality_scale=3.0, audio_modality_scale=1.0, guidance_scale=made.cfg + 1)
    torch.testing.assert_close(with_modality, expected, atol=2e-4, rtol=0)


def test_restart_repeats_its_stretch():
    assert repeated_steps(6, Restart(start=0.3, stop=0.7, count=2)) == [0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4, 5]


RESTARTED = ("mochi", "svd", "wan", "wan-2.2", "wan-ti2v", "cogvideox", "ltx-condition", "hunyuan-video", "latte",
             "cosmos", "cosmos-2", "kandinsky5", "open-sora")  # fmt: skip
"""Every kind of scheduler, and of clock, that the families come with."""


@pytest.mark.parametrize("made", RESTARTED, indirect=True)
def test_restart_walks_the_schedule_again_and_leaves_the_scheduler_alone(made):
    pipe = made.pipe()
    plain = made.run(pipe, num_inference_steps=4)
    before = sorted(vars(pipe.scheduler))
    steps = []
    again = GuidanceSpec(cfg_scale=made.cfg, restart=Restart(start=0.25, stop=0.75, count=2), cfg_source="pipeline")
    torch.manual_seed(0)
    with guided(pipe, again) as run:
        found = made.run(pipe, num_inference_steps=4,
                         callback_on_step_end=lambda _p, i, t, k: steps.append(float(t)) or k)  # fmt: skip
    assert len(steps) == 4 + 2 * 2
    assert steps[1:3] == steps[3:5] == steps[5:7]
    assert run.forwards == 2 * 8
    assert torch.isfinite(found).all()
    assert (found - plain).abs().max() > 1e-3
    assert sorted(vars(pipe.scheduler)) == before
    assert torch.equal(made.run(pipe, num_inference_steps=4), plain)


def test_steps_that_look_alike_in_half_precision_are_told_apart():
    """Mochi sends timesteps in bfloat16, where neighbours are equal: the scheduler's own position decides."""
    from stg_tune.guidance.passes import step_of

    timesteps = torch.tensor([1000.0, 999.5, 999.0, 998.5, 500.0])
    now = timesteps[2].to(torch.bfloat16)
    assert [step_of(now, timesteps, position) for position in (None, 0, 2, 3, 4)] == [0, 0, 2, 3, 0]


@pytest.mark.parametrize("made", ["wan", "svd"], indirect=True)
def test_compiled_blocks_keep_working(made, monkeypatch):
    """The plain passes run the compiled block, the perturbed one the block as it is."""
    pipe = made.pipe()
    if made.name == "svd":
        block = pipe.unet.up_blocks[1].attentions[0].transformer_blocks[0]
        layers = {"spatial": (5,)}
    else:
        block, layers = pipe.transformer.blocks[1], made.layers
    calls = []

    def compiled(*args, **kwargs):
        calls.append(1)
        return block._call_impl(*args, **kwargs)

    block._compiled_call_impl = compiled
    guidance = spec(SkipTerm(name="t", skip_layers=layers, skip_op="attention", stg_scale=1.0))
    with guided(pipe, guidance):
        found = made.run(pipe)
    expected_pipe = made.pipe()
    with guided(expected_pipe, guidance):
        expected = made.run(expected_pipe)
    assert torch.equal(found, expected)
    assert len(calls) == (2 if made.name == "svd" else 4)
    assert block._compiled_call_impl is compiled


def test_group_offload_works_block_by_block_and_is_refused_where_blocks_share_a_group(made):
    from diffusers.hooks import apply_group_offloading

    expected_pipe = made.pipe()
    late = SkipTerm(name="r", skip_layers={"blocks": (2,)}, skip_op="residual", stg_scale=0.5)
    guidance = spec(term("attention"), late)
    with guided(expected_pipe, guidance):
        expected = made.run(expected_pipe)
    for kind in ("block_level", "leaf_level"):
        pipe = made.pipe()
        options = {"num_blocks_per_group": 1} if kind == "block_level" else {}
        apply_group_offloading(pipe.transformer, onload_device=torch.device("cpu"), offload_device=torch.device("cpu"),
                               offload_type=kind, **options)  # fmt: skip
        with guided(pipe, guidance):
            assert torch.equal(made.run(pipe), expected)
    pipe = made.pipe()
    apply_group_offloading(pipe.transformer, onload_device=torch.device("cpu"), offload_device=torch.device("cpu"),
                           offload_type="block_level", num_blocks_per_group=3)  # fmt: skip
    with pytest.raises(StgTuneError, match="num_blocks_per_group=1"), guided(pipe, guidance):
        pass


def test_a_guided_pipeline_cannot_be_guided_again_and_foreign_hooks_are_refused(made):
    pipe = made.pipe()
    with guided(pipe, spec(term())), pytest.raises(StgTuneError, match="already guided"), guided(pipe, spec(term())):
        pass
    hook = pipe.transformer.blocks[0].register_forward_hook(lambda *_: None)
    with pytest.raises(StgTuneError, match=r"blocks\[0\] carries the hook"), guided(pipe, spec(term())):
        pass
    hook.remove()


def test_an_unknown_pipeline_says_what_is_known_and_how_to_add_one():
    pipe = SimpleNamespace(transformer=None)
    with pytest.raises(StgTuneError, match=r"SimpleNamespace is not a known pipeline.*WanPipeline.*add-a-model"):
        architecture_of(pipe)
