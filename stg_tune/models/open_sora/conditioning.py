"""Which frames of a video are given and which are made: the mask strategies of Open-Sora 1.2.

A strategy is six comma-separated numbers ``loop, reference, reference start, target start, length, edit ratio``;
several are joined by ``;``, missing ones at the end take the values 0, 0, 0, 0, 1, 0.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import torch
from diffusers.utils.torch_utils import randn_tensor

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.sizes import find_nearest_point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from stg_tune.models.open_sora.inputs import Generators
    from stg_tune.models.open_sora.schedule import OpenSoraScheduler


_STRATEGY = re.compile(r"\s*-?\d{1,9}(\s*,\s*-?\d{1,9}){0,4}\s*|(\s*-?\d{1,9}\s*,){5}\s*\d*\.?\d+\s*")


@dataclass(frozen=True, kw_only=True)
class MaskStrategy:
    """A piece of a reference video and the place it takes in the video to be made, in latent frames."""

    loop: int = 0
    """Pass of a long video in which it is used."""
    reference: int = 0
    """Index of the reference."""
    reference_start: int = 0
    """First frame of the piece; negative counts from the end."""
    target_start: int = 0
    """Frame of the new video it begins at; negative counts from the end."""
    length: int = 1
    """Frames."""
    edit_ratio: float = 0.0
    """0 keeps the piece as it is, 1 makes it anew; between, it is renoised to that share of the schedule."""

    def __post_init__(self) -> None:
        """Check the fields."""
        if min(self.loop, self.reference) < 0 or self.length < 1 or not 0 <= self.edit_ratio <= 1:
            raise StgTuneError(
                f"mask strategy {', '.join(map(str, astuple(self)))}: loop and reference are 0 or more, "
                "length is 1 or more, edit ratio is between 0 and 1"
            )


def parse_mask_strategy(text: str) -> list[MaskStrategy]:
    """Read ``0,0,0,0,1,0.3;0,1,0,-1,1``; an empty text is no strategy.

    Raises:
        StgTuneError: Not numbers, more than six of them, or out of range.
    """
    return [_parse_one(group) for group in text.split(";")] if text.strip() else []


def place_references(
    shape: Sequence[int],
    references: Sequence[Sequence[Tensor]],
    strategies: Sequence[Sequence[MaskStrategy]],
    *,
    loop: int = 0,
    align: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``conditioning_latents`` and ``conditioning_mask`` of ``OpenSoraPipeline`` that strategies describe.

    Args:
        shape: Latents to be made: ``(batch, channels, frames, height, width)``.
        references: For every video of the batch its references ``(channels, frames, height, width)``, normalised
            latents.
        strategies: For every video of the batch its strategies.
        loop: Pass of a long video; strategies of other passes are left out.
        align: Move starts to multiples of so many latent frames (5 keeps the chunks of the autoencoder whole).

    Returns:
        Latents of ``shape``, zero where nothing is given, and the mask ``(batch, frames)``, 1 where frames are made.

    Raises:
        StgTuneError: A reference that is not there or has another size, or a place outside the video.
    """
    latents, mask = torch.zeros(*shape), torch.ones(shape[0], shape[2])
    for row, (pool, plan) in enumerate(zip(references, strategies, strict=True)):
        for strategy in plan:
            if strategy.loop == loop:
                piece, start = _piece(strategy, pool, shape, align)
                latents[row, :, start : start + piece.shape[1]] = piece
                mask[row, start : start + piece.shape[1]] = strategy.edit_ratio
    return latents, mask


