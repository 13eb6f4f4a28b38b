from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
from stg_tune.models.base import Architecture, Stack
from stg_tune.records import GuidanceSpec, Segment


def test_scale_0_and_empty_windows_are_plain_cfg_bit_for_bit_at_no_cost(harness, stdit):
    inputs = harness.inputs()
    plain = stdit(**inputs)
    idle = harness.term(scale=0.0, spatial=[1])
    active = harness.term(spatial=[1])
    for spec in (harness.spec(), harness.spec(idle), harness.spec(active, start=0.4, stop=0.4)):
        calls = []
        hook = stdit.final_layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with guided(harness.pipe(stdit), spec, architecture=harness.architecture) as run:
                found = stdit(**inputs)
        hook.remove()
        assert torch.equal(found, plain)
        assert (len(calls), run.forwards) == (1, 4.0)
        assert set(run.effects().values()) <= {0.0}


def test_nobody_looks_at_a_call_where_the_pipeline_alone_does_everything(harness, stdit):
    """Reading the timestep would make a GPU wait; a timestep of no schedule shows that it is not read."""
    inputs = {**harness.inputs(), "timestep": torch.full((4,), 12.0)}
    idle = harness.spec(harness.term(scale=0.0, spatial=[1]))
    with guided(harness.pipe(stdit), idle, architecture=harness.architecture) as run:
        assert torch.equal(stdit(**inputs), stdit(**inputs))
    assert run.forwards == 8.0
    with (
        pytest.raises(StgTuneError, match=r"which is not in pipe\.scheduler\.timesteps"),
        guided(harness.pipe(stdit), harness.spec(harness.term(spatial=[1])), architecture=harness.architecture),
    ):
        stdit(**inputs)


def test_the_specification_replaces_the_scale_of_the_pipeline(harness, stdit):
    inputs = harness.inputs()
    c, u = stdit(**inputs)[:, :4].chunk(2)
    for own in (7.0, 2.5, None):
        pipe = harness.pipe(stdit, guidance_scale=own)
        with guided(pipe, harness.spec(cfg=3.0), architecture=harness.architecture):
            out = stdit(**inputs)[:, :4]
        torch.testing.assert_close(out, (u + 3.0 * (c - u)).repeat(2, 1, 1, 1, 1), atol=1e-6, rtol=1e-6)


def test_scale_1_computes_the_prompted_rows_alone(harness, stdit):
    inputs = harness.inputs(prompts=3)
    seen = []
    hook = stdit.final_layer.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with guided(harness.pipe(stdit), harness.spec(cfg=1.0), architecture=harness.architecture) as run:
        out = stdit(**inputs)
    hook.remove()
    alone = stdit(**{name: value[:3] for name, value in inputs.items()})
    assert (seen, run.forwards) == ([3], 3.0)
    torch.testing.assert_close(out, torch.cat([alone, alone]), atol=1e-6, rtol=1e-6)


def test_cfg_needs_negative_rows(harness, stdit):
    inputs = {name: value[:2] for name, value in harness.inputs().items()}
    spec = GuidanceSpec(cfg_scale=1.0, segments=(Segment(start=0.5, stop=1.0, cfg_scale=4.0),))
    pipe = harness.pipe(stdit, guidance_scale=1.0, timesteps=(900.0, 400.0))
    with (
        pytest.raises(StgTuneError, match=r"cfg_scale 4, but the pipeline runs without CFG.*guidance_scale > 1"),
        guided(pipe, spec, architecture=harness.architecture),
    ):
        stdit(**inputs)


def test_an_odd_number_of_rows_cannot_be_both(harness, stdit):
    inputs = {name: value[:3] for name, value in harness.inputs(prompts=4).items()}
    with (
        pytest.raises(StgTuneError, match="called with 3 rows"),
        guided(harness.pipe(stdit), harness.spec(cfg=3.0), architecture=harness.architecture),
    ):
        stdit(**inputs)


def test_prompts_and_videos_of_a_batch_do_not_see_each_other(harness, stdit):
    term = harness.term("t", op="attention", temporal=[1], spatial=[2])
    spec = harness.spec(term, harness.term("s", spatial=[3]), combination="orthogonal", rescale=0.7)
    inputs = harness.inputs(prompts=3)
    with guided(harness.pipe(stdit), spec, architecture=harness.architecture):
        together = stdit(**inputs)[:3, :4]
        for row in range(3):
            one = {name: value[[row, row + 3]] if len(value) == 6 else value[[row]] for name, value in inputs.items()}
            torch.testing.assert_close(stdit(**one)[:1, :4], together[[row]], atol=5e-5, rtol=0)


