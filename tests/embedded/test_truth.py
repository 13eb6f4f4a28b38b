import numpy as np
import pytest

from stg_tune import models
from stg_tune.embedded import digits
from stg_tune.embedded.judge import Judge, JudgeNetwork
from stg_tune.embedded.truth import (
    Judged,
    asked_of,
    captioned,
    distance,
    distance_gain,
    joint_gain,
    single_layer,
    truth_pairs,
)


@pytest.fixture
def judge():
    return Judge(JudgeNetwork(), np.zeros(6), np.eye(6))


def _arm(seed, shift):
    rng = np.random.default_rng(seed)
    return Judged(features=rng.normal(size=(300, 6)) + shift, answers=np.zeros((300, 3), dtype=np.int64))


def test_pairs_go_round_all_captions_and_never_share_a_seed():
    pairs = truth_pairs(480)
    assert [pair.prompt for pair in pairs[:240]] == [pair.prompt for pair in pairs[240:]]
    assert {pair.prompt for pair in pairs} == set(digits.captions())
    assert len({pair.seed for pair in pairs}) == 480
    assert truth_pairs(10) == pairs[:10]


def test_the_gain_is_the_difference_of_the_distances_inside_its_interval(judge):
    near, far = _arm(0, 0.1), _arm(1, 0.6)
    gain, low, high = distance_gain(judge, near, far)
    assert gain == pytest.approx(distance(judge, far) - distance(judge, near))
    assert 0 < low < gain < high
    reverse, _, _ = distance_gain(judge, far, near)
    assert reverse == pytest.approx(-gain)


def test_two_arms_of_one_distribution_cannot_be_told_apart(judge):
    _, low, high = distance_gain(judge, _arm(2, 0.0), _arm(3, 0.0))
    assert low < 0 < high


@pytest.mark.parametrize(("model", "told"), [("open-sora-tiny", True), ("svd-tiny", False)])
def test_only_a_model_with_words_is_asked_for_the_direction_of_the_caption(model, told):
    pairs = truth_pairs(12)
    asked, words = asked_of(pairs, models.entry(model)), captioned(pairs)
    np.testing.assert_array_equal(asked, words if told else words[:, :2])
    assert len(set(words[:, 2])) > 1


def test_the_joint_gain_holds_every_arm_against_what_was_asked_for():
    class Reference:
        def distance(self, features, asked):
            return float(np.abs(features[:, 0] - asked[:, 0]).mean())

    right, wrong = (Judged(features=np.full((50, 6), shown), answers=np.zeros((50, 3), int)) for shown in (2.0, 5.0))
    asked = np.full((50, 3), 2)
    gain, low, high = joint_gain(Reference(), right, wrong, asked)
    assert gain == low == high == pytest.approx(3.0)
    assert joint_gain(Reference(), wrong, right, asked)[0] == pytest.approx(-3.0)


def test_a_single_layer_setting_skips_exactly_that_block():
    (segment,) = single_layer("temporal", 3, "residual", 0.5, 2.0).segments
    (term,) = segment.terms
    assert dict(term.skip_layers) == {"temporal": (3,)}
    assert (term.skip_op, term.stg_scale, segment.start, segment.stop) == ("residual", 0.5, 0.0, 1.0)
