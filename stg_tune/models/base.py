"""What a model family is, as records: the engine is shared, a new model adds data (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

RowOrder = Literal["cond_first", "uncond_first"]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One list of blocks whose members can be skipped."""

    name: str
    """What specifications, YAML files and presets call it: ``spatial``, ``temporal``, ``joint``."""
    path: str
    """Dotted path of the ``ModuleList`` inside the denoiser."""
    attention: str = "attn"
    """Dotted path of the self-attention inside a block."""
    streams: int = 1
    """A block returns its first so many arguments, changed: 1 is a bare tensor, 2 a tuple (video, text), ..."""


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
