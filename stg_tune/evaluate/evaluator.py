"""One setting on some pairs: videos, their scores, and what a network saw in them, kept in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors.torch import load_file, save_file

from stg_tune.generate import GenerationFailedError
from stg_tune.records import Evaluation, GuidanceSpec, Pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stg_tune.evaluate.extractors import Extractor
    from stg_tune.generate import Generated
    from stg_tune.score import Score, Scorer


class MakesVideos(Protocol):
    """What is asked of a model: ``stg_tune.generate.Generator``."""

    def many(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> list[Generated]:
        """One video a pair; raises ``GenerationFailedError``."""


@dataclass(frozen=True, kw_only=True)
class PairEvaluator:
    """``(spec, pair) -> Evaluation``, or several pairs of one setting in one batch: the same numbers up to rounding."""

    generator: MakesVideos
    """Makes videos."""
    scorer: Scorer
    """Judges each."""
    extractor: Extractor | None
    """Sees videos as points; ``None``: they are not compared as sets."""
    features: Path
    """Where what it saw is left."""

    def __call__(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        """Generate and judge one video; a failed generation is ``Evaluation.error``."""
        try:
            return self._together(spec, [pair])[0]
        except GenerationFailedError as error:
            return Evaluation(config=spec.hash(), pair=pair, error=str(error))

    def many(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> list[Evaluation]:
        """Generate and judge several pairs at once, or one by one where the batch fails."""
        try:
            return self._together(spec, pairs)
        except GenerationFailedError:
            return [self(spec, pair) for pair in pairs]

    def _together(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> list[Evaluation]:
        made = self.generator.many(spec, pairs)
        videos = torch.stack([one.video.to_float() for one in made])
        scores = self.scorer(videos, [pair.prompt for pair in pairs])
        return [self._judged(spec, *each) for each in zip(pairs, made, videos, scores, strict=True)]

    def _judged(
        self, spec: GuidanceSpec, pair: Pair, made: Generated, frames: torch.Tensor, scores: Mapping[str, Score]
    ) -> Evaluation:
        values = {name: score.value for name, score in scores.items() if score.value is not None}
        if self.extractor is not None:
            seen = self.extractor(frames, pair.prompt)
            values |= seen.scores
            kept = {"features": seen.features, "probabilities": seen.probabilities}
            _save(feature_file(self.features, spec.hash(), pair.key), kept)
        return Evaluation(
            config=spec.hash(),
            pair=pair,
            scores=values,
            unscored={name: score.reason for name, score in scores.items() if score.value is None},
            seconds=made.seconds,
            forwards=made.forwards,
            effects=made.effects,
        )


def feature_file(features: Path, config: str, pair: str) -> Path:
    """Where what was seen in one video is kept."""
    return features / f"{config}-{pair}.safetensors"


def load_features(features: Path, config: str, pair: str) -> dict[str, torch.Tensor]:
    """``features`` (dim,) and ``probabilities`` (classes,), float64."""
    return load_file(feature_file(features, config, pair))


def _save(target: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Whole or not at all: a crash in between leaves no half file under the final name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.replace(target)
