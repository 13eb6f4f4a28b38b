import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stg_tune.records import GuidanceSpec, Restart
from stg_tune.search.encoding import Encoding, build_spec, is_cfg_only
from stg_tune.search.ranges import Range, RestartRange, SecondPart
from stg_tune.search.space import check_spec
from stg_tune.search.space_file import load_space

DEPTHS = {"spatial": 8, "temporal": 8}
SPACE = load_space("open-sora-tiny", DEPTHS)
ORDERS = {
    ("spatial", "attention"): (7, 1, 3, 5, 0, 2, 4, 6),
    ("spatial", "residual"): (0, 1, 2, 3, 4, 5, 6, 7),
    ("temporal", "attention"): (2, 4, 6, 0, 1, 3, 5, 7),
    ("temporal", "residual"): (6, 5, 4, 3, 2, 1, 0, 7),
}
ENCODING = Encoding(space=SPACE, orders=ORDERS, num_steps=10)
BASE = {
    "op": 0,
    "k_spatial": 2,
    "offset_spatial": 1,
    "stg_scale_spatial": 0.314,
    "k_temporal": 1,
    "offset_temporal": 0,
    "stg_scale_temporal": 0.8,
    "joint": 0,
    "combination": 1,
    "cfg_scale": 2.52,
    "rescale": 0.33,
    "start": 0.0,
    "stop": 1.0,
}


def test_numbers_mean_ranks_in_the_screened_order():
    spec = ENCODING.decode(BASE)
    (segment,) = spec.segments
    assert [dict(term.skip_layers) for term in segment.terms] == [{"spatial": (1, 3)}, {"temporal": (2,)}]
    assert [term.stg_scale for term in segment.terms] == [0.31, 0.8]
    assert (spec.cfg_scale, segment.rescale, segment.combination) == (2.5, 0.35, "orthogonal")


def test_one_joint_term_skips_in_both_stacks():
    (term,) = ENCODING.decode({**BASE, "joint": 1}).segments[0].terms
    assert (term.name, dict(term.skip_layers)) == ("joint", {"spatial": (1, 3), "temporal": (2,)})


def test_settings_that_act_alike_are_one_configuration():
    alone = {**BASE, "k_temporal": 0}
    first = ENCODING.decode(alone)
    for change in ({"joint": 1}, {"combination": 0}, {"stg_scale_temporal": 0.05}, {"offset_temporal": 3}):
        assert ENCODING.decode({**alone, **change}).hash() == first.hash()
    assert ENCODING.decode({**alone, "start": 0.02}).hash() == ENCODING.decode({**alone, "start": 0.1}).hash()


def test_no_layer_and_no_rescale_is_plain_cfg():
    nothing = {**BASE, "k_spatial": 0, "k_temporal": 0, "rescale": 0.01}
    assert ENCODING.decode(nothing) == GuidanceSpec(cfg_scale=2.5)
    assert is_cfg_only(ENCODING.decode({**nothing, "rescale": 0.7}))


@pytest.mark.parametrize(
    ("start", "stop", "steps"), [(0.0, 1.0, range(10)), (0.35, 0.61, range(4, 7)), (0.6, 0.4, [6])]
)
def test_windows_cover_whole_steps_and_never_none(start, stop, steps):
    (segment,) = ENCODING.decode({**BASE, "start": start, "stop": stop}).segments
    assert [step for step in range(10) if segment.start <= step / 10 < segment.stop] == list(steps)


def test_the_screens_single_layers_are_points_of_the_search():
    reference = build_spec(cfg_scale=2.5, rescale=0.35)
    for stack, op in ORDERS:
        params = ENCODING.params_for(reference, op, {stack: (2, 1)})
        single = ENCODING.single(reference, stack, op, ORDERS[stack, op][2])
        assert ENCODING.decode(params).hash() == single.hash()


def test_what_lies_outside_is_no_start():
    assert ENCODING.params_for(GuidanceSpec(cfg_scale=9.0), "attention", {"spatial": (0, 1)}) is None
    assert ENCODING.params_for(GuidanceSpec(cfg_scale=2.0), "attention", {"spatial": (5, 1)}) is None


def between(low, high):
    return Range(low=low, high=high, why="a test", source="a test")


