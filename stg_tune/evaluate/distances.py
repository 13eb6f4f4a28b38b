"""Numbers of whole sets of videos, from features and class probabilities: plain numpy."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stg_tune.embedded.judge import frechet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

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


def frechet_distance(features: Array, reference: Reference) -> float:
    """Squared Frechet distance of (videos, dim) to the reference (FVD, arXiv:1812.01717).

    It falls with the number of videos, so that only sets of equal size may be compared.
    """
    return frechet(features.mean(0), np.cov(features, rowvar=False), reference.mean, reference.covariance)


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


def bootstrap(measure: Callable[[NDArray[np.int64]], float], count: int, *, seed: int = 0) -> Array:
    """``measure`` on ``RESAMPLES`` draws of ``count`` indices with replacement.

    The seed is fixed, so that two arms are measured on the same draws and their difference is paired.
    """
    rng = np.random.default_rng(seed)
    return np.array([measure(rng.integers(0, count, count)) for _ in range(RESAMPLES)])


def basic_interval(estimate: float, draws: Array) -> tuple[float, float]:
    """Basic bootstrap interval at ``LEVEL``; unlike the percentile one it takes the draws' bias off."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(2 * estimate - high), float(2 * estimate - low)
