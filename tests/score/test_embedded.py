"""Do the shipped weights know good from bad? All videos are renders of scans that no scorer was trained on."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune.embedded import digits
from stg_tune.embedded.degradations import DRAWING, PICTURE, Layers
from stg_tune.score import CompositeScorer
from stg_tune.score.base import View
from stg_tune.score.clip import Alignment

if TYPE_CHECKING:
    from stg_tune.embedded.scorers_data import Clean

STRENGTHS = (0.0, 0.35, 0.7, 1.0)
BETWEEN_FRAMES = {"flicker"}
NUM_VIDEOS = 12


def _damaged(name: str, strength: float, layers: Layers) -> torch.Tensor:
    rng = torch.Generator().manual_seed(7)
    strengths = torch.full((NUM_VIDEOS,), strength)
    chosen, others = layers[torch.arange(NUM_VIDEOS)], layers[torch.arange(NUM_VIDEOS) + NUM_VIDEOS]
    if name in DRAWING:
        return DRAWING[name](chosen, others, strengths, rng).compose()
    return PICTURE[name](chosen.compose(), strengths, rng).clamp(0, 1)


def _means(scorers: CompositeScorer, names: set[str], videos: torch.Tensor, prompts: list[str]) -> dict[str, float]:
    some = CompositeScorer([measure for measure in scorers.measures if measure.kind.name in names])
    rows = [{name: s.value for name, s in row.items() if s.value is not None} for row in some(videos, prompts)]
    return {name: fmean(row[name] for row in rows) for name in names}


@pytest.mark.parametrize("damage", sorted({*DRAWING, *PICTURE} - BETWEEN_FRAMES))
def test_quality_falls_with_damage(damage: str, scorers: CompositeScorer, clean: Clean, layers: Layers) -> None:
    names, prompts = {"imaging_quality", "aesthetic"}, clean.captions[:NUM_VIDEOS]
    means = [_means(scorers, names, _damaged(damage, strength, layers)[:, ::4], prompts) for strength in STRENGTHS]
    curves = {name: [mean[name] for mean in means] for name in names}
    print(damage, {name: [round(value, 3) for value in curve] for name, curve in curves.items()})
    quality = curves["imaging_quality"]
    assert all(later < earlier + 0.02 for earlier, later in pairwise(quality))
    assert quality[-1] < quality[0] - 0.14
    assert curves["aesthetic"][-1] < curves["aesthetic"][0] - 0.1


@pytest.mark.parametrize("damage", ["flicker", "wobble"])
def test_temporal_lpips_rises_with_change_between_frames(
    damage: str, scorers: CompositeScorer, clean: Clean, layers: Layers
) -> None:
    prompts = clean.captions[:NUM_VIDEOS]
    curve = [
        _means(scorers, {"temporal_lpips"}, _damaged(damage, strength, layers), prompts)["temporal_lpips"]
        for strength in STRENGTHS
    ]
    print(damage, [round(value, 3) for value in curve])
    assert curve == sorted(curve)
    assert curve[-1] > 1.8 * curve[0]


def test_saturation_rises_with_oversaturation_and_is_low_on_real_videos(
    scorers: CompositeScorer, clean: Clean, layers: Layers
) -> None:
    prompts = clean.captions[:NUM_VIDEOS]
    curve = [
        _means(scorers, {"saturation"}, _damaged("oversaturate", strength, layers), prompts)["saturation"]
        for strength in STRENGTHS
    ]
    assert curve == sorted(curve)
    assert curve[0] < 0.03
    assert curve[1] > 2 * curve[0]


@pytest.mark.parametrize("damage", ["mix", "tear", "fade", "melt", "stain"])
def test_alignment_falls_when_the_digit_is_not_what_the_caption_says(
    damage: str, scorers: CompositeScorer, clean: Clean, layers: Layers
) -> None:
    prompts = clean.captions[:NUM_VIDEOS]
    curve = [
        _means(scorers, {"alignment"}, _damaged(damage, strength, layers), prompts)["alignment"]
        for strength in (0.0, 0.5, 1.0)
    ]
    print(damage, [round(value, 3) for value in curve])
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] < curve[0] - 0.1


@pytest.fixture(scope="module")
def choices(scorers: CompositeScorer, clean: Clean, videos: torch.Tensor) -> dict[str, float]:
    """Share of videos whose caption beats all captions that differ in one attribute."""
    (alignment,) = [measure for measure in scorers.measures if isinstance(measure, Alignment)]
    right = {"digit": 0, "colour": 0, "direction": 0}
    for video, caption in zip(videos, clean.captions, strict=True):
        view, truth = View(video), digits.truth(caption)
        for slot, (attribute, count) in enumerate(zip(right, (10, 6, 4), strict=True)):
            options = [digits.caption(*truth[:slot], value, *truth[slot + 1 :]) for value in range(count)]
            with torch.inference_mode():
                cosines = [alignment(view, option).value or -1 for option in options]
            right[attribute] += cosines.index(max(cosines)) == truth[slot]
    return {attribute: hits / len(videos) for attribute, hits in right.items()}


@pytest.mark.parametrize(("attribute", "least"), [("digit", 0.85), ("colour", 0.9), ("direction", 0.9)])
def test_right_caption_beats_wrong_ones(choices: dict[str, float], attribute: str, least: float) -> None:
    print(attribute, choices[attribute])
    assert choices[attribute] >= least