PARTS = SecondPart(split=between(0.0, 1.0), cfg_scale=between(1.0, 8.0), stg_factor=between(0.0, 2.0))
RESTARTS = RestartRange(start=between(0.0, 0.6), stop=between(0.2, 0.9), max_count=3, why="a test", source="a test")
WIDE = dataclasses.replace(ENCODING, space=dataclasses.replace(SPACE, segments=PARTS, restart=RESTARTS))
USED = {
    **BASE,
    "parts": 2,
    "split": 0.3,
    "second_cfg_scale": 4.02,
    "second_factor": 0.5,
    "restarts": 2,
    "restart_start": 0.15,
    "restart_stop": 0.5,
}


def test_a_second_part_and_restarts_are_knobs_only_where_the_space_names_them():
    plain, wide = ENCODING.knobs(), WIDE.knobs()
    assert wide[: len(plain)] == plain
    assert [knob.name for knob in wide[len(plain) :]] == list(USED)[len(BASE) :]
    only = dataclasses.replace(ENCODING, space=dataclasses.replace(SPACE, restart=RESTARTS))
    assert [knob.name for knob in only.knobs()[len(plain) :]] == ["restarts", "restart_start", "restart_stop"]


def test_the_second_part_has_a_cfg_scale_and_a_strength_of_its_own():
    spec = WIDE.decode(USED)
    first, second = spec.segments
    assert ((first.start, first.stop), (second.start, second.stop)) == ((0.0, 0.3), (0.3, 1.0))
    assert (spec.cfg_scale, first.cfg_scale, second.cfg_scale) == (2.5, None, 4.0)
    assert [term.stg_scale for term in first.terms] == [0.31, 0.8]
    assert [term.stg_scale for term in second.terms] == [0.155, 0.4]
    assert [term.skip_layers for term in first.terms] == [term.skip_layers for term in second.terms]
    assert (first.rescale, first.combination) == (second.rescale, second.combination) == (0.35, "orthogonal")
    assert spec.restart == Restart(start=0.2, stop=0.5, count=2)


def test_parts_and_restarts_that_are_off_or_alike_are_the_plain_setting():
    plain = ENCODING.decode(BASE)
    off = {**USED, "parts": 1, "restarts": 0}
    assert WIDE.decode(off) == plain
    assert WIDE.decode({**USED, "restarts": 0, "second_factor": 1.01, "second_cfg_scale": 2.51}) == plain
    assert WIDE.decode({**off, "parts": 2, "start": 0.5, "stop": 0.6}) == ENCODING.decode(
        {**BASE, "start": 0.5, "stop": 0.6}
    )
    nothing = {**USED, "k_spatial": 0, "k_temporal": 0}
    assert is_cfg_only(WIDE.decode(nothing))
    assert WIDE.decode(nothing) == ENCODING.decode({**BASE, "k_spatial": 0, "k_temporal": 0})


def test_a_second_part_without_strength_keeps_only_what_still_acts():
    quiet = {**USED, "second_factor": 0.01, "restarts": 0}
    first, second = WIDE.decode(quiet).segments
    assert (second.terms, second.cfg_scale, second.combination) == ((), 4.0, "independent")
    (only,) = WIDE.decode({**quiet, "second_cfg_scale": 2.5, "rescale": 0.0}).segments
    assert (only.stop, len(only.terms)) == (first.stop, 2)


def test_the_screens_points_use_neither():
    params = WIDE.params_for(GuidanceSpec(cfg_scale=2.5), "attention", {"spatial": (0, 1)})
    assert WIDE.decode(params) == WIDE.single(GuidanceSpec(cfg_scale=2.5), "spatial", "attention", 7)


@st.composite
def points(draw):
    knobs = ENCODING.knobs()
    return {
        knob.name: draw(st.integers(int(knob.low), int(knob.high)) if knob.whole else st.floats(knob.low, knob.high))
        for knob in knobs
    }


@settings(max_examples=60, deadline=None)
@given(points())
def test_every_point_is_a_valid_setting_inside_the_space(params):
    spec = ENCODING.decode(params)
    check_spec(spec, DEPTHS, "x")
    assert GuidanceSpec.from_dict(spec.to_dict()) == spec
    assert SPACE.cfg_scale.low <= spec.cfg_scale <= SPACE.cfg_scale.high
    for segment in spec.segments:
        for term in segment.terms:
            assert SPACE.stg_scale.low <= term.stg_scale <= SPACE.stg_scale.high
            assert sum(len(layers) for layers in term.skip_layers.values()) <= 6
