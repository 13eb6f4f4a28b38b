"""Captions: parity with Open-Sora's preprocessing, suffixes, loops, T5 tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.text import (
    append_scores,
    clean_caption,
    encode_captions,
    merge_loops,
    plain_caption,
    prompts_of_loop,
    split_loops,
)

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase, T5EncoderModel


def test_cleaning_equals_every_recorded_caption(golden: Path) -> None:
    rows = json.loads((golden / "text_preprocessing.json").read_text())["rows"]
    assert len(rows) == 25
    for row in rows:
        assert clean_caption(row["text"]) == row["preprocessed"]
        assert plain_caption(row["text"]) == row["raw_lower"]


def test_suffixes_equal_the_recorded_ones(golden: Path) -> None:
    names = {"aes": "aesthetic_score", "flow": "flow", "camera_motion": "camera_motion"}
    cases = json.loads((golden / "inference_utils.json").read_text())["append_score"]
    for case in cases:
        scores = {names[key]: value for key, value in case["args"].items() if key != "prompts"}
        assert append_scores(case["args"]["prompts"], **scores) == case["out"]


def test_prompts_of_loops_equal_the_recorded_ones(golden: Path) -> None:
    recorded = json.loads((golden / "inference_utils.json").read_text())
    for prompt, (captions, loops) in recorded["merge_split"].items():
        assert split_loops(prompt) == (captions, loops)
        assert split_loops(merge_loops(captions, loops)) == (captions, loops)
    for loop, captions in recorded["loops"].items():
        assert prompts_of_loop(["|0|day|1|night|3|dusk", "plain"], int(loop)) == captions


def test_loops_that_do_not_ascend_are_an_error() -> None:
    with pytest.raises(StgTuneError, match=r"must ascend, got \[0, 2, 1\]"):
        split_loops("|0|a|2|b|1|c")


def test_tokens_are_padded_masked_and_cut(
    tiny_tokenizer: PreTrainedTokenizerBase, tiny_text_encoder: T5EncoderModel
) -> None:
    captions = ["a red seven", "two", "a " * 40]
    with torch.no_grad():
        features, mask = encode_captions(
            captions, tiny_tokenizer, tiny_text_encoder, max_length=12, device=torch.device("cpu")
        )
        expected = tiny_text_encoder(input_ids=torch.tensor([tiny_tokenizer("two").input_ids])).last_hidden_state
    assert features.shape == (3, 1, 12, 32)
    assert mask.sum(1).tolist() == [4, 2, 12]  # the words and </s>
    torch.testing.assert_close(features[1, 0, :2], expected[0], atol=1e-5, rtol=0)
