"""Tiny Open-Sora parts: the golden transformer, and a random VAE, T5 encoder and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from stg_tune.models.open_sora.pipeline import OpenSoraPipeline
from stg_tune.models.open_sora.schedule import OpenSoraScheduler
from stg_tune.models.open_sora.transformer import STDiT3
from stg_tune.models.open_sora.vae import OpenSoraVAE

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parents[2] / "golden" / "opensora"
VAE_2D = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [4, 4, 4, 4],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
    "sample_size": 32,
}
VAE_TEMPORAL = {"filters": 4, "num_res_blocks": 1, "channel_multipliers": [1, 1, 1, 1], "num_groups": 2}


@pytest.fixture
def golden() -> Path:
    """The folder of recorded Open-Sora data."""
    return GOLDEN


@pytest.fixture
def golden_transformer() -> STDiT3:
    """The transformer whose runs are recorded."""
    model = STDiT3(**json.loads((GOLDEN / "stdit3_tiny.config.json").read_text()))
    model.load_state_dict(load_file(GOLDEN / "stdit3_tiny.state_dict.safetensors"))
    return model.eval()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram pieces with T5's special tokens: <pad> 0, </s> 1, <unk> 2."""
    words = [
        "▁a",
        "▁red",
        "▁blue",
        "▁seven",
        "▁two",
        "▁moving",
        "▁left",
        "▁right",
        "▁",
        *"abcdefghijklmnopqrstuvwxyz.:0123456789",
    ]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -1.0 - i / 10) for i, word in enumerate(words))]
    backend = Tokenizer(models.Unigram(vocab, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture
def tiny_text_encoder(tiny_tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    """A random T5 encoder with 32 channels."""
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=len(tiny_tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    return T5EncoderModel(config).eval()


@pytest.fixture
def tiny_vae() -> OpenSoraVAE:
    """A random video autoencoder, 8x8x4."""
    torch.manual_seed(2)
    return OpenSoraVAE(vae_2d=VAE_2D, vae_temporal=VAE_TEMPORAL).eval()


@pytest.fixture
def make_pipeline(
    golden_transformer: STDiT3,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_text_encoder: T5EncoderModel,
    tiny_vae: OpenSoraVAE,
) -> Callable[..., OpenSoraPipeline]:
    """``make_pipeline(transformer=..., scheduler=..., ...)``; parts that are not named are the tiny ones."""

    def make(**parts: Any) -> OpenSoraPipeline:
        own = {
            "tokenizer": tiny_tokenizer,
            "text_encoder": tiny_text_encoder,
            "vae": tiny_vae,
            "transformer": golden_transformer,
            "scheduler": OpenSoraScheduler(),
        }
        pipe = OpenSoraPipeline(**(own | parts))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture
def pipe(make_pipeline: Callable[..., OpenSoraPipeline]) -> OpenSoraPipeline:
    """The pipeline of the tiny parts: 48x64 pixels, 17 frames."""
    return make_pipeline(default_height=48, default_width=64, default_num_frames=17)
