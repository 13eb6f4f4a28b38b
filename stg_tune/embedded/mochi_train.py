"""Trains ``mochi-tiny``: autoencoder, then transformer and text encoder on cached latents."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from stg_tune.embedded import digits, vae_train
from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.denoiser_train import cached, fresh_copy, parts_of, train_averaged
from stg_tune.embedded.joint_attention import JointAttention
from stg_tune.embedded.text import MAX_LENGTH, WIDTH, build_encoder, build_tokenizer
from stg_tune.embedded.tutor import WEIGHT, Lesson, Tutor, lesson_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from diffusers import AutoencoderKLMochi, MochiPipeline, MochiTransformer3DModel
    from torch import Tensor
    from transformers import T5EncoderModel

NUM_FRAMES = 19
"""6 k + 1, so that the latents are whole: one for the first frame, one for each six that follow."""
CLIP_FRAMES = 7
"""Two latents."""
FRAMES_PER_LATENT = 6
CHANNELS = 12
"""Of a latent; the pipeline asks for just these."""
VAE: dict[str, Any] = {
    "encoder_block_out_channels": (32, 32, 64, 96),
    "decoder_block_out_channels": (32, 32, 64, 96),
    "layers_per_block": (0, 1, 1, 1, 1),
    "add_attention_block": (False,) * 5,
    "latents_mean": (0.0,) * CHANNELS,
    "latents_std": (1.0,) * CHANNELS,
}
"""Constructor arguments of ``AutoencoderKLMochi``: the real 8x8 pixels and 6 frames a latent, narrow, no layer at the
full resolution, which would take most of the time."""
TRANSFORMER: dict[str, Any] = {
    "num_layers": 12,
    "num_attention_heads": 3,
    "attention_head_dim": 32,
    "pooled_projection_dim": 64,
    "in_channels": CHANNELS,
    "text_embed_dim": WIDTH,
    "time_embed_dim": 64,
    "max_sequence_length": MAX_LENGTH,
}
"""Constructor arguments of ``MochiTransformer3DModel``: narrow rather than shallow."""
SCHEDULER = {"invert_sigmas": True}
"""Of ``FlowMatchEulerDiscreteScheduler``, as in Mochi: the timestep grows from 0 (noise) to 1000 (clean)."""
NUM_LATENTS = 5_000
BATCH = 64
PEAK_RATE = 2e-3
CAPTION_DROPOUT = 0.1
SHIFT = 3.0
"""Of the noise levels drawn in training towards 1."""
NOISY_SHARE = 0.125
"""Share of the rows drawn from the noisiest twentieth, in which the pipeline makes half of its steps."""
ROPE_SPACING = 48.0
"""Distance of two tokens of a 4x4 grid in the model's own coordinates (an area of 192x192)."""
ROPE_SPAN = (0.1, 2.8)
"""Least and greatest angle between neighbouring tokens, radians."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Length of the stages."""

    vae_clips: int = 2_200
    """The autoencoder, 6 clips of 7 frames a step: colours are learnt from many videos."""
    vae: int = 300
    """The autoencoder, 2 whole videos a step."""
    denoiser: int = 5_500
    """Transformer and text encoder, 64 cached videos a step."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Constructor arguments of the parts, and how many videos are encoded."""

    vae: Mapping[str, Any] = field(default_factory=lambda: VAE)
    """Of the autoencoder."""
    transformer: Mapping[str, Any] = field(default_factory=lambda: TRANSFORMER)
    """Of the transformer."""
    latents: int = NUM_LATENTS
    """Encoded videos."""
    batch: int = BATCH
    """Of them in a step of the denoiser."""
    clips: int = 6
    """Clips in a step of the autoencoder."""
    pool: int = 1_500
    """Videos that a sitting of the autoencoder's training renders; every sitting renders others."""


