"""The independent judge of the digit videos: it knows the ground truth and takes no part in any score.

A small network trained only on renders of the train split says which digit, colour and direction a video shows; the
features behind its answers give the Frechet distance to the true distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from stg_tune.embedded import WEIGHTS, digits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

NUM_VIEWS = 5
"""Frames 0, 4, 8, 12 and 16 are looked at, or 0, 2, 4, 6 and 8 of a video with half the frames of the same time."""


class JudgeNetwork(nn.Module):
    """Videos (batch, frames, 3, 64, 64) in [-1, 1] -> features (batch, 96) and the logits of three questions."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 64)
        layers: list[nn.Module] = []
        for before, after in zip((3, *widths), widths, strict=False):
            layers += [*_convolution(before, after), *_convolution(after, after, stride=2)]
        self.frames = nn.Sequential(*layers, *_convolution(64, 96), *_convolution(96, 96))  # (96, 8, 8) a frame
        self.shape = nn.Linear(96, 64)
        self.place = nn.Conv2d(96, 4, 1)
        self.motion = nn.Linear(4 * 64 * NUM_VIEWS, 32)
        self.digit = nn.Linear(64, len(digits.DIGITS))
        self.colour = nn.Linear(64, len(digits.COLOURS))
        self.direction = nn.Linear(32, len(digits.DIRECTIONS))

    def features(self, videos: Tensor) -> Tensor:
        """What the distances are measured on: (batch, 96), shape first, then motion."""
        batch = len(videos)
        views = videos[:, view_numbers(videos.shape[1])].flatten(0, 1)
        maps = self.frames(views.contiguous(memory_format=torch.channels_last))
        # the strongest answer anywhere in the frame: the digit may be anywhere
        shape = functional.relu(self.shape(maps.amax((2, 3)))).view(batch, NUM_VIEWS, -1).mean(1)
        motion = functional.relu(self.motion(self.place(maps).reshape(batch, -1)))
        return torch.cat([shape, motion], 1)

    def forward(self, videos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of digit (batch, 10), colour (batch, 6) and direction (batch, 4)."""
        shape, motion = self.features(videos).split((64, 32), 1)
        return self.digit(shape), self.colour(shape), self.direction(motion)


def view_numbers(num_frames: int) -> list[int]:
    """The frames that are looked at, of 5 or more: five at equal distances, the first one among them."""
    stride = (num_frames - 1) // (NUM_VIEWS - 1)
    return [number * stride for number in range(NUM_VIEWS)]


def _convolution(before: int, after: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Ground truth of a set of videos."""

    digit_accuracy: float
    """Share of videos that show the digit of their caption, 0 to 1."""
    colour_accuracy: float
    """The same for the colour."""
    direction_accuracy: float
    """The same for the direction."""
    frechet: float
    """Frechet distance between the features of these videos and of real ones; 0 is perfect."""


class Judge:
    """The trained judge with the feature statistics of real videos of the test split."""

    def __init__(self, network: JudgeNetwork, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> None:
        self.network = network.eval()
        self.mean = mean
        self.covariance = covariance

    @torch.no_grad()
    def look(self, videos: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Features (n, 96) and answers (n, 3: digit, colour, direction) of videos (n, 17, 3, 64, 64) in [-1, 1]."""
        features = self.network.features(videos)
        shape, motion = features.split((64, 32), 1)
        logits = (self.network.digit(shape), self.network.colour(shape), self.network.direction(motion))
        answers = torch.stack([answer.argmax(1) for answer in logits], 1)
        return features.double().numpy(), answers.numpy()

    def verdict(self, features: NDArray[np.float64], answers: NDArray[np.int64], captions: Sequence[str]) -> Verdict:
        """Accuracies against the captions and the distance to real videos; at least 97 videos."""
        right = answers == np.array([digits.truth(text) for text in captions])
        distance = frechet(features.mean(0), np.cov(features, rowvar=False), self.mean, self.covariance)
        digit, colour, direction = right.mean(0)
        return Verdict(
            digit_accuracy=float(digit),
            colour_accuracy=float(colour),
            direction_accuracy=float(direction),
            frechet=distance,
        )


def save_judge(judge: Judge, folder: Path) -> None:
    """Write network and statistics to ``folder/judge.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    statistics = {"mean": torch.from_numpy(judge.mean), "covariance": torch.from_numpy(judge.covariance)}
    network = {f"network.{key}": tensor.contiguous() for key, tensor in judge.network.state_dict().items()}
    save_file({**network, **statistics}, folder / "judge.safetensors")


def load_judge(folder: Path = WEIGHTS / "judge") -> Judge:
    """Read what ``save_judge`` wrote."""
    tensors = load_file(folder / "judge.safetensors")
    network = JudgeNetwork()
    network.load_state_dict(
        {key.removeprefix("network."): t for key, t in tensors.items() if key.startswith("network.")}
    )
    return Judge(network, tensors["mean"].numpy(), tensors["covariance"].numpy())


def frechet(
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    other_mean: NDArray[np.float64],
    other_covariance: NDArray[np.float64],
) -> float:
    """Squared Frechet distance between two normal distributions (Dowson and Landau 1982; arXiv:1706.08500)."""
    # the trace of the root of a product of two covariances is the sum of the roots of its eigenvalues
    eigenvalues = np.linalg.eigvals(covariance @ other_covariance).real.clip(min=0)
    gap = mean - other_mean
    return float(gap @ gap + np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(eigenvalues).sum())
