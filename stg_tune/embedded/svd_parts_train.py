"""Trains what lies around the U-Net of ``svd-tiny``: image encoder, and autoencoder with its temporal decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stg_tune.embedded import digits, vae_train
from stg_tune.embedded.checkpoints import Loop, to_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from diffusers import AutoencoderKLTemporalDecoder
    from torch import Tensor
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

STRIDE = 2
"""Every second frame of a render is shown: 9 frames, 4 a second."""
NUM_FRAMES = (digits.NUM_FRAMES + STRIDE - 1) // STRIDE
PICTURE = 224
"""Pixels a side of what the image encoder sees; the pipeline enlarges every picture to this."""
IMAGE_ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": PICTURE,
    "patch_size": 32,
    "projection_dim": 64,
}
"""Of ``CLIPVisionConfig``."""
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": digits.SIZE,
    "force_upcast": False,
}
"""Constructor arguments of ``AutoencoderKLTemporalDecoder``: the real 8x8 compression to 4 channels, narrow."""
PLACE_UNIT = 16.0


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Length of the stages."""

    image_encoder: int = 700
    """32 first frames a step."""
    vae_pictures: int = 2_200
    """20 single frames of as many videos a step: colours are learnt from many pictures."""
    vae_clips: int = 500
    """4 clips of 3 frames a step."""
    vae_videos: int = 150
    """2 whole videos a step."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Constructor arguments of the parts, and how much is rendered."""

    image_encoder: Mapping[str, Any] = field(default_factory=lambda: IMAGE_ENCODER)
    """Of ``CLIPVisionConfig``."""
    vae: Mapping[str, Any] = field(default_factory=lambda: VAE)
    """Of the autoencoder."""
    pool: int = 1_000
    """Videos rendered for a sitting; every sitting renders others."""
    pictures: int = 32
    """Of them in a step of the image encoder."""
    frames: int = 20
    """Single frames in a step of the autoencoder."""
    clips: int = 4
    """Clips of three frames in a step of the autoencoder."""


