"""Gaussian process regression of what a setting is worth on its features: the part of the search that generalises.

    k(x, y) = a_cfg^2 C(x, y)                                  what CFG scale and rescale do
            + a_block^2 sqrt(C_scale(x, y)) x_b^T R y_b        what each block does, R as in ``Features.likeness``
            + a_spread^2 C(x, y) S(x, y)                       what strength in all, window and number of blocks do
            + a_rest^2 C(x, y) S(x, y) B(x, y)                 what only just these blocks at this strength do

with C, S, B squared exponentials over the columns of CFG, of the spread of skip guidance, and of the blocks.
Amplitudes, lengths and the noise of one pair are those of greatest posterior density under log-normal priors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from stg_tune.search.features import CFG, CFG_STEP, GENERAL, RESCALE, SKIPPING

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIOR = {
    "cfg": (0.5, 0.6),
    "cfg_length": (0.34, 0.4),
    "rescale_length": (0.8, 0.5),
    "block": (0.15, 0.8),
    "spread": (0.3, 0.8),
    "spread_length": (1.0, 0.4),
    "rest": (0.2, 0.8),
    "rest_length": (1.0, 0.4),
    "noise": (0.6, 0.4),
}
"""Name -> median and standard deviation of the logarithm; amplitudes and the noise of one pair are in the unit of what
is regressed. Our choice: of the order of what settings of open-sora-tiny gain and of how they vary between pairs."""
MEDIANS = np.log([median for median, _ in PRIOR.values()])
DEVIATIONS = np.array([deviation for _, deviation in PRIOR.values()])
STEPS = 12
"""Iterations of the ascent."""
JITTER = 1e-4
"""Added to the diagonal, so that equal settings do no harm."""
IMPOSSIBLE = 1e6
"""Cost of numbers with which the covariance cannot be factored, or overflows."""


@dataclass(frozen=True, kw_only=True)
class Observations:
    """What a process learns from."""

    features: NDArray[np.float64]
    """(settings, columns) of ``Features``."""
    values: NDArray[np.float64]
    """(settings,) means over pairs."""
    pairs: NDArray[np.float64]
    """(settings,) pairs behind each mean; infinite for what is known without noise."""

    def first(self, count: int) -> Observations:
        """The first ``count`` settings."""
        return Observations(features=self.features[:count], values=self.values[:count], pairs=self.pairs[:count])

    def digest(self) -> bytes:
        """The same for the same observations only."""
        parts = (np.ascontiguousarray(part).tobytes() for part in (self.features, self.values, self.pairs))
        return hashlib.blake2b(b"/".join(parts), digest_size=16).digest()


@dataclass(frozen=True, kw_only=True)
class Distances:
    """All that a covariance of two lists of settings needs beside the numbers of a process, (x, y) each.

    They are worked out once for all processes, and for all the numbers that a fit tries.
    """

    scale: NDArray[np.float64]
    """Squared, over CFG scale and its step."""
    rescale: NDArray[np.float64]
    """Squared, over rescale."""
    spread: NDArray[np.float64]
    """Squared, over how skip guidance is spread."""
    blocks: NDArray[np.float64]
    """Squared, over the blocks."""
    shared: NDArray[np.float64]
    """What the blocks have in common, by their likeness."""
    own: NDArray[np.float64]
    """(x,): the same of each setting with itself."""

    @classmethod
    def between(cls, x: NDArray[np.float64], y: NDArray[np.float64], likeness: NDArray[np.float64]) -> Distances:
        """Of two lists of rows of ``Features``; ``likeness`` of the blocks is positive semidefinite."""
        left, right = x[:, GENERAL:], y[:, GENERAL:]
        return cls(
            scale=_squares(x, y, [CFG]) + _squares(x, y, [CFG_STEP]),
            rescale=_squares(x, y, [RESCALE]),
            spread=_squares(x, y, SKIPPING),
            blocks=_squares(x, y, slice(GENERAL, None)),
            shared=left @ likeness @ right.T,
            own=np.einsum("ni,ij,nj->n", left, likeness, left, optimize=True),
        )

    def kernel(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Prior covariance, (x, y)."""
        cfg, cfg_length, rescale_length, block, spread, spread_length, rest, rest_length, _ = np.exp(numbers)
        scale = self.scale / cfg_length**2
        base = np.exp(-0.5 * (scale + self.rescale / rescale_length**2))
        spreads = base * np.exp(-0.5 * self.spread / spread_length**2)
        nearness = np.exp(-0.5 * self.blocks / rest_length**2)
        linear = np.exp(-0.25 * scale) * self.shared
        total = cfg**2 * base + block**2 * linear + spreads * (spread**2 + rest**2 * nearness)
        return np.asarray(total, dtype=np.float64)

    def variance(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Prior variance of each setting, (x,)."""
        cfg, _, _, block, spread, _, rest, _, _ = np.exp(numbers)
        return np.asarray(cfg**2 + spread**2 + rest**2 + block**2 * self.own, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A Gaussian process given observations."""

    values: NDArray[np.float64]
    """(settings,) means over pairs."""
    numbers: NDArray[np.float64]
    """Logarithms, in the order of ``PRIOR``."""
    factor: NDArray[np.float64]
    """Lower triangle of the covariance of what is known."""

    @classmethod
    def given(cls, seen: Observations, distances: Distances, numbers: NDArray[np.float64]) -> Surrogate:
        """After ``seen``, whose settings lie ``distances`` apart."""
        factor = cholesky(_covariance(seen.pairs, distances, numbers), lower=True)
        return cls(values=seen.values, numbers=numbers, factor=factor)

    def with_values(self, values: NDArray[np.float64]) -> Surrogate:
        """The same settings and pairs, other means."""
        return replace(self, values=values)

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        return np.asarray(cho_solve((self.factor, True), self.values), dtype=np.float64)

    @property
    def noise(self) -> float:
        """Standard deviation of one pair around the value of its setting."""
        return float(np.exp(self.numbers[-1]))

    def __call__(self, distances: Distances) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the value, (settings,) each, at settings so far from those that are known."""
        between = distances.kernel(self.numbers)
        half = solve_triangular(self.factor, between.T, lower=True)
        variance = distances.variance(self.numbers) - np.einsum("ij,ij->j", half, half)
        return between @ self._weights, np.sqrt(np.maximum(variance, 1e-8))


def fit(seen: Observations, likeness: NDArray[np.float64]) -> NDArray[np.float64]:
    """The numbers of greatest posterior density, (len(PRIOR),), found from the prior's medians on."""
    distances = Distances.between(seen.features, seen.features, likeness)

    def cost(numbers: NDArray[np.float64]) -> float:
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                factor = cholesky(_covariance(seen.pairs, distances, numbers), lower=True)
        except (LinAlgError, ValueError):  # a search along a line may go where the numbers overflow
            return IMPOSSIBLE
        half = solve_triangular(factor, seen.values, lower=True)
        prior = float(np.sum(((numbers - MEDIANS) / DEVIATIONS) ** 2))
        return float(0.5 * half @ half + np.log(np.diag(factor)).sum() + 0.5 * prior)

    found = minimize(cost, MEDIANS, method="L-BFGS-B", options={"maxiter": STEPS})
    return np.asarray(found.x, dtype=np.float64)


def _covariance(pairs: NDArray[np.float64], distances: Distances, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    noise = np.exp(2 * numbers[-1]) / pairs + JITTER
    return distances.kernel(numbers) + np.diag(noise)


def _squares(x: NDArray[np.float64], y: NDArray[np.float64], columns: list[int] | slice) -> NDArray[np.float64]:
    """Squared distances over some columns, (x, y)."""
    left, right = x[:, columns], y[:, columns]
    squares = np.sum(left**2, axis=1)[:, None] + np.sum(right**2, axis=1)[None] - 2 * left @ right.T
    return np.asarray(np.maximum(squares, 0.0), dtype=np.float64)
