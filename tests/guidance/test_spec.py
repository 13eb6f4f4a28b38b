"""The optional fields of a specification: plain data, absent when usual, so that older hashes and files stay valid."""

from __future__ import annotations

import pickle

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm

PLAIN = SkipTerm(name="t", skip_layers={"blocks": (1, 4)}, skip_op="residual", stg_scale=1.0)


def whole(term=PLAIN, **more):
    return GuidanceSpec(cfg_scale=4.0, segments=(Segment(terms=(term,)),), **more)


def test_usual_values_leave_no_trace():
    assert set(PLAIN.to_dict()) == {"name", "skip_layers", "skip_op", "stg_scale"}
    assert set(whole().to_dict()) == {"cfg_scale", "segments"}


def test_every_field_survives_a_round_trip():
    drawn = SkipTerm(name="t", skip_layers={"blocks": (1, 4)}, skip_op="blur", stg_scale=1.0, draw=1, seed=9)
    weak = SkipTerm(name="w", skip_layers={}, skip_op="weak_model", stg_scale=0.5)
    for spec in (
        whole(drawn),
        whole(weak),
        whole(SkipTerm(name="g", skip_layers={"blocks": (2,)}, skip_op="salient_blur", stg_scale=0.75, blur_sigma=1.5)),
        whole(cfg_source="pipeline", restart=Restart(start=0.2, stop=0.6, count=3)),
        whole(SkipTerm(name="n", skip_layers={"blocks": (0,)}, skip_op="attention", stg_scale=2.0, branch="crossed")),
    ):
        assert GuidanceSpec.from_dict(spec.to_dict()) == spec
        assert pickle.loads(pickle.dumps(spec)) == spec
        assert spec.hash() != whole().hash()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"draw": 3}, "draw of term 't' must be a whole number from 0 to 2, got 3"),
        ({"seed": -1}, "seed of term 't' must be"),
        ({"skip_op": "atention"}, "skip_op of term 't' must be one of attention, residual, attention_all"),
        ({"skip_layers": {}}, "skips no layer"),
        ({"blur_sigma": 1.0}, "only blur and salient_blur blur"),
        ({"skip_op": "blur", "blur_sigma": 0}, "by more than 0"),
        ({"skip_op": "blur", "blur_sigma": 1001.0}, "must be between 0.0 and 1000.0"),
        ({"skip_op": "salient_blur"}, "without blur_sigma: give one"),
        ({"skip_op": "salient_blur", "blur_sigma": 1.0, "branch": "crossed"}, "the branch must be 'cond'"),
    ],
)
def test_impossible_terms_are_refused(fields, match):
    usual = {"name": "t", "skip_layers": {"blocks": (1, 4)}, "skip_op": "residual", "stg_scale": 1.0}
    with pytest.raises(StgTuneError, match=match):
        SkipTerm(**{**usual, **fields})


def test_impossible_restarts_are_refused():
    for fields, match in [
        ({"start": 0.5, "stop": 0.5}, "is empty"),
        ({"start": 0.1, "stop": 1.5}, "between 0.0 and 1.0"),
        ({"start": 0.1, "stop": 0.5, "count": 0}, "count of restart must be a whole number from 1 to 100"),
    ]:
        with pytest.raises(StgTuneError, match=match):
            Restart(**fields)
    with pytest.raises(StgTuneError, match="restart: unknown field 'begin'"):
        GuidanceSpec.from_dict({"cfg_scale": 1.0, "restart": {"begin": 0.1, "start": 0.1, "stop": 0.4}})
