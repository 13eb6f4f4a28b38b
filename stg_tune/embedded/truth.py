"""Ground truth of guidance settings on an embedded model: ``python -m stg_tune.embedded.truth``.

Every arm is generated on the same (caption, seed) pairs and judged by the independent judge. Arms are kept one by one,
so that a run may be ended and repeated with more videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stg_tune.embedded import digits
from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.judge import Judge, frechet
from stg_tune.records import GuidanceSpec, Pair, Segment, SkipOp, SkipTerm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stg_tune.embedded.joint import JointReference
    from stg_tune.generate import Generator
    from stg_tune.models.base import ModelEntry

BATCH = 8
RESAMPLES = 200
DIRECTION = 2
"""Its place among the answers."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the judge saw in the videos of one arm."""

    features: NDArray[np.float64]
    """(videos, 96)."""
    answers: NDArray[np.int64]
    """(videos, 3): digit, colour, direction."""

    def __getitem__(self, rows: NDArray[np.int64]) -> Judged:
        """Some of the videos."""
        return Judged(features=self.features[rows], answers=self.answers[rows])


def truth_pairs(count: int, *, first_seed: int = 1_000_000) -> list[Pair]:
    """``count`` pairs that go round the captions in a shuffled order; the seeds are never used by a search."""
    captions = digits.captions()
    order = np.random.default_rng(0).permutation(len(captions))
    return [Pair(prompt=captions[order[i % len(order)]], seed=first_seed + i) for i in range(count)]


def single_layer(stack: str, index: int, op: SkipOp, stg_scale: float, cfg_scale: float) -> GuidanceSpec:
    """One skipped block over the whole schedule."""
    term = SkipTerm(name=stack, skip_layers={stack: (index,)}, skip_op=op, stg_scale=stg_scale)
    return GuidanceSpec(cfg_scale=cfg_scale, segments=(Segment(terms=(term,)),))


def judge_arm(generator: Generator, judge: Judge, spec: GuidanceSpec, pairs: Sequence[Pair], folder: Path) -> Judged:
    """Generate and judge the pairs of one arm; what ``folder`` holds already is not done again."""
    path = folder / f"{spec.hash()}.npz"
    done = _read(path)
    if done is not None and len(done.answers) >= len(pairs):
        return done[np.arange(len(pairs))]
    parts = [] if done is None else [done]
    start = 0 if done is None else len(done.answers)
    for first in range(start, len(pairs), BATCH):
        made = generator.many(spec, pairs[first : min(first + BATCH, len(pairs))])
        videos = np.stack([item.video.frames.numpy() for item in made])
        features, answers = judge.look(to_pixels(videos))
        parts.append(Judged(features=features, answers=answers))
    arm = Judged(
        features=np.concatenate([part.features for part in parts]),
        answers=np.concatenate([part.answers for part in parts]),
    )
    _write(path, arm)
    return arm


def distance_gain(judge: Judge, arm: Judged, baseline: Judged) -> tuple[float, float, float]:
    """Frechet distance of ``baseline`` minus that of ``arm`` on the same pairs, and its 95 % bootstrap interval."""
    return _with_interval(lambda rows: distance(judge, baseline[rows]) - distance(judge, arm[rows]), len(arm.answers))


def joint_gain(
    reference: JointReference, arm: Judged, baseline: Judged, asked: NDArray[np.int64]
) -> tuple[float, float, float]:
    """The same for the Frechet joint distance; ``asked`` says what the videos were to show: see ``asked_of``."""

    def gain(rows: NDArray[np.int64]) -> float:
        before, after = (reference.distance(side.features[rows], asked[rows]) for side in (baseline, arm))
        return before - after

    return _with_interval(gain, len(arm.answers))


def _with_interval(gain: Callable[[NDArray[np.int64]], float], count: int) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    draws = [gain(rows) for rows in rng.integers(0, count, (RESAMPLES, count))]
    low, high = np.quantile(draws, [0.025, 0.975])
    # resampling adds the same upward bias to both distances, so that the interval is centred on the plain gain
    plain = gain(np.arange(count))
    shift = plain - float(np.median(draws))
    return plain, float(low) + shift, float(high) + shift


def asked_of(pairs: Sequence[Pair], entry: ModelEntry) -> NDArray[np.int64]:
    """Digit, colour and direction that the model was asked for: (pairs, 3).

    A model that is given a picture and no words cannot know the direction of the caption, and any is right: (pairs, 2).
    Whether its directions spread as those of real videos do is in the features.
    """
    asked = captioned(pairs)
    return asked[:, :DIRECTION] if entry.image_source else asked


def captioned(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """Digit, colour and direction of the captions: (pairs, 3)."""
    return np.array([digits.truth(pair.prompt) for pair in pairs])


def distance(judge: Judge, arm: Judged) -> float:
    """Frechet distance of an arm to real videos."""
    return frechet(arm.features.mean(0), np.cov(arm.features, rowvar=False), judge.mean, judge.covariance)


def _write(path: Path, arm: Judged) -> None:
    """Whole or not at all: hours of work must not be lost to a kill while a file is rewritten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, features=arm.features.astype(np.float32), answers=arm.answers.astype(np.int8))
    part.replace(path)


def _read(path: Path) -> Judged | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as saved:
        return Judged(features=saved["features"].astype(np.float64), answers=saved["answers"].astype(np.int64))