def train_vae(folder: Path, steps: Steps, sizes: Sizes | None = None) -> AutoencoderKLMochi:
    """Train (or go on with) the autoencoder, on clips and then on whole videos; ``folder`` holds its checkpoints."""
    from diffusers import AutoencoderKLMochi

    torch.manual_seed(0)
    sizes = sizes or Sizes()
    vae: AutoencoderKLMochi = AutoencoderKLMochi(**sizes.vae)

    def loss_of(videos: Tensor) -> tuple[Tensor, Tensor]:
        posterior = vae.encode(videos).latent_dist
        restored = vae.decode(posterior.sample()).sample
        return vae_train.pixel_loss(restored, videos), posterior.kl().sum() / posterior.mean.numel()

    clips = partial(_stream, sizes.pool, CLIP_FRAMES, sizes.clips)
    videos = partial(_stream, sizes.pool, NUM_FRAMES, 2)
    vae_train.stage(vae, folder / "mochi_vae_clips.ckpt.pt", steps.vae_clips, clips, loss_of, peak=2e-3)
    vae_train.stage(vae, folder / "mochi_vae.ckpt.pt", steps.vae, videos, loss_of, peak=3e-4)
    vae.eval()
    _normalise(vae, min(100, sizes.pool))
    return vae


def _stream(pool: int, length: int, count: int, seed: int) -> Iterator[Tensor]:
    """Endless batches (count, 3, length, 64, 64) in [-1, 1], cut anew from rendered videos."""
    frames = digits.render(pool, "train", seed=3000 + seed, num_frames=NUM_FRAMES).frames
    starts = np.random.default_rng(seed)
    for rows in vae_train.rows_of(pool, count, seed):
        first = starts.integers(0, NUM_FRAMES - length + 1)
        yield to_pixels(frames[rows.numpy(), first : first + length]).transpose(1, 2)


@torch.no_grad()
def _normalise(vae: AutoencoderKLMochi, num_videos: int) -> None:
    """Write mean and standard deviation of every latent channel into the config, where the pipeline looks."""
    frames = digits.render(num_videos, "train", seed=5000, num_frames=NUM_FRAMES).frames
    parts = [vae.encode(part.transpose(1, 2)).latent_dist.mode() for part in to_pixels(frames).split(10)]
    latents = torch.cat(parts)
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist(), scaling_factor=1.0)


@torch.no_grad()
def encode(vae: AutoencoderKLMochi, videos: Tensor) -> Tensor:
    """Normalised latents (n, 12, 4, 8, 8) of videos (n, 19, 3, 64, 64) in [-1, 1], drawn from the posterior."""
    with torch.autocast("cpu", torch.bfloat16):
        parts = [vae.encode(part.transpose(1, 2)).latent_dist.sample() for part in videos.split(10)]
    mean, std = (torch.tensor(numbers)[:, None, None, None] for numbers in _spread(vae))
    return (torch.cat(parts).float() - mean) / std


def _spread(vae: AutoencoderKLMochi) -> tuple[list[float], list[float]]:
    return list(vae.config.latents_mean), list(vae.config.latents_std)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Encoded videos, what they show and what the tutor asks."""

    latents: Tensor
    """(n, 12, 4, 8, 8), normalised."""
    captions: list[str]
    """(n,)."""
    lesson: Lesson
    """(n, 64 tokens)."""


def cache_data(vae: AutoencoderKLMochi, path: Path, count: int) -> Data:
    """``count`` encoded renders of the train split; kept in ``path``."""

    def make(number: int, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)  # for the posterior, so that a cache is the same however often it was ended
        frames = digits.render(number, "train", seed=seed, num_frames=NUM_FRAMES).frames
        return {"latents": encode(vae, to_pixels(frames)).half()}

    latents = cached(path, count, make)["latents"].float()
    layouts = [digits.layout(number, "train", seed, num_frames=NUM_FRAMES) for number, seed in parts_of(count)]
    captions = [text for plan in layouts for text in digits.captions_of(plan)]
    return Data(latents=latents, captions=captions, lesson=lesson_of(layouts, frames_per_latent=FRAMES_PER_LATENT))


class Trained:
    """What is trained together, and its loss."""

    def __init__(self, transformer: MochiTransformer3DModel, text_encoder: T5EncoderModel) -> None:
        self.modules = torch.nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder})
        self.transformer = transformer
        self.text_encoder = text_encoder
        empty = build_tokenizer()("", max_length=MAX_LENGTH, padding="max_length", return_tensors="pt")
        self._empty = empty["input_ids"][0], empty["attention_mask"][0]

    def loss(self, latents: Tensor, ids: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mean squared error of the velocity towards the clean latents (rectified flow, arXiv:2209.03003).

        Returns:
            The error, and the noise level of each row, 0 clean to 1 noise.
        """
        noise = torch.randn(latents.shape, generator=generator)
        level = noise_levels(len(latents), generator)
        share = level[:, None, None, None, None]
        drop = torch.rand(len(latents), 1, generator=generator) < CAPTION_DROPOUT
        ids, mask = torch.where(drop, self._empty[0], ids), torch.where(drop, self._empty[1], mask)
        velocity = self.transformer(
            hidden_states=(1 - share) * latents + share * noise,
            encoder_hidden_states=self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state,
            timestep=1000 * (1 - level),
            encoder_attention_mask=mask.bool(),
            return_dict=False,
        )[0]
        return functional.mse_loss(velocity.float(), latents - noise), level


