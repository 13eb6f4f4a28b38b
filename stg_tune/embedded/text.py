"""The small T5 encoder and tokenizer of the embedded models, in the standard format of transformers."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from stg_tune.embedded import digits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

MAX_LENGTH = 16
"""Tokens of a caption, end of sentence included."""
WIDTH = 64
"""Channels of the text features."""

_WORDS = ("a", "moving", "of", "the", "score", "aesthetic", "motion", "flow", "camera", "and", "slowly", "fast")


def build_tokenizer() -> PreTrainedTokenizerBase:
    """A T5 tokenizer (unigram) with one piece for every word of the captions and single letters for all others."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    words = dict.fromkeys((*_WORDS, *digits.COLOURS, *digits.DIGITS, *digits.DIRECTIONS))
    letters = string.ascii_letters + string.digits + string.punctuation
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -2.0) for word in words]
    pieces += [("▁", -6.0), *((letter, -8.0) for letter in letters)]
    raw = Tokenizer(models.Unigram(pieces, unk_id=2))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(
        tokenizer_object=raw,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_ids=0,
        model_max_length=MAX_LENGTH,
    )


def build_encoder(vocab_size: int) -> T5EncoderModel:
    """An untrained encoder with the layout of T5 v1.1."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocab_size,
        d_model=WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    return T5EncoderModel(config)
