"""What a model family is, as records: the engine is shared, a new model adds data (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

RowOrder = Literal["cond_first", "uncond_first"]
Calls = Literal["batched", "separate"]
"""``batched``: prompted and negative rows in one call; ``separate``: the prompted call of a step, then the negative."""
Axes = Literal["all", "space", "time"]
"""What the tokens of one row of a self-attention are: the whole video, one frame, or one place through the frames."""
Latents = Literal["bcfhw", "bfchw", "bfhwc", "tokens"]
"""Dimensions of the latents: batch, channels, frames, height, width; ``tokens``: ``(batch, frames * height * width,
channels)`` with the three numbers as arguments ``num_frames``, ``height``, ``width`` of the call."""
Text = Literal["none", "after", "before"]
"""Where the text tokens lie in the sequence of a self-attention, as seen from the video tokens."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One list of blocks whose members can be skipped."""

    name: str
    """What specifications, YAML files and presets call it: ``spatial``, ``temporal``, ``joint``."""
    path: str
    """Dotted path of the ``ModuleList`` inside the denoiser. A ``*`` stands for every index of a list on the way;
    several paths, separated by commas, are one stack in that order."""
    attention: str = "attn"
    """Dotted path of the self-attention inside a block; several are separated by commas (video and audio)."""
    streams: int = 1
    """A block returns its first so many arguments, changed: 1 is a bare tensor, 2 a tuple (video, text), ..."""
    text: Text = "none"
    """Whether the attention is joint: where the text tokens lie."""
    axes: Axes = "all"
    """What the attention runs over, in order frames, height, width."""
    feed_forward: str = ""
    """Dotted paths of the feed-forwards inside a block, separated by commas (video and text); empty: they cannot be
    skipped alone."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How the blocks of a family lie and how its pipeline calls the denoiser."""

    family: str
    """``open-sora``, ``mochi``, ..."""
    pipeline: str
    """``module:class`` of the diffusers pipeline."""
    denoiser: str
    """Attribute of the pipeline that holds the denoiser."""
    stacks: tuple[Stack, ...]
    """The stacks; see ``interleaved`` for their order of execution."""
    interleaved: bool
    """True: block 0 of every stack in turn, then block 1, ...; False: one stack after the other."""
    rows: RowOrder
    """Order of the rows when the pipeline batches both predictions in one call."""
    prediction_channels: int | None = None
    """Only the first so many channels (dim 1) of the output are the prediction; ``None``: all of them."""
    variants: tuple[str, ...] = ()
    """Names of further pipeline classes of the family: image to video, ..."""
    calls: Calls = "batched"
    """How the pipeline asks for the prompted and the negative prediction."""
    experts: tuple[str, ...] = ()
    """Attributes of further denoisers with the same blocks, each for its part of the schedule; absent ones are fine."""
    scale_names: tuple[str, ...] = ("guidance_scale",)
    """Dotted attributes of the pipeline with its own CFG scale, one for the denoiser and one for each expert."""
    scale_offset: float = 0.0
    """What to add to the pipeline's scale to get ``g`` of eq. 6 (1 where it computes ``c + scale (c - u)``)."""
    wide: bool = False
    """The pipeline itself goes to float32 before guidance: it is given predictions that are not rounded back."""
    clock: Literal["timestep", "scheduler"] = "timestep"
    """How the step is known: by the timestep the denoiser receives, or, where that is another quantity, by the
    scheduler's ``step_index``."""
    unet: bool = False
    """The blocks lie in a U-Net with skip connections, so prefix reuse replays its modules (``guidance/replay.py``)."""
    side_outputs: int = 0
    """So many further predictions follow the first in the output (audio); eq. 6 is left to the pipeline for them."""
    own_passes: tuple[str, ...] = ()
    """Arguments by which the pipeline marks calls for its own extra guidance passes."""
    latents: Latents = "bcfhw"
    """How the latents reach the denoiser; patches are read from its configuration."""
    converts: bool = False
    """The pipeline turns the prediction into another quantity before the scheduler gets it (EDM preconditioning)."""
    own_stg: str = ""
    """The argument by which it marks a pass of its own skip guidance; empty: it has none."""


@dataclass(frozen=True, kw_only=True)
class GenerationDefaults:
    """How a model is run unless the user says otherwise."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    num_frames: int
    """Frames of the video."""
    num_inference_steps: int
    """Denoising steps."""
    cfg_scale: float
    """The model's published guidance scale."""
    fps: int
    """Frames per second."""


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One name that ``--model`` takes."""

    name: str
    """``open-sora``, ``open-sora-tiny``, ..."""
    architecture: Architecture
    """Blocks and call pattern."""
    depths: Mapping[str, int]
    """Stack name -> number of blocks."""
    defaults: GenerationDefaults
    """Resolution, length, steps, guidance scale."""
    source: str
    """Where the weights are, in words: hub ids with revisions, or ``embedded``."""
    loader: str
    """``module:function``; ``function(entry, path: Path | None) -> DiffusionPipeline``."""
    embedded: bool
    """True when the weights ship with the package."""
    summary: str
    """One line for ``stg-tune models``."""
    batch: int = 1
    """Videos of one setting that a search generates at once; more pays off where one video leaves the machine idle."""
    least_steps: int = 1
    """Denoising steps that the pipeline cannot do with fewer of."""
    fetcher: str = ""
    """``module:function``; ``function(entry, path: Path | None)`` has all files on this machine; empty: they are."""
    repository: str = ""
    """``owner/name`` on the Hugging Face hub, where one repository holds a whole pipeline of diffusers."""
    image_source: str = ""
    """``module:function``; ``function(pair) -> PIL.Image``, what a model that continues a picture is given for a test
    case; empty: the model takes no picture."""
