"""A model of the model: gains of any setting, learnt from the measured table of ``benchmarks.landscape``.

Regression over what a setting does to every block, one for each scorer: by a Gaussian process with the measured error
of each mean as known noise, or by many random trees, which assume nothing of what our own search assumes.
``python -m benchmarks.emulator --model M`` says how well either foretells settings that it has not seen.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor

from benchmarks.exhaustive import Exhaustive
from benchmarks.landscape import RESULTS, Scale, space_of
from stg_tune.records import SKIP_OPS, GuidanceSpec
from stg_tune.search.encoding import rescale_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stg_tune.models.base import ModelEntry

    Foretell = Callable[[torch.Tensor], dict[str, NDArray[np.float64]]]
    """Features (settings, features) -> scorer -> expected gains (settings,)."""

FOLDS = 5
STEPS = 150
"""Steps of the likelihood's ascent; it is flat long before."""
GENERAL = 7
"""Features before those of the blocks."""
TREES = 150


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """The measured table."""

    specs: tuple[GuidanceSpec, ...]
    """Settings."""
    designs: tuple[str, ...]
    """Where each comes from."""
    gains: Mapping[str, NDArray[np.float64]]
    """Scorer -> mean paired gain of each setting, in the default's standard deviations."""
    errors: Mapping[str, NDArray[np.float64]]
    """Scorer -> standard error of each."""

    @classmethod
    def of(cls, entry: ModelEntry) -> Landscape:
        """All that is measured of a model."""
        return cls.read(RESULTS / f"{entry.name}.csv").with_grid(Exhaustive.read(entry))

    @classmethod
    def read(cls, path: Path) -> Landscape:
        """Read what ``python -m benchmarks.landscape --write`` wrote."""
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in rows[0] if f"{name}_error" in rows[0]]
        return cls(
            specs=tuple(GuidanceSpec.from_dict(json.loads(row["setting"])) for row in rows),
            designs=tuple(row["design"] for row in rows),
            gains={name: np.array([float(row[name]) for row in rows]) for name in names},
            errors={name: np.array([float(row[f"{name}_error"]) for row in rows]) for name in names},
        )

    def with_grid(self, grid: Exhaustive) -> Landscape:
        """The settings of the published grid by their exhaustive table, three times as many pairs."""
        base, names = grid.evaluations[grid.default.hash()], list(self.gains)
        seen = [grid.evaluations[spec.hash()] for spec in grid.specs]
        scales = {name: Scale.of(name, base, seen) for name in names}
        there = {spec.hash() for spec in grid.specs}
        rest = self.part(np.array([spec.hash() not in there for spec in self.specs]))
        told = {name: np.array([scales[name].gain(rows) for rows in seen]).reshape(-1, 2) for name in names}
        return Landscape(
            specs=(*rest.specs, *grid.specs),
            designs=(*rest.designs, *["grid"] * len(grid.specs)),
            gains={name: np.concatenate([rest.gains[name], told[name][:, 0]]) for name in names},
            errors={name: np.concatenate([rest.errors[name], told[name][:, 1]]) for name in names},
        )

    def part(self, keep: NDArray[np.bool_]) -> Landscape:
        """Some of the settings."""
        return Landscape(
            specs=tuple(spec for spec, kept in zip(self.specs, keep, strict=True) if kept),
            designs=tuple(design for design, kept in zip(self.designs, keep, strict=True) if kept),
            gains={name: values[keep] for name, values in self.gains.items()},
            errors={name: values[keep] for name, values in self.errors.items()},
        )


