"""What ``OpenSoraPipeline`` is called with: the size of a video as the model reads it, and checks of the arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.sizes import IMAGE_FPS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
"""Forms in which the pipeline returns its videos."""

Generators = torch.Generator | list[torch.Generator] | None
"""One generator for the batch, one for every video, or torch's global one."""


@dataclass(frozen=True, kw_only=True)
class VideoSize:
    """Size of one video and its frame rate."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    num_frames: int
    """Frames; 1 is an image."""
    fps: int
    """Frames per second."""

    def __post_init__(self) -> None:
        """Check the fields."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise StgTuneError(f"{field.name} must be a whole number, 1 or more, got {value!r}")

    def conditions(self, rows: int, *, dtype: torch.dtype, device: torch.device | None = None) -> dict[str, Tensor]:
        """``height``, ``width``, ``num_frames``, ``ar`` (height / width) and ``fps`` as tensors ``(rows,)``.

        A single image has 120 frames per second. In bfloat16 a width of 854 becomes 856, as in Open-Sora itself.
        """
        values = {
            "height": self.height,
            "width": self.width,
            "num_frames": self.num_frames,
            "ar": self.height / self.width,
            "fps": self.fps if self.num_frames > 1 else IMAGE_FPS,
        }
        return {name: torch.full((rows,), value, dtype=dtype, device=device) for name, value in values.items()}


def as_prompts(prompt: str | Sequence[str] | None, name: str = "prompt") -> list[str] | None:
    """One prompt or several as a list.

    Raises:
        StgTuneError: Neither text nor a list of texts, or an empty list.
    """
    if prompt is None:
        return None
    prompts = [prompt] if isinstance(prompt, str) else list(prompt) if isinstance(prompt, list | tuple) else []
    if not prompts or not all(isinstance(text, str) for text in prompts):
        raise StgTuneError(f"{name} must be a text or a list of texts, got {prompt!r:.80}")
    return prompts


def as_negatives(prompt: str | Sequence[str] | None, embeds: Tensor | None, count: int) -> list[str] | None:
    """Negative prompts, one a prompt.

    Raises:
        StgTuneError: Both forms are given, or another number than 1 or ``count``.
    """
    prompts = as_prompts(prompt, "negative_prompt")
    if prompts is not None and embeds is not None:
        raise StgTuneError("give either negative_prompt or negative_prompt_embeds, not both")
    if prompts is not None and len(prompts) not in {1, count}:
        raise StgTuneError(f"{len(prompts)} negative prompts for {count} prompts: give 1 or {count}")
    return prompts if prompts is None or len(prompts) == count else prompts * count


def count_prompts(prompts: Sequence[str] | None, embeds: Tensor | None) -> int:
    """Number of prompts in a call.

    Raises:
        StgTuneError: Neither or both forms are given.
    """
    if prompts is not None and embeds is None:
        return len(prompts)
    if embeds is not None and prompts is None:
        return len(embeds)
    given = "neither" if prompts is None else "both"
    raise StgTuneError(f"give either prompt or prompt_embeds with prompt_attention_mask; {given} is given")


def check_output(output_type: str, tensor_inputs: Collection[str], allowed: Collection[str]) -> None:
    """Raise ``StgTuneError`` for an unknown output type or a tensor that callbacks cannot have."""
    if output_type not in OUTPUT_TYPES:
        raise StgTuneError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}")
    if unknown := sorted(set(tensor_inputs) - set(allowed)):
        raise StgTuneError(
            f"callback_on_step_end_tensor_inputs: unknown {unknown[0]!r}; callbacks can have {', '.join(allowed)}"
        )


def check_numbers(num_inference_steps: int, guidance_scale: float, num_videos_per_prompt: int) -> None:
    """Raise ``StgTuneError`` for counts below 1 and a guidance scale that is not finite."""
    for name, value in (("num_inference_steps", num_inference_steps), ("num_videos_per_prompt", num_videos_per_prompt)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise StgTuneError(f"{name} must be a whole number, 1 or more, got {value!r}")
    if not math.isfinite(guidance_scale):
        raise StgTuneError(f"guidance_scale must be a finite number (1 switches guidance off), got {guidance_scale!r}")


def checked_embeds(
    embeds: Tensor | None, mask: Tensor | None, shape: tuple[int, int, int, int], *, name: str
) -> tuple[Tensor, Tensor]:
    """Text features of ``shape``, (prompts, 1, tokens, channels), and their mask, (prompts, tokens).

    Raises:
        StgTuneError: Another shape, or no mask.
    """
    if embeds is None or tuple(embeds.shape) != shape:
        found = None if embeds is None else tuple(embeds.shape)
        raise StgTuneError(f"{name}_embeds has shape {found}, this call needs {shape}: (prompts, 1, tokens, channels)")
    if mask is None or tuple(mask.shape) != (shape[0], shape[2]):
        wanted, found = (shape[0], shape[2]), None if mask is None else tuple(mask.shape)
        raise StgTuneError(f"{name}_attention_mask has shape {found}, this call needs {wanted}: (prompts, tokens)")
    return embeds, mask


def check_conditioning(frames: object, latents: Tensor | None, mask: Tensor | None) -> None:
    """Raise ``StgTuneError`` for given frames in two forms at once, and for a mask without given frames."""
    if frames is not None and latents is not None:
        raise StgTuneError("give either conditioning_frames or conditioning_latents, not both")
    if mask is not None and frames is None and latents is None:
        raise StgTuneError("conditioning_mask needs conditioning_frames or conditioning_latents")


def check_latents(latents: Tensor, shape: Sequence[int], *, exact: bool) -> None:
    """Raise ``StgTuneError`` unless latents have the batch and channels (``exact``: the whole shape) of ``shape``."""
    same = tuple(latents.shape) == tuple(shape) if exact else tuple(latents.shape[:2]) == tuple(shape[:2])
    if latents.ndim != 5 or not same:
        raise StgTuneError(
            f"latents has shape {tuple(latents.shape)}, this call needs {tuple(shape)}: "
            "(videos, channels, latent frames, height / 8, width / 8)"
        )


def check_generators(generator: Generators, videos: int) -> None:
    """Raise ``StgTuneError`` unless a list holds one generator a video."""
    if isinstance(generator, list) and len(generator) != videos:
        raise StgTuneError(
            f"{len(generator)} generators for {videos} videos: give one generator, or a list of {videos} "
            "(prompts times num_videos_per_prompt)"
        )