def spread_rows(values: Tensor, *, prompts: int, videos: int, name: str) -> Tensor:
    """Rows for every video from one row, one row a prompt, or one row a video.

    Raises:
        StgTuneError: Another number of rows.
    """
    if len(values) not in {1, prompts, videos}:
        raise StgTuneError(
            f"{name} has {len(values)} rows for {prompts} prompts and {videos} videos: give 1, {prompts} or {videos}"
        )
    return values.repeat_interleave(videos // len(values), 0)


def place_given(noise: Tensor, given: Tensor, mask: Tensor | None, *, prompts: int) -> tuple[Tensor, Tensor]:
    """Initial latents with the given frames in place, and the mask of every video.

    Args:
        noise: ``(videos, channels, frames, height, width)``.
        given: Normalised latents of the first frames, as many frames or fewer; 1 row, one a prompt or one
            a video.
        mask: ``(frames,)`` or ``(rows, frames)`` in [0, 1]; ``None``: 0 where frames are given, 1 elsewhere.
        prompts: Number of prompts of the call.

    Returns:
        Latents that hold a given frame wherever the mask is below 1, and the mask ``(videos, frames)``.

    Raises:
        StgTuneError: Shapes that do not fit, or a mask below 1 where nothing is given.
    """
    videos, channels, frames, *plane = noise.shape
    known = given.shape[2] if given.ndim == 5 else 0
    if not 0 < known <= frames or (given.shape[1], *given.shape[3:]) != (channels, *plane):
        raise StgTuneError(
            f"given latents have shape {tuple(given.shape)}, this call takes (rows, {channels}, 1 to {frames}, "
            f"{plane[0]}, {plane[1]})"
        )
    given = spread_rows(given.to(noise), prompts=prompts, videos=videos, name="given latents")
    mask = _full_mask(mask, noise, known, prompts)
    latents = torch.cat([given, noise[:, :, known:]], 2)
    return torch.where((mask < 1)[:, None, :, None, None], latents, noise), mask


class GivenFrames:
    """The given frames of a run: which of them carry noise already, and where fresh noise comes from.

    Args:
        scheduler: Gives the masked step.
        mask: ``(videos, frames)`` in [0, 1].
        generator: Source of the noise, one draw in the shape of the latents a step.
    """

    def __init__(self, scheduler: OpenSoraScheduler, mask: Tensor, generator: Generators) -> None:
        self.scheduler = scheduler
        self.mask = mask
        self.generator = generator
        self.noised = mask == 1

    def begin(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """The model's input for one step, and the bool ``(videos, frames)`` of the frames denoised in it."""
        noise = randn_tensor(tuple(latents.shape), generator=self.generator, device=latents.device, dtype=torch.float32)
        x, self.noised = self.scheduler.begin_masked_step(latents, noise, timestep, mask=self.mask, noised=self.noised)
        return x, self.noised


def _full_mask(mask: Tensor | None, noise: Tensor, known: int, prompts: int) -> Tensor:
    videos, frames = noise.shape[0], noise.shape[2]
    if mask is None:
        mask = torch.cat([torch.zeros(known), torch.ones(frames - known)])
    mask = (mask[None] if mask.ndim == 1 else mask).to(noise.device, torch.float32)
    if mask.ndim != 2 or mask.shape[1] != frames or not bool(((mask >= 0) & (mask <= 1)).all()):
        raise StgTuneError(
            f"conditioning_mask of shape {tuple(mask.shape)} must be ({frames},) or (videos, {frames}), one number in "
            "[0, 1] a latent frame"
        )
    if bool((mask[:, known:] < 1).any()):
        raise StgTuneError(f"conditioning_mask is below 1 after the {known} latent frames that are given: set it to 1")
    return spread_rows(mask, prompts=prompts, videos=videos, name="conditioning_mask")


def _parse_one(group: str) -> MaskStrategy:
    match = _STRATEGY.fullmatch(group)
    if match is None:
        raise StgTuneError(
            f"mask strategy {group!r} is not up to six numbers 'loop,reference,reference start,target start,length,"
            "edit ratio', e.g. '0,0,0,0,1,0'"
        )
    numbers = group.split(",")
    whole = [int(number) for number in numbers[:5]]
    loop, reference, reference_start, target_start, length = [*whole, *(0, 0, 0, 0, 1)[len(whole) :]]
    return MaskStrategy(
        loop=loop,
        reference=reference,
        reference_start=reference_start,
        target_start=target_start,
        length=length,
        edit_ratio=float(numbers[5]) if len(numbers) == 6 else 0.0,
    )


def _piece(
    strategy: MaskStrategy, pool: Sequence[Tensor], shape: Sequence[int], align: int | None
) -> tuple[Tensor, int]:
    if strategy.reference >= len(pool):
        raise StgTuneError(
            f"{strategy} names reference {strategy.reference}, but {len(pool)} are given (0 is the first)"
        )
    reference, frames = pool[strategy.reference], shape[2]
    if (reference.shape[0], *reference.shape[2:]) != (shape[1], *shape[3:]):
        raise StgTuneError(
            f"reference {strategy.reference} has shape {tuple(reference.shape)}, but the video needs "
            f"({shape[1]}, frames, {shape[3]}, {shape[4]}): scale it to the video's height and width"
        )
    begin = _start(strategy.reference_start, reference.shape[1], align, strategy)
    start = _start(strategy.target_start, frames, align, strategy)
    length = min(strategy.length, frames - start)
    return reference[:, begin : begin + length], start


def _start(start: int, frames: int, align: int | None, strategy: MaskStrategy) -> int:
    start = start + frames if start < 0 else start
    if not 0 <= start < frames:
        raise StgTuneError(f"{strategy} begins outside the {frames} latent frames there are")
    return start if align is None else find_nearest_point(start, align, frames)
