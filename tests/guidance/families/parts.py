"""What the tiny pipelines are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from torch import nn

from stg_tune.guidance.families import architecture_of

if TYPE_CHECKING:
    from collections.abc import Callable


class TinyVae(nn.Module):
    """Averages pixels: enough for pipelines that encode an image, decode nothing and read a few numbers."""

    def __init__(self, channels, *, spatial=8, temporal=4, statistics=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.channels, self.spatial_compression_ratio, self.temporal_compression_ratio = channels, spatial, temporal
        self.temperal_downsample = [False, True, True]
        self.register_buffer("latents_mean", torch.zeros(statistics or channels))
        self.register_buffer("latents_std", torch.ones(statistics or channels))
        self.mel_compression_ratio = 4
        self.config = SimpleNamespace(
            scaling_factor=1.0, latent_channels=channels, z_dim=channels, mel_bins=8, sample_rate=16000,
            mel_hop_length=160, latents_mean=[0.0] * channels, latents_std=[1.0] * channels,
            block_out_channels=(1, 2, 4, 8), temporal_compression_ratio=temporal, spatial_compression_ratio=spatial,
            scale_factor_temporal=temporal, scale_factor_spatial=spatial, invert_scale_latents=False,
        )  # fmt: skip

    @property
    def dtype(self):
        return self.weight.dtype

    @property
    def device(self):
        return self.weight.device

    def encode(self, x):
        dtype, x = x.dtype, x.float()
        if x.dim() == 4:
            latents = nn.functional.avg_pool2d(x, self.spatial_compression_ratio)
        else:
            frames = 1 + (x.shape[2] - 1) // self.temporal_compression_ratio
            picked = x[:, :, :: self.temporal_compression_ratio][:, :, :frames]
            latents = nn.functional.avg_pool3d(picked, (1, *[self.spatial_compression_ratio] * 2))
        latents = latents.mean(1, keepdim=True).repeat_interleave(self.channels, 1).to(dtype)
        mode = SimpleNamespace(mode=lambda: latents, sample=lambda *_, **__: latents)
        return SimpleNamespace(latent_dist=mode)


class Lenient(nn.Module, diffusers.ConfigMixin):
    """Takes the place of a safety checker."""

    config_name = "config.json"
    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.register_to_config()

    def check_text_safety(self, _prompt):
        return True


@dataclass(kw_only=True)
class Case:
    """One pipeline class of a family in tiny form."""

    name: str
    pipeline: str
    build: Callable[[], Any]
    inputs: Callable[[int, float], dict[str, Any]]
    """Keyword arguments for so many prompts and a guidance scale."""
    cfg: float = 4.0
    """Guidance scale of the pipeline in its own convention."""
    layers: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"blocks": (1,)})
    batch: bool = True
    """Whether the pipeline takes several prompts."""
    change: Callable[[Any], None] | None = None
    """What is done to the pipeline when it is made: adapters, other linear layers."""

    def pipe(self):
        torch.manual_seed(0)
        pipe = self.build()
        for component in pipe.components.values():
            if isinstance(component, nn.Module) and not isinstance(component, TinyVae):
                component.eval().requires_grad_(requires_grad=False)
        for denoiser in self.denoisers(pipe):
            liven(denoiser)
        pipe.set_progress_bar_config(disable=True)
        if self.change is not None:
            self.change(pipe)
        return pipe

    def denoisers(self, pipe):
        record = architecture_of(pipe)
        found = [getattr(pipe, name, None) for name in (record.denoiser, *record.experts)]
        return [denoiser for denoiser in found if denoiser is not None]

    def run(self, pipe, *, prompts=1, cfg=None, **more):
        inputs = self.inputs(prompts, self.cfg if cfg is None else cfg)
        if cfg is not None and getattr(pipe, "guider", None) is not None:
            pipe.guider = pipe.guider.new(guidance_scale=cfg)
        out = pipe(**{**inputs, **more}, output_type="latent", return_dict=False)
        out = out if isinstance(out, torch.Tensor) else out[0]
        return out if isinstance(out, torch.Tensor) else torch.cat(list(out))


def liven(denoiser):
    """Gates, tables and last layers that start at zero would hide every skipped layer."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in denoiser.named_parameters():
        if weight.std() == 0 or "scale_shift_table" in name or weight.dim() == 1:
            noise = torch.randn(weight.shape, generator=generator) * 0.3
            weight.data.add_(noise.to(weight.dtype))


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def per_prompt(n, *shape, seed=0):
    """Rows that do not depend on how many there are."""
    return torch.cat([rand(1, *shape, seed=seed + 10 * k) for k in range(n)])


def valid(n, length, dtype=torch.int64, *, first=5):
    return torch.tensor([[position < first + 3 * (k % 3) for position in range(length)] for k in range(n)]).to(dtype)


def texts(n, *shape, seed=3):
    return {"prompt_embeds": per_prompt(n, *shape, seed=seed), "negative_prompt_embeds": per_prompt(n, *shape, seed=77)}


def masks(n, length, dtype=torch.int64):
    return {
        "prompt_attention_mask": valid(n, length, dtype),
        "negative_prompt_attention_mask": valid(n, length, dtype, first=3),
    }


def flow(**config):
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


def without(pipeline, *names, **parts):
    return getattr(diffusers, pipeline)(**dict.fromkeys(names), **parts)


TEXT = ("tokenizer", "text_encoder")
TEXTS = (*TEXT, "tokenizer_2", "text_encoder_2")
