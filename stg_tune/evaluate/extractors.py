"""Networks that see a whole video: features for distances, class probabilities for the inception score."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from stg_tune.embedded import digits
from stg_tune.embedded.judge import NUM_VIEWS, Judge, load_judge
from stg_tune.errors import StgTuneError
from stg_tune.evaluate.distances import Reference
from stg_tune.evaluate.i3d import I3D, LEAST_FRAMES, preprocessed
from stg_tune.evaluate.real import real_videos
from stg_tune.records import ScoreKind
from stg_tune.score.loading import fill, read_state
from stg_tune.score.placement import Placement
from stg_tune.video import read_video

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stg_tune.score.library import Library

JUDGE_PICTURE = (3, 64, 64)
QUESTIONS = ("digit", "colour", "direction")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a network says about one video."""

    features: Tensor
    """float64 (dim,)."""
    probabilities: Tensor
    """float64 (classes,), sum 1."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Further numbers of this one video, by the names of ``Extractor.kinds``."""


class Extractor(Protocol):
    """Sees videos as points."""

    @property
    def weights(self) -> str:
        """First 16 digits of the checksum of the network."""

    @property
    def kinds(self) -> tuple[ScoreKind, ...]:
        """What the numbers in ``Seen.scores`` mean."""

    def __call__(self, frames: Tensor, prompt: str) -> Seen:
        """Frames (frames, 3, height, width) in [0, 1], float32."""

    def reference(self, data: Path | None, num_frames: int | None = None) -> Reference:
        """Moments of real videos, of the domain the network knows or of the videos below ``data``.

        Args:
            data: Folder of real videos.
            num_frames: Frames from the beginning of each that count, as many as a generated video has; ``None``: all.
        """


class JudgeExtractor:
    """The judge of the embedded models: it knows digit, colour and direction, and what real videos look like."""

    def __init__(self) -> None:
        self._judge: Judge = load_judge()
        self.weights = _fingerprint(self._judge.network)
        self.kinds = tuple(
            ScoreKind(
                name=f"{question}_right", direction="maximize", low=0.0, high=1.0, unit="share", weights=self.weights
            )
            for question in QUESTIONS
        )

    @torch.no_grad()
    def __call__(self, frames: Tensor, prompt: str) -> Seen:
        """Features (96,), the 240 joint answers, and whether each of the three is what the prompt says."""
        if tuple(frames.shape[1:]) != JUDGE_PICTURE or len(frames) < NUM_VIEWS:
            raise StgTuneError(
                f"the judge sees {NUM_VIEWS} or more frames of shape {JUDGE_PICTURE}, got {tuple(frames.shape)}"
            )
        network, videos = self._judge.network, 2 * frames[None] - 1
        features = network.features(videos)[0]
        answers = [logits[0].double().softmax(0) for logits in network(videos)]
        joint = torch.einsum("d,c,m->dcm", *answers).flatten()
        truth = digits.truth(prompt)
        right = {
            f"{question}_right": float(int(answer.argmax()) == wanted)
            for question, answer, wanted in zip(QUESTIONS, answers, truth, strict=True)
        }
        return Seen(features=features.double(), probabilities=joint, scores=right)

    def reference(self, data: Path | None, num_frames: int | None = None) -> Reference:
        """Moments of real digit videos that ship with the judge; nothing is looked at."""
        return Reference(mean=self._judge.mean, covariance=self._judge.covariance, count=0)


class I3DExtractor:
    """The Kinetics network of the published Frechet video distances.

    Published inception scores of UCF-101 come from another network (C3D); those of this one are comparable among
    themselves only.
    """

    kinds: tuple[ScoreKind, ...] = ()
    """It gives no scores."""

    def __init__(self, library: Library, device: str | torch.device = "cpu") -> None:
        library.fetch(["i3d-kinetics-400"])
        file = library.get("i3d-kinetics-400")
        state = read_state(file.path)
        head = state.get("logits.conv3d.bias")
        self._net = I3D(len(head) if head is not None else 1)
        wanted = self._net.state_dict()
        # counters of batches that were never kept by the conversion
        state |= {key: t for key, t in wanted.items() if key.endswith("num_batches_tracked") and key not in state}
        fill(self._net, state, "weights of i3d-kinetics-400")
        self._net, self._device = self._net.to(device), torch.device(device)
        self.weights = file.sha256[:16]

    @torch.inference_mode()
    def __call__(self, frames: Tensor, prompt: str) -> Seen:
        """Logits (400,) and their softmax; the prompt is not used."""
        if len(frames) < LEAST_FRAMES:
            raise StgTuneError(f"the I3D network needs {LEAST_FRAMES} frames or more, got {len(frames)}")
        logits = self._net(preprocessed(frames.to(self._device)))[0].double().cpu()
        return Seen(features=logits, probabilities=logits.softmax(0))

    def reference(self, data: Path | None, num_frames: int | None = None) -> Reference:
        """Moments of the videos below ``data``, at least two."""
        if data is None:
            raise StgTuneError("real videos are needed to compare with: give --data DIR with UCF-101 or other videos")
        rows = np.stack([self._clip(file, num_frames).features.numpy() for file in real_videos(data)])
        return Reference(mean=rows.mean(0), covariance=np.cov(rows, rowvar=False), count=len(rows))

    def _clip(self, file: Path, num_frames: int | None) -> Seen:
        video = read_video(file)
        if len(video.frames) < (num_frames or LEAST_FRAMES):
            raise StgTuneError(
                f"{file} has {len(video.frames)} frames; {num_frames or LEAST_FRAMES} are needed, as many as a "
                "generated video has: move it out of --data"
            )
        return self(replace(video, frames=video.frames[:num_frames]).to_float(), "")


def extractor_of(name: str, library: Library, device: str | torch.device | None = None) -> Extractor:
    """The extractor that a plan names; ``device=None``: a GPU where torch sees one (the small judge needs none)."""
    return JudgeExtractor() if name == "judge" else I3DExtractor(library, Placement.automatic(device).device)


def _fingerprint(network: torch.nn.Module) -> str:
    import hashlib

    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
