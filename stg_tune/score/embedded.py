"""The scorers that ship with the package: the real classes over small networks trained on the embedded domain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stg_tune.score.clip import Aesthetic, Alignment, ClipTowers, Preprocessing, TemporalHead
from stg_tune.score.composite import CompositeScorer
from stg_tune.score.motion import Motion
from stg_tune.score.perceptual import LpipsOverTrunk, SmallTrunk, TemporalLpips
from stg_tune.score.quality import ImagingQuality, QualityNet, conv_stages
from stg_tune.score.saturation import Saturation
from stg_tune.score.weights import Weights, read_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from open_clip.model import CLIP

    from stg_tune.score.base import Measure

FOLDER = Path(__file__).parent.parent / "embedded" / "weights" / "scorers"
"""Where the trained weights lie in the package."""


def embedded_scorers(folder: Path = FOLDER, *, device: str | torch.device = "cpu") -> CompositeScorer:
    """Aesthetic, alignment, temporal LPIPS, imaging quality, motion and saturation for 64x64 embedded videos.

    Args:
        folder: weights folder; every file is verified against its checksum.
        device: where the networks run.

    Raises:
        StgTuneError: a file is missing, damaged or does not fit its configuration.
    """
    clip, perceptual, quality, colour = (
        read_weights(folder, name) for name in ("clip", "temporal_lpips", "imaging_quality", "saturation")
    )
    measures: list[Measure] = [
        *_clip_measures(clip, device),
        _temporal_lpips(perceptual, device),
        _imaging_quality(quality, device),
        Motion(),
        Saturation(float(colour.tensors["natural_chroma"]), weights=colour.short),
    ]
    return CompositeScorer(measures, device=device)


class Vocabulary:
    """open_clip's tokenizer with its 49,408 entries folded down to the words of the embedded captions.

    Args:
        words: kept token ids of open_clip's tokenizer; any other token becomes "unknown".
        context_length: tokens a prompt may have, with start and end; longer ones are cut.
    """

    PAD, UNKNOWN, START = 0, 1, 2
    KEPT = 3

    def __init__(self, words: Sequence[int], context_length: int) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._tokenizer = SimpleTokenizer(context_length=context_length)
        self.size = self.KEPT + len(words) + 1
        self._table = torch.full((self._tokenizer.vocab_size,), self.UNKNOWN)
        self._table[torch.tensor(list(words), dtype=torch.long)] = torch.arange(self.KEPT, self.KEPT + len(words))
        self._table[self._tokenizer.sot_token_id] = self.START
        # a CLIP reads the sentence off the token with the greatest id, so the end must have it
        self._table[self._tokenizer.eot_token_id] = self.size - 1

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Token ids, (prompts, context length)."""
        ids: Tensor = self._tokenizer(list(prompts))
        ends = (ids == self._tokenizer.eot_token_id).int().argmax(1)
        padding = torch.arange(ids.shape[1]) > ends[:, None]
        return self._table[ids].masked_fill(padding, self.PAD)


def words_of(texts: Sequence[str]) -> list[int]:
    """The token ids of open_clip's tokenizer that ``texts`` use, ascending."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    return sorted({token for text in texts for token in tokenizer.encode(text)})


class FrameTower(nn.Module):
    """Image tower for 64x64 frames: what is anywhere in the picture (all channels), and roughly where (a few).

    Args:
        channels: width of each stage; four stages leave 4x4 cells of a frame.
        places: channels whose cells are kept apart; few, so that shapes are not learnt place by place.
        hidden: width of the perceptron.
        dim: width of the features.
    """

    def __init__(self, channels: Sequence[int], places: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.stages = conv_stages(channels)
        self.places = nn.Conv2d(channels[-1], places, 1)
        width = 2 * channels[-1] + 16 * places
        self.head = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, frames: Tensor) -> Tensor:
        """Normalised frames (batch, 3, 64, 64) -> features (batch, dim)."""
        maps = self.stages(frames)
        seen = [maps.mean((2, 3)), maps.amax((2, 3)), self.places(maps).flatten(1)]
        features: Tensor = self.head(torch.cat(seen, dim=1))
        return features


def build_clip(embed_dim: int, tower: dict[str, Any], text_cfg: dict[str, Any]) -> CLIP:
    """An ``open_clip`` CLIP with random weights, its image tower replaced by a ``FrameTower``.

    open_clip's own towers, made as narrow as this, learn and run several times slower on a CPU.

    Args:
        embed_dim: width of the shared features.
        tower: ``channels``, ``places`` and ``hidden`` of the ``FrameTower``.
        text_cfg: text configuration of ``open_clip.model.CLIP``.
    """
    from open_clip.model import CLIP

    placeholder = {"layers": 1, "width": 32, "head_width": 32, "patch_size": 32, "image_size": 64}
    clip: CLIP = CLIP(embed_dim, placeholder, text_cfg)
    clip.visual = FrameTower(**tower, dim=embed_dim)
    return clip.to(memory_format=torch.channels_last)


def _clip_measures(weights: Weights, device: str | torch.device) -> tuple[Aesthetic, Alignment]:
    model = build_clip(**weights.setting("model"))
    weights.fill(model, "clip")
    head = TemporalHead(**weights.setting("temporal_head"))
    weights.fill(head, "temporal_head")
    preprocess = Preprocessing(**weights.setting("preprocessing"))
    vocabulary = Vocabulary(**weights.setting("vocabulary"))
    towers = ClipTowers(model.to(device), vocabulary, preprocess, stride=weights.setting("stride"))
    linear = weights.tensors["aesthetic.weight"].to(device)
    aesthetic = Aesthetic(towers, linear, float(weights.tensors["aesthetic.bias"]), weights=weights.short)
    return aesthetic, Alignment(towers, head.to(device), weights=weights.short)


def _temporal_lpips(weights: Weights, device: str | torch.device) -> TemporalLpips:
    metric = LpipsOverTrunk(SmallTrunk(weights.setting("channels")))
    weights.fill(metric, "lpips")
    return TemporalLpips(metric.to(device).to(memory_format=torch.channels_last), weights=weights.short)


def _imaging_quality(weights: Weights, device: str | torch.device) -> ImagingQuality:
    net = QualityNet(**weights.setting("net"))
    weights.fill(net, "net")
    net = net.to(device).to(memory_format=torch.channels_last)
    return ImagingQuality(net, size=weights.setting("size"), weights=weights.short)
