"""Trains the transformer and the text encoder of ``open-sora-tiny`` on cached latents."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional

from stg_tune.embedded import digits
from stg_tune.embedded.checkpoints import Loop, to_pixels
from stg_tune.embedded.text import MAX_LENGTH, WIDTH, build_encoder, build_tokenizer
from stg_tune.embedded.tutor import WEIGHT, Lesson, Tutor, lesson_of, listening_block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor
    from transformers import T5EncoderModel

    from stg_tune.models.open_sora.pipeline import OpenSoraPipeline
    from stg_tune.models.open_sora.schedule import OpenSoraScheduler
    from stg_tune.models.open_sora.transformer import STDiT3
    from stg_tune.models.open_sora.vae import OpenSoraVAE

    Tensors = tuple[Tensor, ...] | list[Tensor]

TRANSFORMER = {
    "input_sq_size": digits.SIZE,
    "hidden_size": 96,
    "depth": 8,
    "num_heads": 3,
    "caption_channels": WIDTH,
    "model_max_length": MAX_LENGTH,
}
"""Constructor arguments of ``STDiT3``: narrow rather than shallow, so that there are layers to choose from."""
SCHEDULER = {"use_timestep_transform": True, "transform_scale": 8.6}
"""``transform_scale`` gives 64x64 and 17 frames the shift (2.4) that Open-Sora 1.2 has at 240x426 and 51 frames."""
NUM_LATENTS = 5_000
PART, FIRST_SEED = 500, 10_000
"""Videos that are drawn and encoded at a time, and the seed of the first part."""
NUM_STEPS = 7_000
BATCH = 64
PEAK_RATE = 2e-3
EMA_DECAY = 0.998
CAPTION_DROPOUT = 0.1
_fused = functional.scaled_dot_product_attention


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Encoded videos with their captions."""

    latents: Tensor
    """(n, 4, 5, 8, 8), normalised."""
    captions: list[str]
    """(n,)."""
    lesson: Lesson
    """What the tutor asks about them."""


def cache_latents(vae: OpenSoraVAE, path: Path, count: int) -> Latents:
    """Latents of ``count`` renders of the train split; kept in ``path``, and extended when it holds fewer."""
    saved = torch.load(path, weights_only=True) if path.exists() else {"latents": [], "captions": []}
    while len(saved["captions"]) < count:
        batch = digits.render(PART, "train", seed=FIRST_SEED + len(saved["captions"]))
        saved["latents"].append(encode(vae, to_pixels(batch.frames)).half())
        saved["captions"] += batch.captions
        torch.save(saved, path)
    latents = torch.cat(saved["latents"])[:count].float()
    layouts = [digits.layout(PART, "train", seed=FIRST_SEED + start) for start in range(0, count, PART)]
    rows = torch.arange(count)
    return Latents(latents=latents, captions=saved["captions"][:count], lesson=lesson_of(layouts)[rows])


@torch.no_grad()
def encode(vae: OpenSoraVAE, videos: Tensor) -> Tensor:
    """Latents (n, 4, 5, 8, 8) of videos (n, 17, 3, 64, 64) in [-1, 1], drawn from the posterior."""
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([vae.encode(part.transpose(1, 2)) for part in videos.split(10)]).float()


