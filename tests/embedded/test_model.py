"""The shipped ``open-sora-tiny``: what its files are, and that it is the real architecture, only small."""

import pytest
import torch

from stg_tune import models
from stg_tune.embedded import WEIGHTS, digits
from stg_tune.embedded.contact_sheet import PROMPTS, sheet
from stg_tune.generate import Generator
from stg_tune.records import GuidanceSpec, Pair

FOLDER = WEIGHTS / "open-sora-tiny"


@pytest.fixture(scope="module")
def pipe():
    return models.load(models.entry("open-sora-tiny"))


def test_the_folder_is_small_and_holds_no_executable_format():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15 * 2**20
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}


def test_it_has_enough_blocks_to_choose_from_and_the_real_compression(pipe):
    entry = models.entry("open-sora-tiny")
    assert entry.depths["spatial"] == len(pipe.transformer.spatial_blocks) >= 8
    assert entry.depths["temporal"] == len(pipe.transformer.temporal_blocks) >= 8
    assert (pipe.vae.spatial_compression, pipe.vae.temporal_compression) == (8, 4)
    assert pipe.vae.get_latent_size((digits.NUM_FRAMES, digits.SIZE, digits.SIZE)) == (5, 8, 8)


def test_every_word_of_the_captions_is_one_token(pipe):
    for text in digits.captions():
        tokens = pipe.tokenizer(text)["input_ids"]
        assert pipe.tokenizer.convert_ids_to_tokens(tokens) == [f"▁{word}" for word in text.split()] + ["</s>"]


def test_the_autoencoder_keeps_what_a_video_shows(pipe):
    batch = digits.render(4, "test", seed=77)
    pixels = torch.from_numpy(batch.frames).movedim(-1, 1).float() / 127.5 - 1
    with torch.inference_mode():
        restored = pipe.vae.decode(pipe.vae.encode(pixels, sample_posterior=False), digits.NUM_FRAMES)
    assert (restored - pixels).abs().mean() < 0.06, "in [-1, 1]; 0.041 when it was trained"


def test_a_contact_sheet_shows_every_caption(pipe):
    generator = Generator(pipe, models.entry("open-sora-tiny"), num_inference_steps=1)
    pairs = [Pair(prompt=text, seed=0) for text in PROMPTS[:2]]
    videos = [made.video for made in generator.many(GuidanceSpec(cfg_scale=1.0), pairs)]
    picture = sheet([videos, videos], PROMPTS[:2])
    assert picture.size == (2 * (5 * 64 * 2 + 8), 2 * 2 * 64 + 16)
