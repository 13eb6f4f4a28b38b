from dataclasses import replace

import pytest

from stg_tune.preset import diff, find_published
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

BASE = find_published("mochi/published")


def term(name, layer, scale=1.0):
    return SkipTerm(name=name, skip_layers={"blocks": (layer,)}, skip_op="residual", stg_scale=scale)


def with_terms(*terms, **segment):
    return replace(BASE, spec=GuidanceSpec(cfg_scale=4.5, segments=(Segment(terms=terms, **segment),)))


def fields(left, right):
    return {item.field: (item.left, item.right) for item in diff(left, right)}


def test_equal_presets_differ_in_nothing():
    assert diff(BASE, BASE) == ()
    nearly = replace(BASE, spec=replace(BASE.spec, cfg_scale=BASE.spec.cfg_scale + 1e-9))
    assert diff(BASE, nearly) == ()
    assert nearly.hash() == BASE.hash()


def test_each_changed_field_is_named_with_both_values():
    left, right = with_terms(term("a", 3)), with_terms(term("a", 4, 2.0), rescale=0.5)
    assert fields(left, right) == {
        "guidance.segments[0].terms.a.skip_layers.blocks": ([3], [4]),
        "guidance.segments[0].terms.a.stg_scale": (1.0, 2.0),
        "guidance.segments[0].rescale": (0.0, 0.5),
    }


def test_an_added_term_does_not_shift_the_others():
    left, right = with_terms(term("b", 3)), with_terms(term("a", 9), term("b", 3))
    assert {field.split(".terms.")[1].split(".")[0] for field in fields(left, right)} == {"a"}
    assert all(before == "-" for before, _ in fields(left, right).values())


@pytest.mark.parametrize(
    ("changes", "matters"),
    [
        ({"name": "other"}, False),
        ({"source": "elsewhere"}, False),
        ({"notes": ("a",)}, False),
        ({"revision": "x"}, True),
    ],
)
def test_what_does_not_change_the_result_is_marked_and_keeps_the_hash(changes, matters):
    other = replace(BASE, **changes)
    assert [item.changes_result for item in diff(BASE, other)] == [matters]
    assert (other.hash() != BASE.hash()) is matters


def test_true_is_not_one():
    from stg_tune.preset.diff import _same

    assert not _same(True, 1)
    assert not _same([True], [1])
    assert _same(1, 1.0)


def test_an_empty_list_and_an_absent_one_differ():
    assert fields(with_terms(), replace(BASE, spec=GuidanceSpec(cfg_scale=4.5)))
