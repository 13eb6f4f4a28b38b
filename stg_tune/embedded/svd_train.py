"""Trains the U-Net of ``svd-tiny`` on cached latents: it continues a picture, and which way is left to chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from stg_tune.embedded import digits, svd_parts_train
from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.denoiser_train import cached, fresh_copy, train_averaged
from stg_tune.embedded.open_sora_train import plain_attention
from stg_tune.embedded.svd_parts_train import NUM_FRAMES, build_feature_extractor, frames_of, pictures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
    from torch import Tensor
    from transformers import CLIPVisionModelWithProjection

UNET: dict[str, Any] = {
    "sample_size": digits.SIZE // 8,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * 2,
    "up_block_types": ("CrossAttnUpBlockSpatioTemporal",) * 2,
    "block_out_channels": (64, 64),
    "layers_per_block": (1, 2),
    "num_attention_heads": (2, 2),
    "cross_attention_dim": svd_parts_train.IMAGE_ENCODER["projection_dim"],
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "num_frames": NUM_FRAMES,
}
"""Constructor arguments of ``UNetSpatioTemporalConditionModel``: 9 spatial and 9 temporal blocks on two levels, and one
layer less on the level of 8x8 latents, which costs most."""
SCHEDULER: dict[str, Any] = {
    "sigma_min": 0.02,
    "sigma_max": 80.0,
    "use_karras_sigmas": True,
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
"""Of ``EulerDiscreteScheduler``: that of SVD (arXiv:2311.15127) without its noisiest levels (its ``sigma_max`` is 700),
at which nothing of latents of 8x8 is left."""
NUM_LATENTS = 5_000
BATCH = 16
PEAK_RATE = 1e-3
DROPOUT = 0.1
"""Share of the rows without picture."""
LOG_SIGMA = (0.7, 1.6)
"""Mean and standard deviation of the logarithm of the noise level in training, those of SVD."""
MOTION_BUCKET, NOISE_AUGMENTATION = 127.0, 0.02
"""What the pipeline says unless it is told otherwise."""
FPS = digits.FPS // svd_parts_train.STRIDE
TOLD_FPS = (float(FPS - 1), 6.0)
"""Frames a second less one, as the pipeline says it: the true number, and that of its default of 7."""


@dataclass(frozen=True, kw_only=True)
class Steps(svd_parts_train.Steps):
    """Length of all stages."""

    denoiser: int = 3_500
    """The U-Net, 16 cached videos a step."""


@dataclass(frozen=True, kw_only=True)
class Sizes(svd_parts_train.Sizes):
    """Constructor arguments of all parts, and how many videos are rendered and encoded."""

    unet: Mapping[str, Any] = field(default_factory=lambda: UNET)
    """Of the U-Net."""
    latents: int = NUM_LATENTS
    """Encoded videos."""
    batch: int = BATCH
    """Of them in a step of the denoiser."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Encoded videos with their pictures."""

    latents: Tensor
    """(n, 9, 4, 8, 8), scaled to unit variance."""
    images: Tensor
    """(n, 4, 8, 8), the mode of the first frame's latents, not scaled."""
    embeddings: Tensor
    """(n, 64), of the first frame."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is trained before the U-Net."""

    vae: AutoencoderKLTemporalDecoder
    """The autoencoder, its scaling factor set."""
    image_encoder: CLIPVisionModelWithProjection
    """The image encoder."""


@torch.no_grad()
def encode(parts: Parts, number: int, seed: int) -> dict[str, Tensor]:
    """The videos of a seed as the fields of ``Data``, in half precision."""
    frames = frames_of(number, seed)
    pixels = to_pixels(frames)
    torch.manual_seed(seed)  # for the posterior too, so that a cache is the same however often it was ended
    first = pixels[:, 0] + NOISE_AUGMENTATION * torch.randn(pixels[:, 0].shape)
    with torch.autocast("cpu", torch.bfloat16):
        flat = [parts.vae.encode(part).latent_dist.sample() for part in pixels.flatten(0, 1).split(100)]
        images = [parts.vae.encode(part).latent_dist.mode() for part in first.split(100)]
        embeddings = [parts.image_encoder(pictures(part)).image_embeds for part in _split(frames[:, 0])]
    scaled = torch.cat(flat).float() * parts.vae.config.scaling_factor
    return {
        "latents": scaled.unflatten(0, (-1, NUM_FRAMES)).half(),
        "images": torch.cat(images).half(),
        "embeddings": torch.cat(embeddings).half(),
    }


