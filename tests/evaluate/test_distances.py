"""Numbers of sets of videos against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from stg_tune.evaluate.distances import (
    Reference,
    basic_interval,
    bootstrap,
    diversity,
    frechet_distance,
    inception_score,
)

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


def test_bootstrap_draws_are_the_same_for_both_arms_so_that_differences_are_paired() -> None:
    values = RNG.normal(size=200)
    one, two = (bootstrap(lambda chosen, shift=shift: float((values + shift)[chosen].mean()), 200) for shift in (0, 1))
    np.testing.assert_allclose(two - one, 1.0)
    assert one.std(ddof=1) == pytest.approx(values.std(ddof=1) / math.sqrt(200), rel=0.25)
    low, high = basic_interval(float(values.mean()), one)
    assert low < values.mean() < high
