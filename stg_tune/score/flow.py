"""Motion from optical flow: torchvision's RAFT (Teed and Deng, arXiv:2003.12039)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, scored

if TYPE_CHECKING:
    from stg_tune.score.placement import Placement

Flow = Callable[[Tensor, Tensor], Tensor]
"""Two batches (batch, 3, height, width) in [-1, 1], sides multiples of 8 -> displacements (batch, 2, height, width)."""
SHORT_SIDE = 256
"""Frames are resized to this shorter side before the mean magnitude is measured; speeds are in these pixels."""
LEAST_SIDE = 128
"""Pixels that both sides must have for RAFT."""
SAMPLED_FPS = 8.0
"""VBench looks at about so many frames a second."""
MOST_PAIR_BYTES = 2**32
"""Memory that one pair of frames may take in the network, on every machine: 1280x720 takes 1.7 GB, 1920x1080 7.4 GB."""
FASTEST_SHARE = 0.05
"""VBench judges a pair by the mean of this share of its greatest displacements."""


class RaftFlow:
    """A RAFT network as a ``Flow`` with its number of updates.

    Args:
        net: ``raft_small`` or ``raft_large`` of torchvision, in eval mode.
        updates: refinements; torchvision's default is 12, VBench takes 20.
    """

    def __init__(self, net: nn.Module, updates: int) -> None:
        self._net, self._updates = net, updates

    def __call__(self, before: Tensor, after: Tensor) -> Tensor:
        """The flow of the last refinement."""
        flows: list[Tensor] = self._net(before, after, num_flow_updates=self._updates)
        return flows[-1]


def padding(frames: Tensor) -> tuple[int, int, int, int]:
    """Pixels left, right, above and below that make both sides multiples of 8."""
    height, width = frames.shape[-2:]
    below, right = -height % 8, -width % 8
    return right // 2, right - right // 2, below // 2, below - below // 2


def pair_bytes(height: int, width: int) -> int:
    """Memory for one pair: the similarity of all places with all places, its smaller copies, and the features."""
    places = math.ceil(height / 8) * math.ceil(width / 8)
    return places**2 * 6 + places * 64 * 512


def too_large(height: int, width: int) -> str:
    """Why the network cannot take frames of this size; empty: it can."""
    needed = pair_bytes(height, width)
    if needed <= MOST_PAIR_BYTES:
        return ""
    return (
        f"a pair of {width}x{height} frames needs about {needed / 1e9:.1f} GB in the network, more than the "
        f"{MOST_PAIR_BYTES / 1e9:.1f} GB that it may take"
    )


def magnitudes(flow: Flow, frames: Tensor, placement: Placement) -> Tensor:
    """Length of the displacement from every frame to the next, (frames - 1, padded height, padded width), in pixels.

    Args:
        flow: the network.
        frames: (frames, 3, height, width) in [0, 1]; edges are repeated up to multiples of 8.
        placement: bounds the memory: the correlation of all places with all places grows with the fourth power of size.
    """
    batch, lengths = placement.batch(pair_bytes(*frames.shape[-2:])), []
    for start in range(0, len(frames) - 1, batch):
        part = frames[start : start + batch + 1]
        inputs = F.pad(2 * part - 1, padding(part), mode="replicate")
        lengths.append(torch.linalg.vector_norm(flow(inputs[:-1], inputs[1:]), dim=1))
    return torch.cat(lengths)


class OpticalFlow:
    """Mean length of the optical flow between consecutive frames, at a 256-pixel shorter side.

    Args:
        flow: the network; ``raft_small`` with 12 updates.
        placement: where it runs.
        weights: checksum of the network.
    """

    requires: Requirement = "two frames"

    def __init__(self, flow: Flow, placement: Placement, *, weights: str) -> None:
        self._flow, self._placement = flow, placement
        self.kind = ScoreKind(
            name="optical_flow",
            direction="maximize",
            low=0.0,
            high=float("inf"),
            unit="pixels a frame at a 256-pixel short side",
            weights=weights,
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        height, width = view.frames.shape[-2:]
        scale = SHORT_SIDE / min(height, width)
        size = round(height * scale), round(width * scale)
        reason = too_large(*size)
        if reason:
            return Score(kind=self.kind, value=None, reason=f"optical_flow: {reason}")
        frames = view.resized(*size)
        lengths = magnitudes(self._flow, frames, self._placement)
        left, _, above, _ = padding(frames)
        inner = lengths[:, above : above + frames.shape[-2], left : left + frames.shape[-1]]
        return scored(self.kind, float(inner.mean()))


class DynamicDegree:
    """Does the video move: VBench's ``dynamic_degree`` of one video, 1 or 0.

    Frames are taken at about 8 a second. A pair of them moves when the mean of the 5 % greatest displacements is above
    ``6 (shorter side / 256)`` pixels; a video moves when ``round(frames / 4)`` pairs do (so that two
    frames always move, as in the original). Being 0 or 1, it says little about one setting against another;
    ``optical_flow`` and ``motion`` do.

    Args:
        flow: the network; ``raft_large`` with the weights "things" and 20 updates.
        placement: where it runs.
        fps: frames a second of the videos.
        weights: checksum of the network.
    """

    requires: Requirement = "two frames"

    def __init__(self, flow: Flow, placement: Placement, *, fps: float, weights: str) -> None:
        self._flow, self._placement = flow, placement
        self._step = max(1, round(fps / SAMPLED_FPS))
        self.kind = ScoreKind(
            name="dynamic_degree",
            direction="maximize",
            low=0.0,
            high=1.0,
            unit="1 if it moves, else 0",
            weights=weights,
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        frames = view.frames[:: self._step]
        side = min(frames.shape[-2:])
        if side < LEAST_SIDE or len(frames) < 2:
            reason = (
                f"needs {LEAST_SIDE} pixels on both sides and two frames at 8 a second, has {side} and {len(frames)}"
            )
            return Score(kind=self.kind, value=None, reason=f"dynamic_degree {reason}")
        reason = too_large(*frames.shape[-2:])
        if reason:
            advice = "VBench's number is that of the full size; optical_flow shrinks frames first"
            return Score(kind=self.kind, value=None, reason=f"dynamic_degree: {reason}. {advice}")
        speeds = fastest(magnitudes(self._flow, frames, self._placement))
        threshold = 6.0 * side / 256
        return scored(self.kind, float(int((speeds > threshold).sum()) >= round(len(frames) / 4)))

    def frames_seen(self, frames: int) -> int:
        """How many of a video's frames count."""
        return len(range(0, frames, self._step))

    def at(self, fps: float) -> DynamicDegree:
        """The same network for videos of another frame rate."""
        return DynamicDegree(self._flow, self._placement, fps=fps, weights=self.kind.weights)


def fastest(lengths: Tensor) -> Tensor:
    """Mean of the 5 % greatest lengths of each pair: (pairs, height, width) -> (pairs,)."""
    flat = lengths.flatten(1)
    return flat.topk(max(1, int(flat.shape[1] * FASTEST_SHARE))).values.mean(1)