def features(spec: GuidanceSpec, depths: Mapping[str, int]) -> list[float]:
    """What a setting does, in numbers: CFG, rescale, and the strength at every block by either operation.

    All that skip guidance adds is in proportion to the length of its window: a window of no length is CFG alone.
    """
    strength = {(stack, op, layer): 0.0 for stack, depth in depths.items() for op in SKIP_OPS for layer in range(depth)}
    length, place, orthogonal, joint = 0.0, 0.0, 0.0, 0.0
    for segment in spec.segments:
        if segment.terms:
            length = segment.stop - segment.start
            place = (segment.start + segment.stop - 1) * length
            orthogonal = length * (segment.combination == "orthogonal" and len(segment.terms) > 1)
            joint = length * any(len(term.skip_layers) > 1 for term in segment.terms)
        for term in segment.terms:
            for stack, layers in term.skip_layers.items():
                strength.update({(stack, term.skip_op, layer): term.stg_scale for layer in layers})
    blocks = [length * math.log1p(value / 0.25) for value in strength.values()]
    count = sum(value > 0 for value in blocks)
    cfg = (math.log(max(spec.cfg_scale, 0.2)), rescale_of(spec))
    return [*cfg, length, place, orthogonal, joint, length * count / 4, *blocks]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A Gaussian process with a length for every feature and one measured error for every setting.

    k(x, y) = a exp(-sum_i ((x_i - y_i) / l_i)^2 / 2) + b sum_blocks s_j x_j y_j + c; noise = measured^2 + rest^2.
    """

    x: torch.Tensor
    """Features, (settings, features)."""
    weights: torch.Tensor
    """K^-1 (y - mean), (settings,)."""
    numbers: torch.Tensor
    """Logarithms of a, b, rest and the lengths and slopes."""
    mean: float
    """Mean of what was measured."""

    @classmethod
    def fit(cls, x: torch.Tensor, y: torch.Tensor, errors: torch.Tensor) -> Process:
        """Climb the marginal likelihood, with a weak wish for long lengths, so that blocks without effect fall out."""
        mean, scale = float(y.mean()), float(y.std())
        numbers = torch.cat([torch.tensor([0.0, -4.0, -3.0]), torch.ones(x.shape[1])]).double()
        numbers[0] += 2 * math.log(scale)
        numbers.requires_grad_()
        noise = torch.clamp(errors, min=float(errors.median()) / 2) ** 2
        optimiser = torch.optim.Adam([numbers], lr=0.08)
        for _ in range(STEPS):
            optimiser.zero_grad()
            factor = torch.linalg.cholesky(_kernel(x, x, numbers) + torch.diag(noise + numbers[2].exp()))
            solved = torch.linalg.solve_triangular(factor, (y - mean)[:, None], upper=False)
            loss = 0.5 * solved.square().sum() + factor.diagonal().log().sum()
            (loss + 0.5 * ((numbers[3:] - 1.5) / 1.0).square().sum()).backward()
            optimiser.step()
        with torch.no_grad():
            factor = torch.linalg.cholesky(_kernel(x, x, numbers) + torch.diag(noise + numbers[2].exp()))
            weights = torch.cholesky_solve((y - mean)[:, None], factor)[:, 0]
        return cls(x=x, weights=weights, numbers=numbers.detach(), mean=mean)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Expected values at other features, (settings,)."""
        return self.mean + _kernel(x, self.x, self.numbers) @ self.weights


