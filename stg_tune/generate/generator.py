"""(pipeline, specification, pair) -> video. Noise, and the picture if the model takes one, depend on the pair alone."""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor

from stg_tune.errors import StgTuneError
from stg_tune.generate.memory import keep_freed_memory
from stg_tune.guidance import guided
from stg_tune.guidance.checks import spec_of
from stg_tune.models.base import GenerationDefaults, ModelEntry
from stg_tune.video import Video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from PIL.Image import Image

    from stg_tune.guidance.effects import GuidedRun
    from stg_tune.records import GuidanceSpec, Pair

    ImageSource = Callable[[Pair], Image]


class HasSpec(Protocol):
    """A loaded preset."""

    @property
    def spec(self) -> GuidanceSpec:
        """Its specification."""


Setting: TypeAlias = "GuidanceSpec | HasSpec"


class Pipeline(Protocol):
    """What is asked of a diffusers video pipeline."""

    def __call__(self, **arguments: Any) -> Any:
        """Return an object whose ``frames`` are floats (B, T, 3, H, W) for ``output_type="pt"``."""

    def set_progress_bar_config(self, **settings: Any) -> None:
        """Settings of the pipeline's own progress bar."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One video and what it cost."""

    video: Video
    """The frames."""
    effects: Mapping[str, float]
    """Term name -> mean of ``||c - p|| / ||c||`` over the active steps (of the whole batch)."""
    forwards: float
    """Denoiser-forward equivalents of one row."""
    seconds: float
    """Wall time; of a batch, the share of one video."""
    effect_series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Term name -> ``||c - p|| / ||c||`` of each active step (of the whole batch)."""


class GenerationFailedError(StgTuneError):
    """No usable video came out; ``kind`` is ``nan`` or ``oom``, the word that the storage keeps."""

    def __init__(self, kind: str, message: str) -> None:
        """Keep the kind beside the message."""
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Generator:
    """One loaded pipeline with fixed size, length and number of steps."""

    def __init__(
        self,
        pipeline: Pipeline,
        entry: ModelEntry,
        *,
        num_inference_steps: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        image_source: ImageSource | None = None,
    ) -> None:
        """Take what is not given from the model's record; the pipeline's progress bar is silenced.

        With a model on the CPU the process keeps freed memory from now on (``stg_tune.generate.memory``).
        """
        if num_inference_steps is not None and num_inference_steps < entry.least_steps:
            raise StgTuneError(
                f"{entry.name} cannot denoise in {num_inference_steps} step(s): its schedule needs at least "
                f"{entry.least_steps}"
            )
        self.pipeline = pipeline
        self.entry = entry
        self.image_source = image_source or _image_source(entry)
        self.defaults = GenerationDefaults(
            height=height or entry.defaults.height,
            width=width or entry.defaults.width,
            num_frames=num_frames or entry.defaults.num_frames,
            num_inference_steps=num_inference_steps or entry.defaults.num_inference_steps,
            cfg_scale=entry.defaults.cfg_scale,
            fps=entry.defaults.fps,
        )
        pipeline.set_progress_bar_config(disable=True)
        if str(getattr(pipeline, "device", "")) == "cpu":
            keep_freed_memory()

    def __call__(self, spec: Setting, pair: Pair) -> Generated:
        """Generate one video; the same arguments give the same frames.

        Raises:
            GenerationFailedError: the frames hold NaN, or the device is out of memory.
        """
        return self.many(spec, [pair])[0]

    def many(self, spec: Setting, pairs: Sequence[Pair]) -> list[Generated]:
        """Generate several pairs in one batch: the videos that one call each would give, up to rounding.

        Args:
            spec: The setting; a loaded preset says more about its meaning than its specification alone.
            pairs: Test cases.

        Raises:
            GenerationFailedError: the frames of any video hold NaN, or the device is out of memory.
        """
        if not pairs:
            return []
        if len(pairs) > 1 and spec_of(spec).restart is not None:  # its noise has one source: pair by pair
            return [self(spec, pair) for pair in pairs]
        began = time.perf_counter()
        try:
            frames, run = self._run(spec, pairs)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise GenerationFailedError("oom", f"{len(pairs)} video(s) in one batch: {error}") from error
        seconds = (time.perf_counter() - began) / len(pairs)
        return [
            Generated(
                video=self._video(clip, pair),
                effects=dict(run.effects()),
                effect_series=run.effect_series(),
                forwards=run.forwards / len(pairs),
                seconds=seconds,
            )
            for clip, pair in zip(frames, pairs, strict=True)
        ]

    @torch.inference_mode()
    def _run(self, spec: Setting, pairs: Sequence[Pair]) -> tuple[Tensor, GuidedRun]:
        with _restart_noise(spec, pairs[0]), guided(self.pipeline, spec, architecture=self.entry.architecture) as run:
            output = self.pipeline(
                # one generator a video and always on the CPU: the noise knows nothing of batch, worker or device
                generator=[torch.Generator("cpu").manual_seed(pair.seed) for pair in pairs],
                height=self.defaults.height,
                width=self.defaults.width,
                num_frames=self.defaults.num_frames,
                num_inference_steps=self.defaults.num_inference_steps,
                output_type="pt",
                **self._own_arguments(spec, pairs),
            )
            return output.frames, run

    def _own_arguments(self, spec: Setting, pairs: Sequence[Pair]) -> dict[str, Any]:
        """What pipelines are told under different names, or only if they ask for it."""
        takes = inspect.signature(self.pipeline.__call__).parameters
        scale = "max_guidance_scale" if "max_guidance_scale" in takes else "guidance_scale"
        arguments: dict[str, Any] = {scale: _pipeline_scale(spec_of(spec))}
        if "image" in takes and self.image_source is not None:
            arguments["image"] = [self.image_source(pair) for pair in pairs]
        if "prompt" in takes or "image" not in arguments:
            arguments["prompt"] = [pair.prompt for pair in pairs]
        if "fps" in takes:
            arguments["fps"] = self.defaults.fps
        if "max_sequence_length" in takes:
            arguments |= self._text_length(takes["max_sequence_length"].default)
        return arguments

    def _text_length(self, usual: int) -> dict[str, int]:
        """Prompts are padded no further than the tokenizer goes: padding is masked, so it only costs time."""
        longest = getattr(getattr(self.pipeline, "tokenizer", None), "model_max_length", usual)
        return {"max_sequence_length": longest} if longest < usual else {}

    def _video(self, clip: Tensor, pair: Pair) -> Video:
        if not bool(torch.isfinite(clip).all()):
            raise GenerationFailedError("nan", f"the frames of {pair.prompt!r}, seed {pair.seed} are not finite")
        return Video.from_float(clip, self.defaults.fps)


@contextmanager
def _restart_noise(spec: Setting, pair: Pair) -> Iterator[None]:
    """Restarts draw noise that most pipelines take from nowhere in particular; it too must depend on the pair alone."""
    if spec_of(spec).restart is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(pair.key, 16))  # another seed than that of the initial noise, or both would be equal
        yield


def _image_source(entry: ModelEntry) -> ImageSource | None:
    if not entry.image_source:
        return None
    module, _, function = entry.image_source.partition(":")
    source: ImageSource = getattr(import_module(module), function)
    return source


def _pipeline_scale(spec: GuidanceSpec) -> float:
    """What the pipeline is called with: its own CFG where it will do, else any scale that makes it send both rows."""
    scales = {spec.cfg_scale, *(segment.cfg_scale for segment in spec.segments)} - {None}
    if scales == {1}:
        return 1.0
    return spec.cfg_scale if spec.cfg_scale > 1 else 2.0
