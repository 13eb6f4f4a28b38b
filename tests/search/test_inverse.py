"""Numbers -> setting -> numbers, and settings by other hands that the numbers can or cannot express."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm
from stg_tune.search.encoding import Encoding
from stg_tune.search.inverse import canonical, params_of
from stg_tune.search.ranges import Range, RestartRange, SecondPart
from stg_tune.search.space_file import load_space

DEPTHS = {"spatial": 8, "temporal": 8}
SPACE = load_space("open-sora-tiny", DEPTHS)
ORDERS = {
    ("spatial", "attention"): (7, 1, 3, 5, 0, 2, 4, 6),
    ("spatial", "residual"): (0, 1, 2, 3, 4, 5, 6, 7),
    ("temporal", "attention"): (2, 4, 6, 0, 1, 3, 5, 7),
    ("temporal", "residual"): (6, 5, 4, 3, 2, 1, 0, 7),
}


def between(low, high, scale="linear"):
    return Range(low=low, high=high, scale=scale, why="a test", source="a test")


WIDE = replace(
    SPACE,
    segments=SecondPart(split=between(0.1, 0.9), cfg_scale=between(1.0, 8.0), stg_factor=between(0.0, 2.0)),
    restart=RestartRange(start=between(0.0, 0.6), stop=between(0.3, 0.9), max_count=3, why="a test", source="a test"),
)
PLAIN, FULL = (Encoding(space=space, orders=ORDERS, num_steps=10) for space in (SPACE, WIDE))


def points(encoding):
    numbers = {
        knob.name: st.integers(int(knob.low), int(knob.high)) if knob.whole else st.floats(knob.low, knob.high)
        for knob in encoding.knobs()
    }
    return st.fixed_dictionaries(numbers)


def check_round_trip(encoding, params):
    spec = encoding.decode(params)
    again = params_of(encoding, spec)
    assert again is not None, spec
    assert encoding.decode(again) == spec
    assert again.keys() == params.keys()
    for knob in encoding.knobs():
        assert knob.low <= again[knob.name] <= knob.high
        assert not knob.whole or isinstance(again[knob.name], int)


@settings(max_examples=150, deadline=None)
@given(points(PLAIN))
def test_whatever_can_be_proposed_can_be_expressed(params):
    check_round_trip(PLAIN, params)


@settings(max_examples=250, deadline=None)
@given(points(FULL), st.integers(1, 13))
def test_so_can_two_parts_and_restarts_at_any_number_of_steps(params, num_steps):
    check_round_trip(replace(FULL, num_steps=num_steps), params)


@settings(max_examples=60, deadline=None)
@given(points(FULL))
def test_canonical_is_what_is_proposed(params):
    spec = FULL.decode(params)
    assert canonical(spec, 10, WIDE) == spec


def term(stack="spatial", layers=(1, 3), op="attention", scale=0.5, name="mine", **more):
    return SkipTerm(name=name, skip_layers={stack: layers}, skip_op=op, stg_scale=scale, **more)


def setting(*terms, cfg_scale=3.0, **segment):
    return GuidanceSpec(cfg_scale=cfg_scale, segments=(Segment(terms=terms, **segment),))


def test_names_idle_terms_and_windows_within_a_step_do_not_matter():
    spec = setting(term(), term(stack="temporal", name="off", scale=0.0), start=0.11, stop=0.75)
    params = params_of(PLAIN, spec)
    assert (params["k_spatial"], params["offset_spatial"], params["k_temporal"]) == (2, 1, 0)
    decoded = PLAIN.decode(params).segments[0]
    assert (decoded.start, decoded.stop) == (0.2, 0.8)
    assert decoded.terms[0].skip_layers["spatial"] == (1, 3)


def test_terms_that_do_not_depend_on_their_order_may_have_any():
    terms = (term(stack="temporal", layers=(2,), name="a"), term(name="b", scale=0.7))
    assert params_of(PLAIN, setting(*terms))["stg_scale_spatial"] == 0.7
    assert params_of(PLAIN, setting(*terms, combination="orthogonal")) is None
    assert params_of(PLAIN, setting(*reversed(terms), combination="orthogonal"))["combination"] == 1


def test_one_term_in_both_stacks_is_joint_and_a_cfg_scale_everywhere_is_the_cfg_scale():
    joint = SkipTerm(name="x", skip_layers={"spatial": (7,), "temporal": (2, 4)}, skip_op="attention", stg_scale=0.5)
    spec = GuidanceSpec(cfg_scale=7.0, segments=(Segment(cfg_scale=2.5, terms=(joint,)),))
    params = params_of(PLAIN, spec)
    assert (params["joint"], params["cfg_scale"], params["k_temporal"]) == (1, 2.5, 2)


def test_cfg_alone_has_numbers():
    params = params_of(PLAIN, GuidanceSpec(cfg_scale=4.0))
    assert (params["cfg_scale"], params["k_spatial"], params["k_temporal"]) == (4.0, 0, 0)
    assert params_of(PLAIN, setting(rescale=0.7))["rescale"] == 0.7


@pytest.mark.parametrize(
    "spec",
    [
        setting(term(layers=(7, 3))),  # ranks 0 and 2
        setting(term(layers=(4,))),  # rank 6, offset at most 3
        setting(term(layers=(7, 1, 3, 5))),  # four layers
        setting(term(layers=(9,))),
        setting(term(op="feed_forward")),
        setting(term(stack="joint", layers=(0,))),
        setting(term(scale=5.0)),
        setting(term(scale=-0.5)),
        setting(term(scale=0.333)),
        setting(term(), cfg_scale=9.0),
        setting(term(), cfg_scale=3.33),
        setting(term(), start=0.7),
        setting(term(), rescale=0.33),
        GuidanceSpec(cfg_scale=3.0, segments=(Segment(stop=0.5, cfg_scale=5.0, terms=(term(),)),)),
        setting(term(), term(stack="temporal", layers=(6,), op="residual", name="b")),
        setting(term(), term(layers=(7,), name="b")),
        setting(term(branch="crossed")),
        setting(term(draw=1)),
        setting(rescale=0.5, stop=0.5),
        replace(setting(term()), cfg_source="pipeline"),
        replace(setting(term()), restart=Restart(start=0.2, stop=0.5)),
        GuidanceSpec(
            cfg_scale=3.0,
            segments=(Segment(stop=0.5, terms=(term(),)), Segment(start=0.5, terms=(term(scale=1.0),))),
        ),
    ],
)
def test_what_the_numbers_cannot_say(spec):
    assert params_of(PLAIN, spec) is None


def test_two_parts_and_restarts_have_numbers_where_the_space_names_them():
    parts = (Segment(stop=0.5, terms=(term(),)), Segment(start=0.5, cfg_scale=1.5, terms=(term(scale=1.0),)))
    spec = GuidanceSpec(cfg_scale=3.0, segments=parts, restart=Restart(start=0.2, stop=0.5, count=2))
    params = params_of(FULL, spec)
    assert (params["parts"], params["second_cfg_scale"], params["second_factor"]) == (2, 1.5, 2.0)
    assert (params["restarts"], params["restart_start"], params["restart_stop"]) == (2, 0.2, 0.5)
    assert params_of(FULL, replace(spec, restart=Restart(start=0.2, stop=0.5, count=9))) is None


def test_equal_parts_are_one():
    parts = tuple(Segment(start=at / 10, stop=(at + 5) / 10, terms=(term(),)) for at in (0, 5))
    params = params_of(PLAIN, GuidanceSpec(cfg_scale=3.0, segments=parts))
    assert (params["start"], params["stop"]) == (0.0, 1.0)


def test_a_window_that_only_the_full_steps_can_tell_is_not_expressed_with_fewer():
    half = replace(PLAIN, num_steps=5)
    assert params_of(half, setting(term(), start=0.2, stop=0.6), num_steps=10) is not None
    assert params_of(half, setting(term(), start=0.1, stop=0.6), num_steps=10) is None
