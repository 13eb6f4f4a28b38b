"""Settings as numbers: what acts alike is alike, what does nothing is nothing."""

import math

import numpy as np
import pytest

from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm
from stg_tune.search.features import CFG, CFG_STEP, GENERAL, RESCALE, SKIPPING, Features


@pytest.fixture
def features(landscape, make_plan):
    plan = make_plan(landscape())
    return Features(space=plan.space, depths=plan.depths)


def guided(layers, scale=0.3, op="attention", start=0.0, stop=1.0, **changes):
    term = SkipTerm(name="spatial", skip_layers={"spatial": layers}, skip_op=op, stg_scale=scale)
    return GuidanceSpec(cfg_scale=2.0, segments=(Segment(start=start, stop=stop, terms=(term,)),), **changes)


def test_every_block_and_operation_has_a_column(features):
    assert len(features.blocks) == 2 * 2 * 8
    rows = features([GuidanceSpec(cfg_scale=2.0), guided((3,)), guided((3,), op="residual")])
    assert rows.shape == (3, GENERAL + 32)
    assert not rows[0, SKIPPING].any()
    assert not rows[0, GENERAL:].any()
    for row, op in ((1, "attention"), (2, "residual")):
        (column,) = np.flatnonzero(rows[row, GENERAL:])
        assert features.blocks[column] == ("spatial", op, 3)


def test_a_term_counts_by_the_length_of_its_window_and_a_term_of_no_strength_not_at_all(features):
    whole, half, none = features([guided((1,)), guided((1,), start=0.5), guided((1,), scale=0.0)])
    assert half[GENERAL:].sum() == pytest.approx(whole[GENERAL:].sum() / 2)
    assert not none[SKIPPING].any()
    assert not none[GENERAL:].any()


def test_the_cfg_column_spans_one_from_end_to_end_and_follows_the_segments(features):
    scale = features.space.cfg_scale
    ends = features([GuidanceSpec(cfg_scale=scale.low), GuidanceSpec(cfg_scale=scale.high)])
    assert ends[1, CFG] - ends[0, CFG] == pytest.approx(1.0)
    stepped = GuidanceSpec(cfg_scale=2.0, segments=(Segment(start=0.5, stop=1.0, cfg_scale=4.0, rescale=0.6),))
    (row,) = features([stepped])
    unit = math.log(scale.high / scale.low)
    assert row[CFG] == pytest.approx((math.log(2) + 0.5 * math.log(2)) / unit)
    assert row[CFG_STEP] == pytest.approx(math.log(2) / unit)
    assert row[RESCALE] == pytest.approx(0.3)


def test_restarts_count(features):
    plain, again = features([guided((1,)), guided((1,), restart=Restart(start=0.2, stop=0.6, count=2))])
    assert again[SKIPPING].sum() - plain[SKIPPING].sum() == pytest.approx(math.log1p(0.8))


def test_likeness_is_a_correlation(features):
    likeness = features.likeness
    assert np.allclose(likeness, likeness.T)
    assert np.allclose(np.diag(likeness), 1.0)
    assert np.linalg.eigvalsh(likeness).min() > 0
    at = {block: number for number, block in enumerate(features.blocks)}
    near = likeness[at["spatial", "attention", 2], at["spatial", "attention", 3]]
    far = likeness[at["spatial", "attention", 2], at["spatial", "attention", 6]]
    assert 0 < far < near < 1
    assert likeness[at["spatial", "attention", 2], at["temporal", "attention", 2]] == 0


def test_no_settings_no_rows(features):
    assert features([]).shape == (0, GENERAL + 32)
