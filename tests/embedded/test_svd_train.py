"""``svd-tiny``: its training runs and gives a standard folder; the picture of a pair decides how its video begins."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from stg_tune import models
from stg_tune.embedded import WEIGHTS, digits, svd_parts_train, svd_train
from stg_tune.generate import Generator
from stg_tune.records import GuidanceSpec, Pair, Segment, SkipTerm

PAIR = Pair(prompt="a red seven moving left", seed=3)
OTHER = Pair(prompt="a blue two moving up", seed=11)


@pytest.fixture(scope="module")
def pipe(svd_folder):
    pipe = models.load(models.entry("svd-tiny"), svd_folder)
    torch.manual_seed(0)
    torch.nn.init.normal_(pipe.unet.conv_out.weight, std=0.1)
    return pipe


def test_a_perfect_prediction_of_the_loss_is_one_for_the_scheduler():
    from diffusers import EulerDiscreteScheduler

    clean, noise = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    scheduler = EulerDiscreteScheduler(**svd_train.SCHEDULER)
    scheduler.set_timesteps(6)
    assert torch.allclose(scheduler.timesteps, scheduler.sigmas[:-1].log() / 4, atol=1e-5)
    for sigma, timestep in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
        noisy, size = clean + sigma * noise, (sigma.square() + 1).sqrt()
        assert torch.allclose(scheduler.scale_model_input(noisy, timestep), noisy / size, atol=1e-5)
        step = scheduler.step((noise - sigma * clean) / size, timestep, noisy)
        assert torch.allclose(step.pred_original_sample, clean, atol=1e-3)


def test_the_loss_sees_what_the_pipeline_will_show():
    data = svd_train.Data(
        latents=torch.randn(3, 9, 4, 8, 8), images=torch.randn(3, 4, 8, 8), embeddings=torch.randn(3, 64)
    )
    seen = {}

    def unet(sample, timestep, text, *, added_time_ids, return_dict):
        seen.update(sample=sample, timestep=timestep, text=text, ids=added_time_ids)
        return (torch.zeros(3, 9, 4, 8, 8),)

    error = svd_train.loss_of(unet, data, torch.arange(3), torch.Generator().manual_seed(1))
    assert 0.7 < error < 1.3, "the target has variance 1 at every noise level"
    assert seen["sample"].shape == (3, 9, 8, 8, 8)
    kept = seen["text"][:, 0].abs().sum(1) > 0
    for row in range(3):
        expected = data.images[row] * kept[row]
        assert torch.equal(seen["sample"][row, 4, 4:], expected), "picture and embedding are dropped together"
    assert seen["ids"][:, 1:].tolist() == [[127.0, pytest.approx(0.02)]] * 3


def test_pictures_are_enlarged_and_standardised_as_the_pipeline_does(pipe):
    frames = digits.render(2, "test", seed=0).frames[:, 0]
    with torch.no_grad():
        expected = pipe._encode_image([Image.fromarray(frame) for frame in frames], "cpu", 1, False)[:, 0]
        found = pipe.image_encoder(svd_parts_train.pictures(frames)).image_embeds
    assert torch.allclose(found, expected, atol=1e-3)
    assert (found[0] - found[1]).abs().max() > 1e-2


def test_the_folder_is_a_plain_pipeline_of_diffusers(svd_folder):
    index = json.loads((svd_folder / "model_index.json").read_text())
    assert index["_class_name"] == "StableVideoDiffusionPipeline"
    assert {path.suffix for path in svd_folder.rglob("*") if path.is_file()} <= {".safetensors", ".json"}
    assert 0.1 < json.loads((svd_folder / "vae" / "config.json").read_text())["scaling_factor"] < 1e3
    assert models.entry(str(svd_folder)).depths == {"spatial": 9, "temporal": 9}


def test_a_video_follows_from_pair_and_picture(pipe):
    generator = Generator(pipe, models.entry("svd-tiny"), num_inference_steps=1)
    plain = GuidanceSpec(cfg_scale=1.5)
    both = generator.many(plain, [PAIR, OTHER])
    single = generator(plain, PAIR)
    assert single.video.frames.shape == (9, 64, 64, 3)
    assert (single.video.frames.int() - both[0].video.frames.int()).abs().max() <= 1
    other = Generator(
        pipe, models.entry("svd-tiny"), num_inference_steps=1, image_source=lambda _: Image.new("RGB", (64, 64))
    )
    assert not torch.equal(other(plain, PAIR).video.frames, single.video.frames)


def test_both_stacks_are_guided_and_cost_no_more_than_a_pass_each(pipe):
    terms = tuple(
        SkipTerm(name=stack, skip_layers={stack: (4,)}, skip_op="residual", stg_scale=0.5)
        for stack in ("spatial", "temporal")
    )
    spec = GuidanceSpec(cfg_scale=1.5, segments=(Segment(terms=terms),))
    made = Generator(pipe, models.entry("svd-tiny"), num_inference_steps=1)(spec, PAIR)
    assert min(made.effects["spatial"], made.effects["temporal"]) > 0
    assert 2 < made.forwards <= 4


def test_the_picture_of_a_pair_is_held_out_and_says_what_the_caption_says():
    picture = np.asarray(digits.first_frame(PAIR))
    assert np.array_equal(picture, np.asarray(digits.first_frame(PAIR)))
    assert not np.array_equal(picture, np.asarray(digits.first_frame(Pair(prompt=PAIR.prompt, seed=4))))
    near = np.square(picture.astype(float) - digits.RGB[0]).sum(-1) < 60**2
    assert 20 < near.sum() < 900, "strokes of the caption's colour"


def test_the_shipped_model_is_small_and_keeps_the_picture():
    files = [path for path in (WEIGHTS / "svd-tiny").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15 * 2**20
    entry = models.entry("svd-tiny")
    made = Generator(models.load(entry), entry)(GuidanceSpec(cfg_scale=entry.defaults.cfg_scale), PAIR)
    given = np.asarray(digits.first_frame(PAIR)).astype(float)
    assert np.abs(made.video.frames[0].numpy() - given).mean() / 255 < 0.08