def train_transformer(data: Latents, path: Path, *, steps: int) -> Trained:
    """Train (or go on with) transformer and text encoder; ``path`` is their checkpoint."""
    from stg_tune.models.open_sora.schedule import OpenSoraScheduler
    from stg_tune.models.open_sora.transformer import STDiT3

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    trained = Trained(STDiT3(**TRANSFORMER), build_encoder(len(tokenizer)), OpenSoraScheduler(**SCHEDULER))
    average = torch.optim.swa_utils.AveragedModel(trained.modules, multi_avg_fn=warm_average, use_buffers=False)
    optimiser = torch.optim.AdamW(trained.modules.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    listened = trained.transformer.temporal_blocks[listening_block(trained.transformer)]
    tutor = Tutor(listened, trained.transformer.hidden_size)
    tutor_optimiser = torch.optim.AdamW(tutor.parameters(), lr=PEAK_RATE)
    state = {
        "modules": trained.modules, "average": average, "optimiser": optimiser, "tutor": tutor,
        "tutor_optimiser": tutor_optimiser,
    }  # fmt: skip
    loop = Loop(path=path, state=state, steps=steps)
    loop.resume()
    tokens = tokenizer(data.captions, max_length=MAX_LENGTH, padding="max_length", truncation=True, return_tensors="pt")
    generator = torch.Generator().manual_seed(loop.step)

    def train_step(step: int) -> dict[str, float]:
        rows = torch.randint(len(data.latents), (BATCH,), generator=generator)
        for group in (*optimiser.param_groups, *tutor_optimiser.param_groups):
            group["lr"] = loop.learning_rate(peak=PEAK_RATE, warmup=300)
        ids, mask = tokens["input_ids"][rows], tokens["attention_mask"][rows]
        with torch.autocast("cpu", torch.bfloat16):
            loss, noise_level = trained.loss(data.latents[rows], ids, mask, generator)
            lesson = tutor.loss(data.lesson[rows], noise_level)
        optimiser.zero_grad(set_to_none=True)
        tutor_optimiser.zero_grad(set_to_none=True)
        (loss + WEIGHT * lesson).backward()
        norm = torch.nn.utils.clip_grad_norm_(trained.modules.parameters(), 1.0)
        optimiser.step()
        tutor_optimiser.step()
        average.update_parameters(trained.modules)
        return {"loss": loss.item(), "lesson": lesson.item(), "gradient": norm.item()}

    compile_blocks(trained.transformer)
    with plain_attention():
        loop.run(train_step)
    trained.modules.load_state_dict(average.module.state_dict())
    return Trained(uncompiled(trained.transformer), trained.text_encoder.eval(), trained.scheduler)


def compile_blocks(transformer: STDiT3) -> None:
    """Compile every block but the one that the tutor listens to."""
    listened = transformer.temporal_blocks[listening_block(transformer)]
    for block in (*transformer.spatial_blocks, *transformer.temporal_blocks):
        if block is not listened:
            block.compile()


@torch.no_grad()
def warm_average(averages: Tensors, weights: Tensors, count: Tensor | int) -> None:
    """Exponential average in place, shorter at first, so that it forgets the random weights of the beginning."""
    keep = min(EMA_DECAY, (1 + int(count)) / (10 + int(count)))
    for average, weight in zip(averages, weights, strict=True):
        average.lerp_(weight, 1 - keep)


@contextmanager
def plain_attention() -> Iterator[None]:
    """The transformer's attention written out: the fused one's backward pass takes most of a bfloat16 step on a CPU."""
    functional.scaled_dot_product_attention = cast("Any", _attend)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = _fused


def _attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    if any(options.values()):  # the text encoder's call, with a scale of its own
        return _fused(q, k, v, attn_mask=attn_mask, **options)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    mixed: Tensor = scores.softmax(-1).to(v.dtype) @ v
    return mixed


def uncompiled(transformer: STDiT3) -> STDiT3:
    """A copy of the model without compiled blocks, in eval mode."""
    copy: STDiT3 = type(transformer).from_config(transformer.config)
    copy.load_state_dict(transformer.state_dict())
    copy.eval()
    return copy


def assemble(trained: Trained, vae: OpenSoraVAE) -> OpenSoraPipeline:
    """The pipeline of the trained parts in bfloat16, which halves the files."""
    from stg_tune.models.open_sora.pipeline import OpenSoraPipeline

    return OpenSoraPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=trained.text_encoder.to(torch.bfloat16),
        vae=vae.to(torch.bfloat16),
        transformer=trained.transformer.to(torch.bfloat16),
        scheduler=trained.scheduler,
        default_height=digits.SIZE,
        default_width=digits.SIZE,
        default_num_frames=digits.NUM_FRAMES,
        default_fps=digits.FPS,
    )


class Trained:
    """What is trained together, and its loss."""

    def __init__(self, transformer: STDiT3, text_encoder: T5EncoderModel, scheduler: OpenSoraScheduler) -> None:
        self.modules = torch.nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder})
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.scheduler = scheduler

    def loss(self, latents: Tensor, ids: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mean squared error of the predicted velocity at random times (rectified flow, arXiv:2209.03003).

        Returns:
            The error, and the time of each row, 0 clean to 1 noise.
        """
        count = len(latents)
        noise = torch.randn(latents.shape, generator=generator)
        side = float(digits.SIZE)
        t = self.scheduler.sample_timesteps(
            count, generator=generator, height=side, width=side, num_frames=float(digits.NUM_FRAMES)
        )
        features = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        drop = torch.rand(count, 1, 1, generator=generator) < CAPTION_DROPOUT
        text = torch.where(drop, self.transformer.y_embedder.y_embedding, features)
        prediction = self.transformer(
            self.scheduler.add_noise(latents, noise, t),
            t,
            text[:, None],
            mask=mask,
            fps=torch.full((count,), float(digits.FPS)),
            height=torch.full((count,), side),
            width=torch.full((count,), side),
        )
        velocity = prediction[:, : latents.shape[1]]
        error = functional.mse_loss(velocity, self.scheduler.velocity(latents, noise))
        return error, t / self.scheduler.config.num_timesteps
