"""The Frechet joint distance sees wrong answers and sameness, where accuracy or the plain distance see one of them."""

import numpy as np
import pytest
import torch

from stg_tune.embedded import digits
from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.joint import CHOICES, JointReference, joined, load_joint, save_joint
from stg_tune.embedded.judge import frechet, load_judge
from stg_tune.embedded.truth import Judged, joint_gain


def _asked(rng, count):
    return np.stack([rng.integers(0, choices, count) for choices in CHOICES], 1)


def _features(rng, asked):
    """Ten features that follow the digit, six the colour, and noise."""
    clean = _clean(asked)
    return 3 * clean + rng.normal(size=clean.shape)


def _clean(asked):
    return np.concatenate([np.eye(count)[asked[:, i]] for i, count in enumerate(CHOICES[:2])], 1)


@pytest.fixture
def reference():
    rng = np.random.default_rng(0)
    asked = _asked(rng, 4000)
    both = joined(_features(rng, asked), asked, 2.0)
    return JointReference(weight=2.0, mean=both.mean(0), covariance=np.cov(both, rowvar=False))


def _marginal(reference, features):
    size = features.shape[1]
    own = features.mean(0), np.cov(features, rowvar=False)
    return frechet(*own, reference.mean[:size], reference.covariance[:size, :size])


def test_videos_that_do_not_show_what_was_asked_for_are_far_though_their_features_are_right(reference):
    rng = np.random.default_rng(1)
    asked = _asked(rng, 2000)
    features = _features(rng, asked)
    right, wrong = reference.distance(features, asked), reference.distance(features[::-1], asked)
    assert _marginal(reference, features) == pytest.approx(_marginal(reference, features[::-1]))
    assert 10 * right < wrong


def test_videos_that_all_look_the_same_are_far_though_every_answer_is_right(reference):
    rng = np.random.default_rng(2)
    asked = _asked(rng, 2000)
    features = _features(rng, asked)
    clean = _features(rng, asked) * 0 + 3 * np.concatenate(
        [np.eye(c)[asked[:, i]] for i, c in enumerate(CHOICES[:2])], 1
    )
    assert reference.distance(clean, asked) > reference.distance(features, asked) + 5


def test_without_the_direction_it_is_the_distance_of_features_digit_and_colour(reference):
    rng = np.random.default_rng(4)
    asked = _asked(rng, 2000)
    features = _features(rng, asked)
    both = joined(features, asked, reference.weight)[:, : -CHOICES[2]]
    size = both.shape[1]
    expected = frechet(
        both.mean(0), np.cov(both, rowvar=False), reference.mean[:size], reference.covariance[:size, :size]
    )
    assert reference.distance(features, asked[:, :2]) == pytest.approx(expected)
    elsewhere = asked.copy()
    elsewhere[:, 2] = 0
    assert reference.distance(features, elsewhere) > reference.distance(features, asked) + 1


def test_the_gain_lies_in_its_interval_and_has_the_right_sign(reference):
    rng = np.random.default_rng(3)
    asked = _asked(rng, 400)
    features = _features(rng, asked)
    good = Judged(features=features, answers=asked)
    bad = Judged(features=features[::-1], answers=asked)
    gain, low, high = joint_gain(reference, good, bad, asked)
    assert gain == pytest.approx(reference.distance(bad.features, asked) - reference.distance(good.features, asked))
    assert 0 < low < gain < high


def test_a_saved_reference_is_read_back(reference, tmp_path):
    save_joint(reference, tmp_path)
    again = load_joint(tmp_path)
    assert again.weight == reference.weight
    np.testing.assert_array_equal(again.mean, reference.mean)
    np.testing.assert_array_equal(again.covariance, reference.covariance)


@torch.inference_mode()
def test_real_videos_are_near_the_shipped_reference_until_their_captions_are_exchanged():
    batch = digits.render(200, "test", seed=77)
    features, _ = load_judge().look(to_pixels(batch.frames))
    asked = np.stack([batch.digit, batch.colour, batch.direction], 1)
    shipped = load_joint()
    assert shipped.distance(features, asked) < 0.3 * shipped.distance(features, asked[::-1])


def test_spread_is_that_of_videos_of_one_caption(reference):
    rng = np.random.default_rng(3)
    asked = _asked(rng, 600)
    clean = _clean(asked)
    noise = rng.normal(size=clean.shape)
    assert reference.spread(3 * clean + noise, asked) == pytest.approx(1, abs=0.05)
    assert reference.spread(6 * clean + noise, asked) == pytest.approx(1, abs=0.05), "captions apart are not spread"
    assert reference.spread(3 * clean + 0.5 * noise, asked) == pytest.approx(0.25, abs=0.02)
    few = slice(60)
    assert reference.spread(3 * clean[few] + noise[few], asked[few]) == pytest.approx(1, abs=0.2), "nor is their number"


def test_what_is_not_asked_for_counts_as_spread(reference):
    rng = np.random.default_rng(4)
    asked = _asked(rng, 600)
    features = _features(rng, asked)
    digit_only = asked[:, :1]
    assert reference.spread(features, digit_only) == pytest.approx(1, abs=0.1), "so it does in real videos"
    same_colour = np.concatenate([features[:, :10], features[:1, 10:].repeat(600, 0)], 1)
    assert reference.spread(same_colour, digit_only) < 0.8 * reference.spread(features, digit_only)
