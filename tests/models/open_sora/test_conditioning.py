"""Mask strategies and given frames."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.conditioning import MaskStrategy, parse_mask_strategy, place_given, place_references

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (2, 4, 5, 2, 3)


def test_strategies_are_read_as_recorded(golden: Path) -> None:
    recorded = json.loads((golden / "inference_utils.json").read_text())["parse_mask_strategy"]
    for text, rows in recorded.items():
        assert [list(astuple(strategy)) for strategy in parse_mask_strategy(text)] == rows


@pytest.mark.parametrize(
    "text", ["a", "0,0,0,0,1,0,0", "0,,0", "0,0,0,0,1,2", "0,0,0,0,0", "-1", "0;;1", "0,0,0,0,1,nan"]
)
def test_a_bad_strategy_is_an_error(text: str) -> None:
    with pytest.raises(StgTuneError, match="mask strategy"):
        parse_mask_strategy(text)


def test_references_go_where_the_strategy_says() -> None:
    reference = torch.arange(3.0).view(1, 3, 1, 1).expand(4, 3, 2, 3)
    plans = [parse_mask_strategy("0,0,-1,0,1,0.25;0,0,0,-2,9;1,0,0,2,1"), []]
    latents, mask = place_references(SHAPE, [[reference], []], plans)
    assert mask.tolist() == [[0.25, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert latents[0, 0, :, 0, 0].tolist() == [2, 0, 0, 0, 1]
    assert not latents[1].any()
    _, later = place_references(SHAPE, [[reference], []], plans, loop=1)
    assert later[0].tolist() == [1, 1, 0, 1, 1]


def test_starts_are_aligned_to_chunks() -> None:
    reference = torch.ones(4, 10, 2, 3)
    plan = [MaskStrategy(reference_start=4, target_start=3, length=2)]
    _, mask = place_references((1, 4, 15, 2, 3), [[reference]], [plan], align=5)
    assert mask[0].nonzero().flatten().tolist() == [*range(5), *range(7, 15)]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [("0,1", "names reference 1, but 1 are given"), ("0,0,7", "outside the 3"), ("0,0,0,-6", "outside the 5")],
)
def test_a_place_that_is_not_there_is_an_error(strategy: str, message: str) -> None:
    with pytest.raises(StgTuneError, match=message):
        place_references(SHAPE, [[torch.zeros(4, 3, 2, 3)], []], [parse_mask_strategy(strategy), []])


def test_a_reference_of_another_size_is_an_error() -> None:
    with pytest.raises(StgTuneError, match=r"needs \(4, frames, 2, 3\)"):
        place_references(SHAPE, [[torch.zeros(4, 3, 3, 3)], []], [[MaskStrategy()], []])


def test_given_latents_replace_the_noise_where_the_mask_is_below_one() -> None:
    noise, given = torch.zeros(SHAPE), torch.ones(1, 4, 3, 2, 3)
    latents, mask = place_given(noise, given, torch.tensor([0.0, 1.0, 0.5, 1.0, 1.0]), prompts=1)
    assert latents[:, 0, :, 0, 0].tolist() == [[1, 0, 1, 0, 0]] * 2
    assert mask.tolist() == [[0.0, 1.0, 0.5, 1.0, 1.0]] * 2
    _, default = place_given(noise, given, None, prompts=1)
    assert default[0].tolist() == [0, 0, 0, 1, 1]


def test_rows_of_given_latents_follow_their_prompts() -> None:
    given = torch.stack([torch.full((4, 1, 2, 3), 1.0), torch.full((4, 1, 2, 3), 2.0)])
    latents, _ = place_given(torch.zeros(4, *SHAPE[1:]), given, None, prompts=2)
    assert latents[:, 0, 0, 0, 0].tolist() == [1, 1, 2, 2]
    with pytest.raises(StgTuneError, match="2 rows for 1 prompts and 3 videos"):
        place_given(torch.zeros(3, *SHAPE[1:]), given, None, prompts=1)