def test_windows_follow_the_timestep_not_the_number_of_calls(harness, stdit):
    spec = harness.spec(harness.term(spatial=[1]), start=0.5, stop=0.75)
    inputs = harness.inputs()
    pipe = harness.pipe(stdit, timesteps=(900.0, 700.0, 500.0, 300.0))
    with guided(pipe, spec, architecture=harness.architecture) as run:
        costs = []
        for now in (500.0, 900.0, 500.0, 300.0, 700.0):
            before = run.forwards
            stdit(**{**inputs, "timestep": torch.full((4,), now)})
            costs.append(run.forwards - before)
        pipe.scheduler.timesteps = torch.tensor([900.0, 500.0])  # another schedule: 500 is step 1 of 2 now
        before = run.forwards
        stdit(**{**inputs, "timestep": torch.full((4,), 500.0)})
        costs.append(run.forwards - before)
    assert [cost > 4 for cost in costs] == [True, False, True, False, False, True]


def test_segments_change_scale_and_terms_within_a_run(harness, stdit):
    inputs = harness.inputs()
    c, u = stdit(**inputs)[:, :4].chunk(2)
    p = harness.slow(stdit, inputs, harness.term(temporal=[1])).chunk(2)[0]
    spec = GuidanceSpec(
        cfg_scale=7.0,
        segments=(
            Segment(start=0.0, stop=0.5, cfg_scale=1.0, terms=(harness.term(scale=2.0, temporal=[1]),)),
            Segment(start=0.5, stop=1.0, cfg_scale=3.0, terms=(harness.term(scale=0.5, temporal=[1]),)),
        ),
    )
    pipe = harness.pipe(stdit, timesteps=(900.0, 100.0))
    with guided(pipe, spec, architecture=harness.architecture) as run:
        first = stdit(**inputs)[:2, :4]
        pipe.scheduler.timesteps = torch.tensor([950.0, 900.0])  # the same noise level as second step
        second = stdit(**inputs)[:2, :4]
    torch.testing.assert_close(first, c + 2.0 * (c - p), atol=2e-5, rtol=0)
    torch.testing.assert_close(second, u + 3.0 * (c - u) + 0.5 * (c - p), atol=3e-5, rtol=0)
    norms = ((c - p).flatten(1).norm(dim=1) / c.flatten(1).norm(dim=1)).mean()
    assert run.effects() == {"term": pytest.approx(float(norms), rel=1e-4)}


def test_a_window_without_steps_is_said_loudly(harness, stdit):
    spec = harness.spec(harness.term(spatial=[1]), start=0.1, stop=0.2)
    pipe = harness.pipe(stdit, timesteps=(900.0, 500.0))
    with (
        pytest.warns(UserWarning, match=r"segment \[0\.1, 0\.2\) covers none of the 2 steps"),
        guided(pipe, spec, architecture=harness.architecture),
    ):
        stdit(**harness.inputs())


def test_an_attention_skip_over_one_frame_is_said_loudly(harness, stdit):
    spec = harness.spec(harness.term("lonely", op="attention", temporal=[0, 2]), harness.term("fine", spatial=[1]))
    with (
        pytest.warns(UserWarning, match="'lonely' had no effect.*one frame") as caught,
        guided(harness.pipe(stdit), spec, architecture=harness.architecture) as run,
    ):
        stdit(**harness.inputs(frames=1))
    assert len(caught) == 1
    assert run.effects()["lonely"] < 1e-5 < 1e-2 < run.effects()["fine"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"spatial": [1, 9]}, "term 'term' skips spatial layer 9, but this model has 4 spatial blocks: 0 to 3"),
        ({"temporl": [1]}, "layers of 'temporl'; this model has spatial, temporal; did you mean 'temporal'?"),
    ],
)
def test_layers_that_do_not_exist_are_refused_before_the_run(harness, stdit, layers, message):
    with (
        pytest.raises(StgTuneError, match=message),
        guided(harness.pipe(stdit), harness.spec(harness.term(**layers)), architecture=harness.architecture),
    ):
        pass


def test_what_is_not_a_specification_is_refused(harness, stdit):
    for wrong in ({"cfg_scale": 7.0}, None, 7.0):
        with pytest.raises(StgTuneError, match="give a GuidanceSpec"), guided(harness.pipe(stdit), wrong):
            pass


def test_a_preset_is_taken_by_its_spec(harness, stdit):
    preset = SimpleNamespace(spec=harness.spec(cfg=1.0))
    with guided(harness.pipe(stdit), preset, architecture=harness.architecture) as run:
        stdit(**harness.inputs())
    assert run.forwards == 2.0


def test_a_preset_for_other_depths_is_refused(harness, stdit):
    preset = SimpleNamespace(spec=harness.spec(harness.term(spatial=[1])), stacks={"spatial": 28, "temporal": 28})
    match = r"made for a model with 28 spatial \+ 28 temporal blocks, but this one has 4 spatial \+ 4 temporal blocks"
    with (
        pytest.raises(StgTuneError, match=match),
        guided(harness.pipe(stdit), preset, architecture=harness.architecture),
    ):
        pass


def test_a_pipeline_without_a_schedule_is_refused(harness, stdit):
    pipe = harness.pipe(stdit, timesteps=())
    with (
        pytest.raises(StgTuneError, match=r"scheduler\.timesteps is empty"),
        guided(pipe, harness.spec(), architecture=harness.architecture),
    ):
        stdit(**harness.inputs())