def _split(frames: Any, size: int = 50) -> list[Any]:
    return [frames[first : first + size] for first in range(0, len(frames), size)]


def cache_data(parts: Parts, path: Path, count: int) -> Data:
    """``count`` encoded renders of the train split; kept in ``path``."""
    tensors = cached(path, count, lambda number, seed: encode(parts, number, seed))
    return Data(**{name: tensor.float() for name, tensor in tensors.items()})


def loss_of(unet: UNetSpatioTemporalConditionModel, data: Data, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of ``v = (noise - sigma x) / sqrt(sigma^2 + 1)`` (arXiv:2206.00364 with unit data variance).

    Args:
        unet: Sees ``(x + sigma noise) / sqrt(sigma^2 + 1)`` beside the picture's latents, and ``log(sigma) / 4``.
        data: The videos.
        rows: (batch,), which of them.
        generator: Of noise, noise levels and dropout.
    """
    latents, count = data.latents[rows], len(rows)
    noise = torch.randn(latents.shape, generator=generator)
    log_sigma = LOG_SIGMA[0] + LOG_SIGMA[1] * torch.randn(count, generator=generator)
    sigma = log_sigma.exp()[:, None, None, None, None]
    size = (sigma.square() + 1).sqrt()
    keep = (torch.rand(count, generator=generator) >= DROPOUT).float()
    images = (data.images[rows] * keep[:, None, None, None])[:, None].expand(-1, latents.shape[1], -1, -1, -1)
    prediction = unet(
        torch.cat([(latents + sigma * noise) / size, images], 2),
        log_sigma / 4,
        (data.embeddings[rows] * keep[:, None])[:, None],
        added_time_ids=time_ids(count, generator),
        return_dict=False,
    )[0]
    return functional.mse_loss(prediction.float(), (noise - sigma * latents) / size)


def time_ids(count: int, generator: torch.Generator) -> Tensor:
    """What the pipeline tells beside the picture (count, 3): frames a second less one, motion bucket, noise."""
    told = torch.tensor(TOLD_FPS)[torch.randint(len(TOLD_FPS), (count,), generator=generator)]
    return torch.stack([told, torch.full((count,), MOTION_BUCKET), torch.full((count,), NOISE_AUGMENTATION)], 1)


def train_unet(
    data: Data, path: Path, *, steps: int, sizes: Sizes | None = None, compiled: bool = True
) -> UNetSpatioTemporalConditionModel:
    """Train (or go on with) the U-Net; ``path`` is its checkpoint."""
    from diffusers import UNetSpatioTemporalConditionModel

    torch.manual_seed(0)
    sizes = sizes or Sizes()
    unet: UNetSpatioTemporalConditionModel = UNetSpatioTemporalConditionModel(**sizes.unet)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    if compiled:
        compile_blocks(unet)

    def losses(generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(data.latents), (sizes.batch,), generator=generator)
        return {"loss": loss_of(unet, data, rows, generator)}

    with plain_attention():
        train_averaged(unet, losses, path, steps=steps, peak_rate=PEAK_RATE)
    copy: UNetSpatioTemporalConditionModel = fresh_copy(unet)
    return copy


def compile_blocks(unet: UNetSpatioTemporalConditionModel) -> None:
    """Compile every transformer block and every residual block."""
    kinds = ("BasicTransformerBlock", "TemporalBasicTransformerBlock", "SpatioTemporalResBlock")
    for module in unet.modules():
        if type(module).__name__ in kinds:
            module.compile()


def assemble(unet: UNetSpatioTemporalConditionModel, parts: Parts) -> StableVideoDiffusionPipeline:
    """The pipeline of the trained parts in bfloat16, which halves the files."""
    from diffusers import EulerDiscreteScheduler, StableVideoDiffusionPipeline

    return StableVideoDiffusionPipeline(
        vae=parts.vae.to(torch.bfloat16),
        image_encoder=parts.image_encoder.to(torch.bfloat16),
        unet=unet.to(torch.bfloat16),
        scheduler=EulerDiscreteScheduler(**SCHEDULER),
        feature_extractor=build_feature_extractor(),
    )
