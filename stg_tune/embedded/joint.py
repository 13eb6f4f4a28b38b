"""Frechet joint distance: one number for quality, diversity and obedience to the caption.

The Frechet distance of the judge's features alone forgives wrong digits as long as all digits occur, and accuracy alone
forgives videos that all look the same. The joint distance is the Frechet distance of (features, what was asked for)
together (DeVries et al., arXiv:1907.08175): the second half is the same for all settings, so that only its
correlation with the features counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from stg_tune.embedded import WEIGHTS, digits
from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.judge import Judge, frechet, load_judge

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FILE = "joint.safetensors"
CHOICES = (len(digits.DIGITS), len(digits.COLOURS), len(digits.DIRECTIONS))


@dataclass(frozen=True, kw_only=True)
class JointReference:
    """Features and captions of real videos of the test split."""

    weight: float
    """Of what was asked for: mean length of the features over that of its one-hot form (arXiv:1907.08175)."""
    mean: NDArray[np.float64]
    """(96 + 20,)."""
    covariance: NDArray[np.float64]
    """(96 + 20, 96 + 20)."""

    def distance(self, features: NDArray[np.float64], asked: NDArray[np.int64]) -> float:
        """Distance of videos to real ones; lower is better, 0 is perfect.

        Args:
            features: (videos, 96), of the judge.
            asked: (videos, 3): digit, colour and direction of the captions; (videos, 2) leaves the direction out.
        """
        both = joined(features, asked, self.weight)
        size = both.shape[1]
        return frechet(both.mean(0), np.cov(both, rowvar=False), self.mean[:size], self.covariance[:size, :size])

    def spread(self, features: NDArray[np.float64], asked: NDArray[np.int64]) -> float:
        """How far videos of one caption differ: variance of the features that captions do not explain, real ones' is 1.

        Args:
            features: (videos, 96), of the judge; clearly more videos than the 20 choices of the captions.
            asked: As for ``distance``; without the direction, videos also differ in where they go.
        """
        both = joined(features, asked, self.weight)
        (count, size), width = both.shape, features.shape[1]
        explaining = sum(len(np.unique(column)) - 1 for column in asked.T)
        lost = (count - 1) / max(count - 1 - explaining, 1)
        real = _unexplained(self.covariance[:size, :size], width)
        return float(lost * _unexplained(np.cov(both, rowvar=False), width) / real)


def _unexplained(covariance: NDArray[np.float64], width: int) -> float:
    """Of features, ``width`` of them, and captions: the trace of the features' covariance given the captions."""
    own, cross = covariance[:width, :width], covariance[:width, width:]
    explained = cross @ np.linalg.pinv(covariance[width:, width:], hermitian=True) @ cross.T
    return float(np.trace(own - explained))


def joined(features: NDArray[np.float64], asked: NDArray[np.int64], weight: float) -> NDArray[np.float64]:
    """Features beside what was asked for: (videos, 96 + 20), or 96 + 16 without the direction, which comes last."""
    return np.concatenate([features, weight * _one_hot(asked)], 1)


def measure(judge: Judge, num_videos: int = 4000) -> JointReference:
    """The reference from real videos of the test split, the same that the judge's own statistics come from."""
    features, asked = [], []
    for part in range(num_videos // 500):
        batch = digits.render(500, "test", seed=100 + part)
        features.append(judge.look(to_pixels(batch.frames))[0])
        asked.append(np.stack([batch.digit, batch.colour, batch.direction], 1))
    seen, wanted = np.concatenate(features), np.concatenate(asked)
    weight = float(np.linalg.norm(seen, axis=1).mean() / np.sqrt(len(CHOICES)))
    both = joined(seen, wanted, weight)
    return JointReference(weight=weight, mean=both.mean(0), covariance=np.cov(both, rowvar=False))


def load_joint(folder: Path = WEIGHTS / "judge") -> JointReference:
    """Read what ``python -m stg_tune.embedded.joint`` has written beside the judge."""
    tensors = load_file(folder / FILE)
    return JointReference(
        weight=float(tensors["weight"]), mean=tensors["mean"].numpy(), covariance=tensors["covariance"].numpy()
    )


def save_joint(reference: JointReference, folder: Path) -> None:
    """Write the reference beside the judge."""
    tensors = {
        "weight": torch.tensor(reference.weight, dtype=torch.float64),
        "mean": torch.from_numpy(reference.mean),
        "covariance": torch.from_numpy(reference.covariance),
    }
    save_file(tensors, folder / FILE)


def _one_hot(asked: NDArray[np.int64]) -> NDArray[np.float64]:
    choices = CHOICES[: asked.shape[1]]
    return np.concatenate([np.eye(count)[asked[:, column]] for column, count in enumerate(choices)], 1)


if __name__ == "__main__":
    save_joint(measure(load_judge()), WEIGHTS / "judge")
