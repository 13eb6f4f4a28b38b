"""Aesthetic quality and prompt alignment from one pass of an ``open_clip`` CLIP over the frames."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stg_tune.records import Score, ScoreKind
from stg_tune.score.base import Requirement, View, scored
from stg_tune.score.placement import in_batches

if TYPE_CHECKING:
    from open_clip.model import CLIP

Tokenize = Callable[[Sequence[str]], Tensor]
"""Prompts -> token ids (prompts, context length)."""

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How frames in [0, 1] become the input of the image tower."""

    size: int
    """Side of the square input, in pixels; the shorter side of a frame is resized to it, the longer one cropped."""
    mode: str = "bicubic"
    """Interpolation of ``torch.nn.functional.interpolate``."""
    antialias: bool = False
    """Whether shrinking averages first; VBench does not."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Subtracted, by channel."""
    std: tuple[float, float, float] = OPENAI_STD
    """Divided by, by channel."""
    levels: bool = False
    """Resize 8-bit levels and leave the overshoot of the kernel in, as VBench does; needs ``antialias=False``."""

    def __call__(self, view: View) -> Tensor:
        """(frames, 3, size, size), normalised."""
        height, width = view.frames.shape[-2:]
        short = min(height, width)
        # the longer side is rounded down, as torchvision's Resize does
        target = [self.size if side == short else int(self.size * side / short) for side in (height, width)]
        if self.levels:
            frames = view.resized_levels(target[0], target[1], self.mode) / 255
        else:
            frames = view.resized(target[0], target[1], self.mode, antialias=self.antialias).clamp(0, 1)
        top, left = (round((side - self.size) / 2) for side in target)
        square = frames[..., top : top + self.size, left : left + self.size]
        mean, std = (square.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (square - mean) / std


class ClipTowers:
    """A CLIP with its preprocessing and tokenizer; image features are shared through the view.

    Args:
        clip: model in eval mode.
        tokenize: prompts to token ids.
        preprocess: frames to the input of the image tower.
        stride: every how many frames one is looked at.
        frames: at most so many frames are looked at, evenly spaced; ``None``: no limit.
        batch: frames that go through the image tower at a time; ``None``: all.
    """

    def __init__(
        self,
        clip: CLIP,
        tokenize: Tokenize,
        preprocess: Preprocessing,
        *,
        stride: int = 1,
        frames: int | None = None,
        batch: int | None = None,
    ) -> None:
        self.clip = clip
        self._tokenize = tokenize
        self._preprocess = preprocess
        self._frames, self._batch = frames, batch
        self.stride = stride
        self.text = functools.lru_cache(maxsize=4096)(self._text)

    def looking_at(self, frames: int | None) -> ClipTowers:
        """The same network on at most so many frames of a video."""
        clip, batch = self.clip, self._batch
        return ClipTowers(clip, self._tokenize, self._preprocess, stride=self.stride, frames=frames, batch=batch)

    def frames_seen(self, frames: int) -> int:
        """How many of a video's frames are looked at."""
        count = len(range(0, frames, self.stride))
        return min(count, self._frames or count)

    def images(self, view: View) -> Tensor:
        """Unit-length features of the frames that are looked at, float32 (frames, dim)."""
        return view.once((id(self), "features"), lambda: self._images(view))

    def _images(self, view: View) -> Tensor:
        chosen = (View(view.frames[:: self.stride]) if self.stride > 1 else view).sample(self._frames)
        return in_batches(self._encode, self._preprocess(chosen), self._batch)

    def _encode(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(self.clip.token_embedding.weight.dtype).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.clip.encode_image(inputs).float(), dim=-1)

    def _text(self, prompt: str) -> Tensor:
        """Unit-length features of a prompt, float32 (dim,)."""
        device = self.clip.token_embedding.weight.device
        with torch.inference_mode():
            return F.normalize(self.clip.encode_text(self._tokenize([prompt]).to(device)).float(), dim=-1)[0]


class Aesthetic:
    """Linear head on unit-length CLIP image features, divided by ten, mean over frames.

    The formula of VBench's ``aesthetic_quality`` and of the LAION linear predictor
    (https://github.com/LAION-AI/aesthetic-predictor): ``(w . f / ||f|| + b) / 10``.

    Args:
        towers: where the features come from.
        weight: (dim,) of the head that predicts points from 0 to 10.
        bias: of the head.
        weights: checksum of everything behind the number.
        name: of the score.
    """

    requires: Requirement = "picture"

    def __init__(
        self, towers: ClipTowers, weight: Tensor, bias: float, *, weights: str, name: str = "aesthetic"
    ) -> None:
        self._towers, self._weight, self._bias = towers, weight, bias
        reach = float(weight.norm())
        self.kind = ScoreKind(
            name=name,
            direction="maximize",
            low=(bias - reach) / 10,
            high=(bias + reach) / 10,
            unit="tenths of the 0-10 aesthetic scale",
            weights=weights,
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The score; the prompt is not used."""
        points = self._towers.images(view) @ self._weight + self._bias
        return scored(self.kind, float(points.mean()) / 10)

    def frames_seen(self, frames: int) -> int:
        """How many of a video's frames count."""
        return self._towers.frames_seen(frames)


class TemporalHead(nn.Module):
    """Adds what changes over time to the mean of the frame features.

    A CLIP sees single frames and cannot tell left from right motion. The head looks at pairs of frame features that
    are ``lag`` frames apart: ``v = mean_t f_t + C mean_t gelu(A f_t + B f_(t+lag))``.

    Args:
        dim: width of the features.
        hidden: width of the pair features.
        lag: distance of a pair, in features (not in frames of the video).
    """

    def __init__(self, dim: int, hidden: int, lag: int) -> None:
        super().__init__()
        self.lag = lag
        self.pair = nn.Linear(2 * dim, hidden)
        self.out = nn.Linear(hidden, dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(..., frames, dim) -> (..., dim), not normalised; fewer frames than ``lag + 1`` use the longest lag."""
        lag = min(self.lag, features.shape[-2] - 1)
        pairs = torch.cat([features[..., : features.shape[-2] - lag, :], features[..., lag:, :]], dim=-1)
        changes: Tensor = self.out(F.gelu(self.pair(pairs)).mean(-2))
        return features.mean(-2) + changes


class Alignment:
    """Cosine between the prompt and the video: the mean of the frame features, or a temporal head's summary of them.

    Args:
        towers: where the features come from.
        head: summary of (frames, dim) features that also sees their order; ``None`` takes the mean, which is the usual
            CLIP text-video similarity and blind to the direction of motion.
        weights: checksum of everything behind the number.
    """

    requires: Requirement = "picture"

    def __init__(self, towers: ClipTowers, head: TemporalHead | None = None, *, weights: str) -> None:
        self._towers, self._head = towers, head
        self.kind = ScoreKind(
            name="alignment", direction="maximize", low=-1.0, high=1.0, unit="cosine", weights=weights
        )

    def __call__(self, view: View, prompt: str) -> Score:
        """The cosine; an empty prompt cannot be scored."""
        if not prompt.strip():
            return Score(kind=self.kind, value=None, reason="the prompt is empty")
        features = self._towers.images(view)
        video = features.mean(0) if self._head is None else self._head(features)
        return scored(self.kind, float(F.cosine_similarity(video, self._towers.text(prompt), dim=0)))

    def frames_seen(self, frames: int) -> int:
        """How many of a video's frames count."""
        return self._towers.frames_seen(frames)
