"""Arms of the paper's comparisons: generated, judged and scored once, compared pair by pair with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.judge import frechet
from stg_tune.embedded.truth import asked_of, captioned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from stg_tune.embedded.joint import JointReference
    from stg_tune.embedded.judge import Judge
    from stg_tune.generate import Generated, Generator
    from stg_tune.records import GuidanceSpec, Pair
    from stg_tune.score import Scorer

    Column = NDArray[np.float64]

BATCH = 8
RESAMPLES = 200
QUESTIONS = ("digit", "colour", "direction")
PICTURE = "picture"
"""Mean distance of the first frame to the given picture, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of the videos of one arm, row by row."""

    features: Column
    """(videos, 96), of the judge."""
    asked: NDArray[np.int64]
    """(videos, 3): digit, colour and direction of the captions; (videos, 2) where there is no direction to obey."""
    columns: Mapping[str, Column]
    """Measure -> (videos,): right answers as 0 and 1, raw scores (NaN where there is none), distance to the picture."""

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.features)

    def __getitem__(self, rows: NDArray[np.int64]) -> Seen:
        """Some of the videos."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Seen(features=self.features[rows], asked=self.asked[rows], columns=columns)


class Arms:
    """Generates, judges and scores settings on fixed pairs; every batch is kept at once in ``folder``."""

    def __init__(
        self,
        generator: Generator,
        judge: Judge,
        reference: JointReference,
        scorer: Scorer,
        pairs: Sequence[Pair],
        folder: Path,
    ) -> None:
        self.generator = generator
        self.judge = judge
        self.reference = reference
        self.scorer = scorer
        self.pairs = list(pairs)
        self.folder = folder

    def look(self, spec: GuidanceSpec) -> Seen:
        """The arm of a setting; what ``folder`` holds already is not done again."""
        path = self.folder / f"{spec.hash()}.npz"
        parts = [] if (done := _read(path)) is None else [done]
        for first in range(0 if done is None else len(done), len(self.pairs), BATCH):
            parts.append(self._run(spec, self.pairs[first : first + BATCH]))
            _write(path, _joined(parts))
        return _joined(parts)[np.arange(len(self.pairs))]

    def _run(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> Seen:
        made = self.generator.many(spec, pairs)
        pixels = to_pixels(np.stack([item.video.frames.numpy() for item in made]))
        features, answers = self.judge.look(pixels)
        asked = asked_of(pairs, self.generator.entry)
        right = (answers == captioned(pairs)).astype(np.float64)
        columns = dict(zip(QUESTIONS, right.T, strict=True)) | self._scores(pixels, pairs)
        if self.generator.image_source is not None:
            columns[PICTURE] = np.array([self._distance(item, pair) for item, pair in zip(made, pairs, strict=True)])
        return Seen(features=features, asked=asked, columns=columns)

    def _scores(self, pixels: Tensor, pairs: Sequence[Pair]) -> dict[str, Column]:
        marks = self.scorer((pixels + 1) / 2, [pair.prompt for pair in pairs])
        values = {kind.name: [mark[kind.name].value for mark in marks] for kind in self.scorer.kinds}
        return {name: np.array([np.nan if v is None else v for v in column]) for name, column in values.items()}

    def _distance(self, made: Generated, pair: Pair) -> float:
        assert self.generator.image_source is not None
        given = np.asarray(self.generator.image_source(pair), dtype=np.float64)
        return float(np.abs(made.video.frames[0].numpy() - given).mean() / 255)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One measure of an arm beside that of another on the same pairs."""

    value: float
    """Of the arm."""
    difference: float
    """Arm minus other."""
    low: float
    """Lower end of the 95 % bootstrap interval of the difference, over pairs."""
    high: float
    """Upper end."""


def measures(judge: Judge, reference: JointReference, columns: Sequence[str]) -> dict[str, Callable[[Seen], float]]:
    """Name -> number of a set of videos.

    ``joint`` and ``frechet`` are distances to real videos, with and without the captions; ``spread`` says how far
    videos of one caption differ, 1 as in real ones; the others are means of the columns.
    """

    def joint(seen: Seen) -> float:
        return reference.distance(seen.features, seen.asked)

    def distance(seen: Seen) -> float:
        return frechet(seen.features.mean(0), np.cov(seen.features, rowvar=False), judge.mean, judge.covariance)

    def spread(seen: Seen) -> float:
        return reference.spread(seen.features, seen.asked)

    def mean_of(name: str) -> Callable[[Seen], float]:
        return lambda seen: _mean(seen.columns[name])

    means = {name: mean_of(name) for name in columns}
    return {"joint": joint, "frechet": distance, "spread": spread, **means}


def _mean(column: Column) -> float:
    """Over the videos that have a number; NaN when none has."""
    known = column[~np.isnan(column)]
    return float(known.mean()) if len(known) else float("nan")


def compare(measure: Callable[[Seen], float], arm: Seen, other: Seen) -> Difference:
    """The measure of ``arm`` beside that of ``other``; both are resampled by the same pairs."""
    rng = np.random.default_rng(0)
    plain = measure(arm) - measure(other)
    draws = [measure(arm[rows]) - measure(other[rows]) for rows in rng.integers(0, len(arm), (RESAMPLES, len(arm)))]
    low, high = np.quantile(draws, [0.025, 0.975])
    # resampling biases both distances alike; the interval is centred on the plain difference
    shift = plain - float(np.median(draws))
    return Difference(value=measure(arm), difference=plain, low=float(low) + shift, high=float(high) + shift)


def _joined(parts: Sequence[Seen]) -> Seen:
    names = parts[0].columns
    return Seen(
        features=np.concatenate([part.features for part in parts]),
        asked=np.concatenate([part.asked for part in parts]),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in names},
    )


def _write(path: Path, seen: Seen) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new.npz")
    arrays: dict[str, Any] = {f"column {name}": values for name, values in seen.columns.items()}
    np.savez(fresh, features=seen.features.astype(np.float32), asked=seen.asked, **arrays)
    fresh.replace(path)


def _read(path: Path) -> Seen | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as saved:
        columns = {name.removeprefix("column "): saved[name] for name in saved.files if name.startswith("column ")}
        return Seen(features=saved["features"].astype(np.float64), asked=saved["asked"], columns=columns)