def noise_levels(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,), 0 clean to 1 noise: shifted towards the noise, some from its last twentieth."""
    uniform = torch.rand(count, generator=generator)
    shifted = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
    last = torch.rand(count, generator=generator) < NOISY_SHARE
    return torch.where(last, 0.95 + 0.05 * uniform, shifted)


def build_transformer(config: Mapping[str, Any] = TRANSFORMER) -> MochiTransformer3DModel:
    """An untrained transformer in which every block begins as the identity and positions are told apart.

    The class itself leaves all rotary frequencies at 0, so that no token would know its place. They are set here and
    not trained: positions of 72 would turn a small step of a frequency into a large angle.
    """
    from diffusers import MochiTransformer3DModel

    model: MochiTransformer3DModel = MochiTransformer3DModel(**config)
    frequencies = model.pos_frequencies.requires_grad_(False)
    _, heads, pairs = frequencies.shape
    axes = functional.normalize(torch.randn(3, heads, pairs), dim=0)
    angles = torch.logspace(math.log10(ROPE_SPAN[0]), math.log10(ROPE_SPAN[1]), pairs)
    scale = torch.tensor([1.0, 1 / ROPE_SPACING, 1 / ROPE_SPACING])[:, None, None]
    frequencies.copy_(axes * angles * scale)
    for block in model.transformer_blocks:
        torch.nn.init.zeros_(block.norm1.linear.weight)
        torch.nn.init.zeros_(block.norm1.linear.bias)
    torch.nn.init.zeros_(model.proj_out.weight)
    torch.nn.init.zeros_(model.proj_out.bias)
    return model


def train_transformer(
    data: Data, path: Path, *, steps: int, sizes: Sizes | None = None, compiled: bool = True
) -> Trained:
    """Train (or go on with) transformer and text encoder; ``path`` is their checkpoint."""
    torch.manual_seed(0)
    sizes = sizes or Sizes()
    config, tokenizer = sizes.transformer, build_tokenizer()
    trained = Trained(build_transformer(config), build_encoder(len(tokenizer)))
    blocks = trained.transformer.transformer_blocks
    middle = len(blocks) // 2 - 1
    tutor = Tutor(blocks[middle], config["num_attention_heads"] * config["attention_head_dim"])
    tokens = tokenizer(data.captions, max_length=MAX_LENGTH, padding="max_length", truncation=True, return_tensors="pt")
    processor = JointAttention()
    for number, block in enumerate(blocks):
        block.attn1.processor = processor
        if compiled and number != middle:
            block.compile()

    def loss_of(generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(data.latents), (sizes.batch,), generator=generator)
        ids, mask = tokens["input_ids"][rows], tokens["attention_mask"][rows]
        loss, level = trained.loss(data.latents[rows], ids, mask, generator)
        return {"loss": loss, "lesson": WEIGHT * tutor.loss(data.lesson[rows], level)}

    train_averaged(trained.modules, loss_of, path, steps=steps, peak_rate=PEAK_RATE, helpers=tutor)
    return Trained(fresh_copy(trained.transformer), trained.text_encoder.eval())


def assemble(trained: Trained, vae: AutoencoderKLMochi) -> MochiPipeline:
    """The pipeline of the trained parts in bfloat16, which halves the files."""
    from diffusers import FlowMatchEulerDiscreteScheduler, MochiPipeline

    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=vae.to(torch.bfloat16),
        text_encoder=trained.text_encoder.to(torch.bfloat16),
        tokenizer=build_tokenizer(),
        transformer=trained.transformer.to(torch.bfloat16),
    )
