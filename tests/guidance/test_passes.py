from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stg_tune.errors import StgTuneError
from stg_tune.guidance.passes import covers, plan, step_of
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

SPATIAL = SkipTerm(name="spatial", skip_layers={"spatial": (1,)}, skip_op="attention", stg_scale=1.5)
OFF = SkipTerm(name="off", skip_layers={"spatial": (2,)}, skip_op="residual", stg_scale=0.0)


def test_a_step_is_a_tuple_of_named_passes():
    spec = GuidanceSpec(cfg_scale=7.0, segments=(Segment(terms=(SPATIAL,), rescale=0.5),))
    step = plan(spec, 0, 6)
    assert [(item.name, item.prompt, item.skip) for item in step.passes] == [
        ("prompted", "positive", None),
        ("negative", "negative", None),
        ("without spatial", "positive", SPATIAL),
    ]
    assert (step.cfg_scale, step.rescale, step.terms, step.only_cfg) == (7.0, 0.5, (SPATIAL,), False)


def test_no_negative_pass_without_cfg_and_no_weak_pass_at_scale_0():
    step = plan(GuidanceSpec(cfg_scale=1.0, segments=(Segment(terms=(SPATIAL, OFF)),)), 0, 6)
    assert [item.name for item in step.passes] == ["prompted", "without spatial"]
    assert plan(GuidanceSpec(cfg_scale=1.0, segments=(Segment(terms=(OFF,)),)), 0, 6).only_cfg


def test_rescale_alone_is_more_than_cfg_only_where_there_is_cfg():
    segment = Segment(rescale=0.7)
    assert not plan(GuidanceSpec(cfg_scale=2.0, segments=(segment,)), 0, 6).only_cfg
    assert plan(GuidanceSpec(cfg_scale=1.0, segments=(segment,)), 0, 6).only_cfg


def test_segments_have_their_own_setting_and_the_rest_is_plain_cfg():
    spec = GuidanceSpec(
        cfg_scale=7.0,
        segments=(
            Segment(start=0.0, stop=0.5, cfg_scale=1.0, terms=(SPATIAL,)),
            Segment(start=0.5, stop=0.8, combination="orthogonal"),
        ),
    )
    steps = [plan(spec, step, 10) for step in range(10)]
    assert [step.cfg_scale for step in steps] == [1.0] * 5 + [7.0] * 5
    assert [len(step.terms) for step in steps] == [1] * 5 + [0] * 5
    assert [step.combination for step in steps] == ["independent"] * 5 + ["orthogonal"] * 3 + ["independent"] * 2


@given(num_steps=st.integers(1, 200), data=st.data())
def test_a_window_of_step_fractions_holds_exactly_its_steps_even_rounded_to_six_digits(num_steps, data):
    first = data.draw(st.integers(0, num_steps))
    end = data.draw(st.integers(first, num_steps))
    segment = Segment(start=round(float(Fraction(first, num_steps)), 6), stop=round(float(Fraction(end, num_steps)), 6))
    assert [step for step in range(num_steps) if covers(segment, step, num_steps)] == list(range(first, end))


TIMESTEPS = torch.tensor([1000.0, 872.25, 640.5, 311.0])


@pytest.mark.parametrize("step", range(4))
def test_a_step_is_found_by_its_timestep_in_any_shape_and_precision(step):
    now = TIMESTEPS[step]
    assert step_of(now, TIMESTEPS) == step
    assert step_of(now.expand(6).to(torch.bfloat16), TIMESTEPS) == step
    assert step_of(torch.tensor([[0.0, float(now)], [float(now), 0.0]]), TIMESTEPS) == step  # clean tokens carry 0
    assert step_of(torch.tensor(round(float(now))), TIMESTEPS.round().long()) == step


def test_a_foreign_timestep_is_refused():
    with pytest.raises(
        StgTuneError, match=r"timestep 0\.9, which is not in pipe\.scheduler\.timesteps \(1000 to 311, 4"
    ):
        step_of(torch.tensor([0.9]), TIMESTEPS)
    with pytest.raises(StgTuneError, match="nan"):
        step_of(torch.tensor([float("nan")]), TIMESTEPS)
