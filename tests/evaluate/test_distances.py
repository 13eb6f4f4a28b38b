"""Numbers of sets of videos against their formulas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.linalg import sqrtm

from stg_tune.embedded.judge import load_judge
from stg_tune.evaluate.distances import (
    Reference,
    bootstrap,
    centred_interval,
    clustered_error,
    diversity,
    frechet_distance,
    inception_score,
    resamples,
)
from stg_tune.search.statistics import paired_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

RNG = np.random.default_rng(0)


def test_frechet_distance_is_the_formula_with_the_matrix_root() -> None:
    one, two = RNG.normal(size=(60, 5)), RNG.normal(1.0, 2.0, size=(80, 5))
    reference = Reference(mean=two.mean(0), covariance=np.cov(two, rowvar=False), count=80)
    first, second = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    expected = np.sum((one.mean(0) - two.mean(0)) ** 2) + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(one, reference) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(two, reference) == pytest.approx(0, abs=1e-6)


def test_inception_score_is_one_for_no_knowledge_and_the_classes_for_all_of_it() -> None:
    assert inception_score(np.full((10, 4), 0.25)) == pytest.approx(1)
    assert inception_score(np.eye(4)) == pytest.approx(4, rel=1e-6)
    assert inception_score(np.eye(4)[[0, 0, 0]]) == pytest.approx(1)  # sure, but always the same


def test_inception_score_is_the_formula() -> None:
    chances = RNG.dirichlet(np.ones(6), size=20)
    marginal = chances.mean(0)
    terms = [sum(p * math.log(p / q) for p, q in zip(row, marginal, strict=True)) for row in chances]
    assert inception_score(chances) == pytest.approx(math.exp(np.mean(terms)), rel=1e-9)


def test_diversity_is_the_mean_distance_within_a_prompt() -> None:
    features = np.array([[0.0, 0], [3, 4], [10, 10], [10, 10], [1, 1]])
    assert diversity(features, ["a", "a", "b", "b", "c"]) == {"a": 5.0, "b": 0.0}


def test_it_is_the_distance_that_the_judge_gives() -> None:
    judge, features = load_judge(), RNG.normal(size=(120, 96)) ** 2
    answers = np.zeros((120, 3), dtype=int)
    expected = judge.verdict(features, answers, ["a red zero moving left"] * 120).frechet
    reference = Reference(mean=judge.mean, covariance=judge.covariance, count=0)
    assert frechet_distance(features, reference) == pytest.approx(expected, rel=1e-6)


def test_bootstrap_draws_are_the_same_for_both_arms_so_that_differences_are_paired() -> None:
    values, draws = RNG.normal(size=200), resamples(range(200))
    one, two = (
        bootstrap(lambda chosen, shift=shift: float((values + shift)[chosen].mean()), draws) for shift in (0, 1)
    )
    np.testing.assert_allclose(two - one, 1.0)
    assert one.std(ddof=1) == pytest.approx(values.std(ddof=1) / math.sqrt(200), rel=0.25)
    low, high = centred_interval(float(values.mean()), one)
    assert low < values.mean() < high


def test_an_interval_of_a_number_that_repeated_videos_lower_holds_what_is_expected_of_as_many_videos() -> None:
    """Inception scores of 240 videos in 120 classes, one set with all classes, the other with half of them."""
    rng = np.random.default_rng(5)

    def scores(classes: int) -> tuple[float, NDArray[np.float64]]:
        chances = np.full((240, 120), 0.1 / 120)
        chances[np.arange(240), rng.integers(0, classes, 240)] += 0.9
        return inception_score(chances), bootstrap(lambda draw: inception_score(chances[draw]), draws)

    draws, gaps = resamples(range(240)), []
    for _ in range(40):
        (one, of_one), (two, of_two) = scores(120), scores(60)
        low, high = centred_interval(one - two, of_one - of_two)
        assert low < one - two < high
        gaps.append((one - two, low, high))
    expected = float(np.mean([gap for gap, _, _ in gaps]))
    held = sum(low <= expected <= high for _, low, high in gaps)
    assert held >= 36
    (_, of_one), (_, of_two) = scores(120), scores(60)
    off = abs(np.mean(of_one - of_two) - expected)
    assert off > 3 * np.std([gap for gap, _, _ in gaps]), "the draws are off as a whole"


def test_whole_prompts_are_drawn() -> None:
    prompts = [number % 40 for number in range(320)]  # eight videos each, that are all alike
    values = RNG.normal(size=40)[prompts]
    means = bootstrap(lambda chosen: float(values[chosen].mean()), resamples(prompts))
    assert means.std(ddof=1) == pytest.approx(values[:40].std(ddof=1) / math.sqrt(40), rel=0.25)
    assert all(np.bincount(np.array(prompts)[draw], minlength=40).min() % 8 == 0 for draw in resamples(prompts))
    assert len(set(map(tuple, resamples(["one"] * 8)))) > 1  # of a single prompt the videos are drawn


def test_the_standard_error_is_clustered_and_the_one_behind_the_interval() -> None:
    prompts, values = [number // 4 for number in range(40)], RNG.normal(size=40)
    plain = clustered_error(list(values), range(40))
    assert plain == pytest.approx(values.std(ddof=1) / math.sqrt(40))
    assert clustered_error(list(values), ["one"] * 40) == pytest.approx(plain)
    alike = np.repeat(values[:10], 4)
    assert clustered_error(list(alike), prompts) == pytest.approx(values[:10].std(ddof=1) / math.sqrt(10))
    interval = paired_interval(list(values), prompts)
    t_of_9 = 2.262157
    assert clustered_error(list(values), prompts) == pytest.approx((interval.high - interval.mean) / t_of_9, rel=1e-5)
    assert clustered_error([1.0], ["one"]) == math.inf
