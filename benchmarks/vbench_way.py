"""VBench's scores as its programs compute them, with the networks of ``benchmarks.scorers``."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torchvision import transforms

from stg_tune.score.clip_models import Tokenizer
from stg_tune.score.musiq import LONGER_SIDES, MOST_PIXELS, PATCH, Musiq, hashed_positions, patches, shrunk
from stg_tune.video import read_video

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from open_clip.model import CLIP
    from torch import Tensor

    from stg_tune.score.perceptual import LpipsOverTrunk

PROMPT = "a boat that sails past a lighthouse at dusk"
CLIP_BATCH = 32
"""Frames that VBench's aesthetic quality gives to CLIP at a time."""
LPIPS = "temporal_lpips"
"""Timed on both sides though VBench has no such dimension."""
DIMENSIONS = ("aesthetic", "alignment", "musiq", LPIPS, "temporal_flickering")


class Networks(Protocol):
    """What both sides share."""

    clip: CLIP
    config: Mapping[str, Any]
    head: Tensor
    bias: float
    musiq: Musiq
    lpips: LpipsOverTrunk


def padded_quality(net: Musiq, frame: Tensor) -> Tensor:
    """MUSIQ of one frame with the empty patches of the published programs, (1,).

    There they also go through the transformer, hidden by a mask; here they are dropped before it, which favours VBench.
    """
    pyramid = [*(shrunk(2 * frame[None] - 1, side) for side in LONGER_SIDES), 2 * frame[None] - 1]
    tokens, positions, scales = [], [], []
    for scale, level in enumerate(pyramid):
        pictures = patches(level)
        count = pictures.shape[1]
        full = math.ceil(LONGER_SIDES[scale] / PATCH) ** 2 if scale < len(LONGER_SIDES) else count
        empty = pictures.new_zeros(1, full - count, *pictures.shape[2:])
        tokens.append(net.embed(torch.cat([pictures, empty], dim=1))[:, :count])
        positions.append(hashed_positions(*level.shape[-2:]))
        scales.append(torch.full((count,), scale))
    final = net.transformer_encoder(torch.cat(tokens, dim=1), torch.cat(positions), torch.cat(scales))
    points: Tensor = net.head(final)
    return points[:, 0]


class VBenchWay:
    """One dimension after the other, each from the file."""

    def __init__(self, networks: Networks, file: Path) -> None:
        self._networks, self._file = networks, file
        size = networks.config["vision_cfg"]["image_size"]
        self._transform = transforms.Compose(
            [
                transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC, antialias=False),
                transforms.CenterCrop(size),
                transforms.Lambda(lambda picture: picture.float().div(255.0)),
                transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
            ]
        )
        self._tokenize = Tokenizer(networks.config["text_cfg"]["context_length"])

    def _levels(self) -> Tensor:
        """Floats from 0 to 255, as VBench's ``load_video`` gives."""
        return read_video(self._file).frames.permute(0, 3, 1, 2).float()

    def _features(self) -> Tensor:
        parts = self._levels().split(CLIP_BATCH)
        rows = [self._networks.clip.encode_image(self._transform(part)) for part in parts]
        return F.normalize(torch.cat(rows), dim=-1)

    def aesthetic(self) -> float:
        """CLIP on every frame, in VBench's batches."""
        return float((self._features() @ self._networks.head + self._networks.bias).mean()) / 10

    def alignment(self) -> float:
        """CLIP on every frame once more."""
        text = self._networks.clip.encode_text(self._tokenize([PROMPT]))[0]
        return float(F.cosine_similarity(self._features().mean(0), text, dim=0))

    def musiq(self) -> float:
        """MUSIQ on every frame, one by one."""
        levels = self._levels()
        height, width = levels.shape[-2:]
        scale = min(1.0, MOST_PIXELS / max(height, width))
        smaller = transforms.Resize((int(scale * height), int(scale * width)), antialias=False)(levels) / 255
        return float(torch.cat([padded_quality(self._networks.musiq, frame) for frame in smaller]).mean()) / 100

    def temporal_lpips(self) -> float:
        """LPIPS of one pair after the other."""
        frames = self._levels() / 127.5 - 1
        pairs = [self._networks.lpips(frames[t : t + 1], frames[t + 1 : t + 2]) for t in range(len(frames) - 1)]
        return float(torch.cat(pairs).mean())

    def temporal_flickering(self) -> float:
        """Differences of one pair after the other."""
        frames = self._levels()
        changes = [(after - before).abs().mean() for before, after in pairwise(frames)]
        return 1 - float(torch.stack(changes).mean()) / 255
