"""Settings of sibling models: relative depth, and what cannot be carried over."""

from dataclasses import replace

import pytest

from stg_tune import preset
from stg_tune.errors import StgTuneError
from stg_tune.preset import carried_over


def _layers(spec):
    return [dict(term.skip_layers) for segment in spec.segments for term in segment.terms]


def test_equal_depths_give_the_setting_back():
    for prior in preset.published():
        assert carried_over(prior, prior.stacks) == prior.spec


def test_first_stays_first_last_stays_last_and_indices_stay_in_range():
    for prior in preset.published():
        wider = {name: 2 * depth + 1 for name, depth in prior.stacks.items()}
        ends = {name: tuple({0, depth - 1}) for name, depth in prior.stacks.items()}
        for spec in (carried_over(prior, wider), carried_over(_everywhere(prior, ends), wider)):
            assert all(
                0 <= i < wider[stack] for layers in _layers(spec) for stack, found in layers.items() for i in found
            )
        moved = _layers(carried_over(_everywhere(prior, ends), wider))
        expected = {name: tuple(sorted({0, depth - 1})) for name, depth in wider.items()}
        assert all(layers == {stack: expected[stack] for stack in layers} for layers in moved)


def test_layer_34_of_48_is_layer_20_of_28():
    prior = preset.find_published("mochi/published")
    assert _layers(prior.spec) == [{"blocks": (34,)}]
    assert _layers(carried_over(prior, {"blocks": 29})) == [{"blocks": (20,)}]  # 34 / 47 * 28 = 20.3


def test_layers_that_fall_together_are_counted_once():
    prior = preset.find_published("mochi/published")
    both = _everywhere(prior, {"blocks": (34, 35)})
    assert _layers(carried_over(both, {"blocks": 8})) == [{"blocks": (5,)}]


def test_a_missing_stack_is_named():
    with pytest.raises(StgTuneError, match=r"stack 'blocks', .* \(it has spatial, temporal\)"):
        carried_over(preset.find_published("mochi/published"), {"spatial": 8, "temporal": 8})


def _everywhere(prior, layers):
    """The same preset with other layers in each term."""
    segments = tuple(
        replace(
            segment,
            terms=tuple(
                replace(term, draw=0, skip_layers={stack: layers[stack] for stack in term.skip_layers})
                for term in segment.terms
            ),
        )
        for segment in prior.spec.segments
    )
    return replace(prior, spec=replace(prior.spec, segments=segments))
