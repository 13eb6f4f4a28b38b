"""Numbers of whole sets of videos, from features and class probabilities: plain numpy."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]

RESAMPLES = 200
"""Bootstrap resamples behind a standard error and an interval."""
LEVEL = 0.95
"""Confidence level of an interval."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """First two moments of the features of real videos."""

    mean: Array
    """(dim,)."""
    covariance: Array
    """(dim, dim)."""
    count: int
    """Videos behind them; 0 when it is not known."""

    @cached_property
    def root(self) -> Array:
        """Symmetric root of the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return np.asarray((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)


def frechet_distance(features: Array, reference: Reference) -> float:
    """Squared Frechet distance of (videos, dim) to the reference (FVD, arXiv:1812.01717).

    It falls with the number of videos, so that only sets of equal size may be compared.
    """
    covariance, gap = np.cov(features, rowvar=False), features.mean(0) - reference.mean
    # trace of the root of the product of both covariances, as in arXiv:1706.08500, from a symmetric matrix
    shared = np.linalg.eigvalsh(reference.root @ covariance @ reference.root).clip(min=0)
    return float(gap @ gap + np.trace(covariance) + np.trace(reference.covariance) - 2 * np.sqrt(shared).sum())


def inception_score(probabilities: Array) -> float:
    """``exp(mean KL(p(y|x) || p(y)))`` of (videos, classes), 1 to the number of classes (arXiv:1606.03498)."""
    safe = probabilities.clip(1e-12)
    marginal = safe.mean(0)
    return float(np.exp((safe * (np.log(safe) - np.log(marginal))).sum(1).mean()))


def diversity(features: Array, prompts: Sequence[str]) -> dict[str, float]:
    """Prompt -> mean Euclidean distance between the videos of that prompt; prompts with one video are left out."""
    groups = defaultdict(list)
    for row, prompt in zip(features, prompts, strict=True):
        groups[prompt].append(row)
    return {prompt: _mean_distance(np.stack(rows)) for prompt, rows in groups.items() if len(rows) > 1}


def _mean_distance(rows: Array) -> float:
    gaps = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    return float(gaps[np.triu_indices(len(rows), 1)].mean())


def resamples(clusters: Sequence[Hashable], *, seed: int = 0) -> list[Indices]:
    """``RESAMPLES`` draws of whole clusters with replacement: the indices of what is in them.

    Videos of one prompt resemble each other, so that the prompts are what is drawn; where all share one, the videos
    are. The seed is fixed: arms are measured on the same draws, and their differences are paired.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, cluster in enumerate(clusters):
        groups[cluster].append(index)
    members = [
        np.array(group) for group in (groups.values() if len(groups) > 1 else ([i] for i in groups[clusters[0]]))
    ]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(members), (RESAMPLES, len(members)))
    return [np.concatenate([members[number] for number in draw]) for draw in drawn]


def bootstrap(measure: Callable[[Indices], float], draws: Sequence[Indices]) -> Array:
    """``measure`` on each of the draws."""
    return np.array([measure(draw) for draw in draws])


def clustered_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Standard error of the mean of values that may depend on each other within a cluster; ``inf`` for fewer than two.

    The formula behind ``stg_tune.search.statistics.paired_interval``; values that all share one cluster are the units.
    """
    index: dict[Hashable, int] = {}
    codes = [index.setdefault(cluster, len(index)) for cluster in clusters]
    given = np.asarray(values, dtype=float)
    sums = np.bincount(codes if len(index) > 1 else range(len(given)), weights=given - given.mean())
    count = len(sums)
    return float(np.sqrt(count / (count - 1) * (sums @ sums))) / len(given) if count > 1 else float("inf")


def centred_interval(estimate: float, draws: Array) -> tuple[float, float]:
    """Bootstrap interval at ``LEVEL`` for what is expected of as many videos: ``estimate`` less the draws' deviations.

    A draw repeats videos, so that a number that grows with variety (inception score) or falls with the number of videos
    (Frechet distance) is off in every draw in the same direction. The deviations are those from the draws' own mean:
    what all draws are off by says nothing about the estimate.
    """
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws - draws.mean(), [tail, 1 - tail])
    return float(estimate - high), float(estimate - low)
