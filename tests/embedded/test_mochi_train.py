"""``mochi-tiny``: its training runs and gives a standard folder that is guided and searched like any other."""

import json
from dataclasses import replace

import pytest
import torch

from stg_tune import models
from stg_tune.embedded import WEIGHTS, digits, mochi_train
from stg_tune.embedded.joint_attention import JointAttention
from stg_tune.embedded.text import build_tokenizer
from stg_tune.embedded.train import train_mochi
from stg_tune.embedded.tutor import lesson_of
from stg_tune.generate import Generator
from stg_tune.records import GuidanceSpec, Pair, Segment, SkipTerm

PAIR = Pair(prompt="a red seven moving left", seed=3)
PLAIN = GuidanceSpec(cfg_scale=2.0)


def _transformer():
    torch.manual_seed(0)
    config = {**mochi_train.TRANSFORMER, "num_layers": 3, "num_attention_heads": 1, "pooled_projection_dim": 16}
    return mochi_train.build_transformer(config)


def _predict(transformer, mask):
    generator = torch.Generator().manual_seed(1)
    return transformer(
        hidden_states=torch.randn(2, 12, 2, 4, 4, generator=generator),
        encoder_hidden_states=torch.randn(2, 16, 64, generator=generator),
        timestep=torch.tensor([300.0, 700.0]),
        encoder_attention_mask=mask,
        return_dict=False,
    )[0]


def test_attention_of_a_whole_batch_is_that_of_diffusers():
    transformer = _transformer()
    for weight in transformer.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    mask = torch.arange(16)[None] < torch.tensor([[6], [2]])
    with torch.no_grad():
        expected = _predict(transformer, mask)
        unmasked = _predict(transformer, torch.ones_like(mask))
        for block in transformer.transformer_blocks:
            block.attn1.processor = JointAttention()
        found = _predict(transformer, mask)
    assert (found - expected).abs().max() < 1e-5
    assert (unmasked - expected).abs().max() > 1e-3, "padding matters unless it is masked"


def test_an_untrained_transformer_predicts_nothing_and_knows_places():
    transformer = _transformer()
    assert _predict(transformer, torch.ones(2, 16, dtype=torch.bool)).abs().max() == 0
    turned = transformer.rope(transformer.pos_frequencies, 4, 4, 4, dtype=torch.float32)
    turns = torch.cat([part.flatten(1) for part in turned], 1)  # cosines alone are the same for a place and its mirror
    assert torch.pdist(turns).min() > 0.1, "no two of the 64 tokens are turned alike"


def test_noise_levels_cover_the_noisy_end_and_the_rest():
    levels = mochi_train.noise_levels(4000, torch.Generator().manual_seed(0))
    assert 0 <= levels.min() < 0.05
    assert levels.max() <= 1
    assert 0.2 < (levels > 0.95).float().mean() < 0.4
    assert (levels > 0.975).float().mean() > 0.1, "half of the pipeline's steps lie there"


def test_the_lesson_follows_latents_of_six_frames():
    plan = digits.layout(2, "train", seed=0, num_frames=mochi_train.NUM_FRAMES)
    lesson = lesson_of([plan], frames_per_latent=6)
    assert lesson.places.shape == (2, 64, 3)
    last = lesson.places[1].unflatten(0, (4, 4, 4))[3, 0, 0, :2].numpy() * 16 + 8
    assert last == pytest.approx(plan.centres[1, 13:19].mean(0), abs=1e-3)


def test_captions_are_dropped_for_the_empty_one_of_the_pipeline(monkeypatch):
    monkeypatch.setattr(mochi_train, "CAPTION_DROPOUT", 1.0)
    trained = mochi_train.Trained(_transformer(), mochi_train.build_encoder(len(build_tokenizer())))
    seen = {}
    trained.transformer.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True)
    tokens = build_tokenizer()(["a red seven moving left"] * 2, max_length=16, padding="max_length")
    ids, mask = (torch.tensor(tokens[name]) for name in ("input_ids", "attention_mask"))
    error, level = trained.loss(torch.randn(2, 12, 4, 8, 8), ids, mask, torch.Generator().manual_seed(0))
    assert seen["encoder_attention_mask"].sum(1).tolist() == [1, 1]
    assert torch.equal(seen["timestep"], 1000 * (1 - level))
    assert 1.5 < error < 2.5, "latents and noise have variance 1 and the first prediction is 0"


def test_the_trained_folder_is_a_plain_pipeline_of_diffusers(mochi_folder):
    index = json.loads((mochi_folder / "model_index.json").read_text())
    assert index["_class_name"] == "MochiPipeline"
    assert {part[0] for part in index.values() if isinstance(part, list)} == {"diffusers", "transformers"}
    files = [path for path in mochi_folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json"}
    assert "_name_or_path" not in "".join(path.read_text() for path in files if path.suffix == ".json")
    vae = json.loads((mochi_folder / "vae" / "config.json").read_text())
    assert len(vae["latents_mean"]) == len(vae["latents_std"]) == 12
    assert min(vae["latents_std"]) > 0


def test_training_goes_on_in_the_same_folder(mochi_folder, mochi_sizes, tmp_path):
    training = mochi_folder.parent / "training"
    before = (training / "latents.ckpt.pt").stat().st_mtime_ns
    steps = mochi_train.Steps(vae_clips=1, vae=1, denoiser=3)
    train_mochi(training, tmp_path / "again", steps=steps, sizes=mochi_sizes, compiled=False)
    assert torch.load(training / "transformer.ckpt.pt", weights_only=True)["step"] == 3
    assert (training / "latents.ckpt.pt").stat().st_mtime_ns == before


def test_the_short_text_is_the_text_that_diffusers_pads_to_256(mochi_folder):
    entry = models.entry("mochi-tiny")
    pipe = models.load(entry, mochi_folder)
    torch.nn.init.normal_(pipe.transformer.proj_out.weight, std=0.1)
    generator = Generator(pipe, entry, num_inference_steps=2)
    made = generator(PLAIN, PAIR)
    assert made.video.frames.shape == (19, 64, 64, 3)
    assert made.video.fps == 8
    usual = pipe(
        prompt=PAIR.prompt, height=64, width=64, num_frames=19, num_inference_steps=2, guidance_scale=2.0,
        generator=torch.Generator().manual_seed(PAIR.seed), output_type="pt",
    ).frames[0]  # fmt: skip
    assert (made.video.to_float() - usual).abs().max() < 2 / 255
    term = SkipTerm(name="blocks", skip_layers={"blocks": (4,)}, skip_op="residual", stg_scale=1.0)
    guided = generator(replace(PLAIN, segments=(Segment(terms=(term,)),)), PAIR)
    assert guided.effects["blocks"] >= 0
    assert 4 < guided.forwards < 6


def test_the_shipped_model_is_small_and_has_blocks_to_choose_from():
    files = [path for path in (WEIGHTS / "mochi-tiny").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15 * 2**20
    pipe = models.load(models.entry("mochi-tiny"))
    assert len(pipe.transformer.transformer_blocks) == models.entry("mochi-tiny").depths["blocks"] >= 10
    assert (pipe.vae.spatial_compression_ratio, pipe.vae.temporal_compression_ratio) == (8, 6)
