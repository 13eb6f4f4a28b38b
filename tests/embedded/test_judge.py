import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from stg_tune.embedded import digits
from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.judge import frechet, load_judge, view_numbers


@pytest.fixture(scope="module")
def judge():
    return load_judge()


@pytest.fixture(scope="module")
def looked_at(judge):
    batch = digits.render(200, "test", seed=12345)
    features, answers = judge.look(to_pixels(batch.frames))
    return batch, features, answers


def test_frechet_equals_the_formula_with_the_matrix_root():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 6)), rng.normal(1, 2, size=(80, 6))
    sides = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    (mean_a, cov_a), (mean_b, cov_b) = sides
    slow = np.square(mean_a - mean_b).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet(mean_a, cov_a, mean_b, cov_b) == pytest.approx(slow, rel=1e-6)
    assert frechet(mean_a, cov_a, mean_a, cov_a) == pytest.approx(0, abs=1e-6)


def test_the_judge_is_right_on_scans_it_never_saw(judge, looked_at):
    batch, features, answers = looked_at
    verdict = judge.verdict(features, answers, batch.captions)
    assert verdict.digit_accuracy >= 0.93
    assert verdict.colour_accuracy >= 0.99
    assert verdict.direction_accuracy >= 0.99


def test_damage_raises_the_distance(judge, looked_at):
    batch, features, answers = looked_at
    pixels = to_pixels(batch.frames)
    noisy = pixels + 0.5 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    damaged = judge.verdict(*judge.look(noisy), batch.captions)
    assert damaged.frechet > 2 * judge.verdict(features, answers, batch.captions).frechet


def test_played_backwards_the_direction_is_wrong(judge, looked_at):
    batch, _, _ = looked_at
    _, answers = judge.look(to_pixels(batch.frames[:, ::-1].copy()))
    opposite = np.array([1, 0, 3, 2])[batch.direction]
    assert (answers[:, 2] == opposite).mean() > 0.98


def test_videos_of_other_lengths_are_looked_at_over_the_same_time(judge):
    assert view_numbers(17) == view_numbers(19) == [0, 4, 8, 12, 16]
    pixels = to_pixels(digits.render(4, "test", seed=1, num_frames=19).frames)
    usual, _ = judge.look(pixels[:, :17])
    for other in (pixels, pixels[:, :17:2]):  # two frames more; every second frame
        assert np.allclose(judge.look(other)[0], usual, atol=1e-5)