def _kernel(x: torch.Tensor, y: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    lengths = numbers[3:].exp()
    distance = torch.cdist(x / lengths, y / lengths, compute_mode="donot_use_mm_for_euclid_dist")
    blocks = x[:, GENERAL:] @ y[:, GENERAL:].T
    return numbers[0].exp() * torch.exp(-0.5 * distance**2) + numbers[1].exp() * blocks


def processes(x: torch.Tensor, found: Landscape) -> Foretell:
    """One Gaussian process a scorer."""
    learnt = {
        name: Process.fit(x, torch.from_numpy(values), torch.from_numpy(found.errors[name]))
        for name, values in found.gains.items()
    }
    return lambda other: {name: process(other).numpy() for name, process in learnt.items()}


def trees(x: torch.Tensor, found: Landscape) -> Foretell:
    """Extremely randomised trees (Geurts, Ernst and Wehenkel 2006) for all scorers at once."""
    names = list(found.gains)
    noise = np.mean([found.errors[name] ** 2 for name in names], axis=0)
    weights = 1 / np.maximum(noise, np.median(noise) / 4)
    forest = ExtraTreesRegressor(TREES, min_samples_leaf=2, max_features=0.5, random_state=0)
    forest.fit(x.numpy(), np.stack([found.gains[name] for name in names], axis=1), sample_weight=weights)
    grown = [tree.tree_ for tree in forest.estimators_]

    def foretell(other: torch.Tensor) -> dict[str, NDArray[np.float64]]:
        rows = np.ascontiguousarray(other.numpy(), dtype=np.float32)  # asked one by one, the forest's own way is slow
        told = np.mean([tree.predict(rows).reshape(len(rows), -1) for tree in grown], axis=0)
        return dict(zip(names, told.T, strict=True))

    return foretell


KINDS: Mapping[str, Callable[[torch.Tensor, Landscape], Foretell]] = {"process": processes, "trees": trees}


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """Foretells the gains of any setting of the space."""

    landscape: Landscape
    """What was measured."""
    depths: Mapping[str, int]
    """Stack name -> number of blocks."""
    kind: str = "process"
    """Of ``KINDS``."""
    _known: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)

    def gains(self, spec: GuidanceSpec) -> Mapping[str, float]:
        """Scorer -> gain over the default, in its standard deviations."""
        key = spec.hash()
        if key not in self._known:
            self._known[key] = {name: float(values[0]) for name, values in self.foretell([spec]).items()}
        return self._known[key]

    def foretell(self, specs: Sequence[GuidanceSpec]) -> dict[str, NDArray[np.float64]]:
        """The same for many settings at once."""
        return self._learnt(self._features(specs))

    @cached_property
    def _learnt(self) -> Foretell:
        return KINDS[self.kind](self._features(self.landscape.specs), self.landscape)

    def _features(self, specs: Sequence[GuidanceSpec]) -> torch.Tensor:
        return torch.tensor([features(spec, self.depths) for spec in specs], dtype=torch.float64)


def cross_validate(
    landscape: Landscape, depths: Mapping[str, int], weights: Mapping[str, float], kind: str = "process"
) -> dict[str, float]:
    """How well the objective of settings is foretold by the other four fifths of the table.

    Returns:
        ``spearman`` and ``pearson`` with what was measured; ``error``, the root of the mean squared difference less
        what the measurement itself is off by; ``spread``, the standard deviation of what was measured.
    """
    order = np.random.default_rng(0).permutation(len(landscape.specs))
    told = np.zeros(len(order))
    for fold in range(FOLDS):
        out = np.zeros(len(order), dtype=bool)
        out[order[fold::FOLDS]] = True
        emulator = Emulator(landscape=landscape.part(~out), depths=depths, kind=kind)
        found = emulator.foretell(landscape.part(out).specs)
        told[out] = weighted(found, weights)
    seen = weighted(landscape.gains, weights)
    off = sum((weights[name] * landscape.errors[name]) ** 2 for name in weights) / sum(weights.values()) ** 2
    unexplained = float(np.mean((told - seen) ** 2) - np.mean(off))
    return {
        "settings": len(order),
        "spearman": round(float(spearmanr(told, seen).statistic), 4),
        "pearson": round(float(np.corrcoef(told, seen)[0, 1]), 4),
        "error": round(math.sqrt(max(unexplained, 0.0)), 4),
        "spread": round(float(seen.std()), 4),
    }


def weighted(gains: Mapping[str, NDArray[np.float64]], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """The objective of gains per scorer."""
    return sum(weight * gains[name] for name, weight in weights.items()) / sum(weights.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how well the table foretells itself."""
    from stg_tune import models

    parser = argparse.ArgumentParser(prog="python -m benchmarks.emulator", description=__doc__)
    parser.add_argument("--model", required=True)
    entry = models.entry(parser.parse_args(arguments).model)
    weights = space_of(entry).objective.weights
    for kind in KINDS:
        found = cross_validate(Landscape.of(entry), entry.depths, weights, kind)
        sys.stdout.write(json.dumps({"emulator": kind, **found}) + "\n")


if __name__ == "__main__":
    main()