def test_half_precision_is_combined_in_float32(harness, stdit):
    """bf16 weights: the result is the formula on the bf16 predictions, rounded once."""
    model = type(stdit).from_config(stdit.config).to(torch.bfloat16).eval()
    model.load_state_dict(stdit.state_dict())
    inputs = harness.inputs()
    term = harness.term(scale=-1.0, spatial=[1])
    full = {name: value[:2] for name, value in inputs.items()}
    p = harness.slow(model, full, term)
    with guided(harness.pipe(model), harness.spec(term, cfg=1.0), architecture=harness.architecture):
        found = model(**inputs)[:2, :4]
    assert found.dtype == p.dtype
    torch.testing.assert_close(found, p, atol=2e-2 * float(p.abs().max()), rtol=0)


class JointBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.video, self.text, self.attn = nn.Linear(width, width), nn.Linear(width, width), nn.Identity()

    def forward(self, hidden_states, encoder_hidden_states, temb):
        mixed = self.video(hidden_states) + encoder_hidden_states.mean(1, keepdim=True)
        hidden_states += temb * mixed.tanh()  # in place, as some blocks do
        return hidden_states, encoder_hidden_states + self.text(encoder_hidden_states).tanh()


class JointDenoiser(nn.Module):
    """Two streams, keyword calls, one stack after the other, output in a form of choice."""

    def __init__(self, form):
        super().__init__()
        self.double_blocks = nn.ModuleList(JointBlock(6) for _ in range(3))
        self.single_blocks = nn.ModuleList(JointBlock(6) for _ in range(2))
        self.form = form

    def forward(self, hidden_states, encoder_hidden_states, timestep, table=None):
        assert table.shape == (5, 2), "a table without rows must stay whole"
        return self.form(
            through((*self.double_blocks, *self.single_blocks), hidden_states, encoder_hidden_states, timestep)
        )


def through(blocks, hidden_states, encoder_hidden_states, timestep):
    temb = (timestep / 1000)[:, None, None]
    x, text = hidden_states.clone(), encoder_hidden_states
    for block in blocks:
        x, text = block(hidden_states=x, encoder_hidden_states=text, temb=temb)
    return x + text.mean(1, keepdim=True)


JOINT = Architecture(
    family="joint",
    pipeline="x:Pipe",
    denoiser="transformer",
    stacks=(
        Stack(name="double", path="double_blocks", streams=2),
        Stack(name="single", path="single_blocks", streams=2),
    ),
    interleaved=False,
    rows="uncond_first",
)
FORMS = {"tensor": lambda x: x, "tuple": lambda x: (x, "more"), "output": lambda x: Transformer2DModelOutput(sample=x)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("layers", "kept"),
    [({"double": [1]}, [0, 2, 3, 4]), ({"single": [0]}, [0, 1, 2, 4]), ({"double": [0, 2], "single": [1]}, [1, 3])],
)
def test_a_joint_model_is_a_record(harness, form, layers, kept):
    torch.manual_seed(0)
    model = JointDenoiser(FORMS[form])
    latents, text, timestep = torch.randn(4, 5, 6), torch.randn(4, 3, 6), torch.full((4,), 800.0)
    blocks = (*model.double_blocks, *model.single_blocks)
    u, c = through(blocks, latents, text, timestep).chunk(2)
    p = through([blocks[position] for position in kept], latents, text, timestep).chunk(2)[1]
    scheduler = SimpleNamespace(timesteps=torch.tensor([800.0]))
    pipe = SimpleNamespace(transformer=model, scheduler=scheduler, guidance_scale=4.0)
    for prefix_reuse in (True, False):
        with guided(pipe, harness.spec(harness.term(**layers)), architecture=JOINT, prefix_reuse=prefix_reuse):
            out = model(latents, encoder_hidden_states=text, timestep=timestep, table=torch.randn(5, 2))
        assert type(out) is type(FORMS[form](c))
        found = out if form == "tensor" else out[0]
        torch.testing.assert_close(found, (u + 7.0 * (c - u) + (c - p)).repeat(2, 1, 1), atol=1e-5, rtol=0)


def test_an_attention_that_cannot_pass_its_values_is_refused(harness):
    pipe = SimpleNamespace(transformer=JointDenoiser(FORMS["tensor"]), scheduler=None)
    with (
        pytest.raises(StgTuneError, match=r"JointBlock\.attn cannot pass its values through: use skip_op 'residual'"),
        guided(pipe, harness.spec(harness.term(op="attention", double=[1])), architecture=JOINT),
    ):
        pass


def test_a_record_of_another_model_is_refused(harness, stdit):
    pipe = harness.pipe(stdit)
    with (
        pytest.raises(StgTuneError, match="no list of blocks at 'double_blocks'"),
        guided(pipe, harness.spec(), architecture=JOINT),
    ):
        pass