def frames_of(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Videos (n, 9, 64, 64, 3) of the train split."""
    return digits.render(count, "train", seed=seed).frames[:, ::STRIDE]


def build_image_encoder(config: Mapping[str, Any] = IMAGE_ENCODER) -> CLIPVisionModelWithProjection:
    """An untrained image encoder of CLIP."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))


def build_feature_extractor() -> CLIPImageProcessor:
    """CLIP's usual one: the pipeline uses nothing of it but mean and deviation."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": PICTURE}, crop_size={"height": PICTURE, "width": PICTURE})


def pictures(frames: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """What the pipeline makes of pictures (n, 64, 64, 3): (n, 3, 224, 224), enlarged and standardised."""
    extractor = build_feature_extractor()
    large = functional.interpolate(to_pixels(frames), size=PICTURE, mode="bicubic", align_corners=True)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (extractor.image_mean, extractor.image_std))
    return ((large + 1) / 2 - mean) / std


class Questions(nn.Module):
    """Digit, colour, place and size, asked of an embedding; thrown away after the training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.answers = nn.Linear(width, len(digits.DIGITS) + len(digits.COLOURS) + 3)

    def loss(self, embeddings: Tensor, plan: digits.Layout, rows: Tensor) -> Tensor:
        """Cross entropy of digit and colour, squared error of place and size."""
        digit, colour, place = self.answers(embeddings).float().split((len(digits.DIGITS), len(digits.COLOURS), 3), 1)
        centre = (torch.from_numpy(plan.centres[:, 0])[rows] - digits.SIZE / 2) / PLACE_UNIT
        side = (torch.from_numpy(plan.side)[rows] - sum(digits.DIGIT_PIXELS) / 2) / PLACE_UNIT
        right = functional.cross_entropy(digit, torch.from_numpy(plan.digit)[rows])
        right = right + functional.cross_entropy(colour, torch.from_numpy(plan.colour)[rows])
        return right + functional.mse_loss(place, torch.cat([centre, side[:, None]], 1))


def train_image_encoder(path: Path, steps: int, sizes: Sizes) -> CLIPVisionModelWithProjection:
    """Train (or go on with) the image encoder to tell what a first frame shows; frozen afterwards, as in SVD."""
    torch.manual_seed(0)
    encoder = build_image_encoder(sizes.image_encoder)
    questions = Questions(sizes.image_encoder["projection_dim"])
    weights = [*encoder.parameters(), *questions.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.01)
    loop = Loop(path=path, state={"encoder": encoder, "questions": questions, "optimiser": optimiser}, steps=steps)
    loop.resume()
    seed = 4000 + loop.step
    frames, plan = frames_of(sizes.pool, seed)[:, 0], digits.layout(sizes.pool, "train", seed=seed)
    stream = vae_train.rows_of(sizes.pool, sizes.pictures, seed)

    def train_step(step: int) -> dict[str, float]:
        for group in optimiser.param_groups:
            group["lr"] = loop.learning_rate(peak=1e-3)
        rows = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            loss = questions.loss(encoder(pictures(frames[rows.numpy()])).image_embeds, plan, rows)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        return {"loss": loss.item()}

    loop.run(train_step)
    return encoder.eval()


def train_vae(folder: Path, steps: Steps, sizes: Sizes) -> AutoencoderKLTemporalDecoder:
    """Train (or go on with) the autoencoder: single frames, clips of three frames, whole videos."""
    from diffusers import AutoencoderKLTemporalDecoder

    torch.manual_seed(0)
    vae: AutoencoderKLTemporalDecoder = AutoencoderKLTemporalDecoder(**sizes.vae)
    frames = Clips(pool=sizes.pool, length=1, count=sizes.frames)
    clips = Clips(pool=sizes.pool, length=3, count=sizes.clips)
    videos = Clips(pool=sizes.pool, length=NUM_FRAMES, count=2)
    _vae_stage(vae, folder / "svd_vae_pictures.ckpt.pt", steps.vae_pictures, frames, peak=2e-3)
    _vae_stage(vae, folder / "svd_vae_clips.ckpt.pt", steps.vae_clips, clips, peak=1e-3)
    _vae_stage(vae, folder / "svd_vae_videos.ckpt.pt", steps.vae_videos, videos, peak=1e-4)
    vae.eval()
    with torch.no_grad():
        pixels = to_pixels(frames_of(min(60, sizes.pool), 5000).reshape(-1, digits.SIZE, digits.SIZE, 3))
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in pixels.split(60)])
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return vae


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Cut from rendered videos, anew in every step."""

    pool: int
    """Videos to cut from."""
    length: int
    """Frames of a clip."""
    count: int
    """Clips at a time."""

    def stream(self, seed: int) -> Iterator[Tensor]:
        """Endless batches (count * length, 3, 64, 64) in [-1, 1], the frames of a clip in a row."""
        frames = frames_of(self.pool, 3000 + seed)
        starts = np.random.default_rng(seed)
        for rows in vae_train.rows_of(self.pool, self.count, seed):
            first = starts.integers(0, NUM_FRAMES - self.length + 1)
            clips = frames[rows.numpy(), first : first + self.length]
            yield to_pixels(clips.reshape(-1, digits.SIZE, digits.SIZE, 3))


def _vae_stage(vae: AutoencoderKLTemporalDecoder, path: Path, steps: int, clips: Clips, *, peak: float) -> None:
    def loss_of(frames: Tensor) -> tuple[Tensor, Tensor]:
        posterior = vae.encode(frames).latent_dist
        restored = vae.decode(posterior.sample(), num_frames=clips.length).sample
        return vae_train.pixel_loss(restored, frames), posterior.kl().sum() / posterior.mean.numel()

    vae_train.stage(vae, path, steps, clips.stream, loss_of, peak=peak)
