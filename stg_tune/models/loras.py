"""LoRAs beside a model: safetensors only, known by their checksum, on pipelines that load them by themselves."""

from __future__ import annotations

import hashlib
import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stg_tune.models.base import ModelEntry

MAX_SCALE = 100.0
"""Greatest strength, either way."""
MAX_NAME = 100
"""Greatest length of a file's name, which presets and reports repeat."""
_SUFFIX = ".safetensors"
_DIGITS = 16
_DOWN = (".lora_A.", ".lora_down.", ".lora.down.", "_lora.down.")
"""In the name of the first of the two matrices of a layer."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """One LoRA."""

    path: Path
    """Absolute path of its ``.safetensors`` file."""
    scale: float = 1.0
    """Strength, not 0."""

    @property
    def word(self) -> str:
        """What ``parse_lora`` reads back: ``/files/style.safetensors=0.8``."""
        return f"{self.path}={self.scale!r}"

    def checksum(self) -> str:
        """``sha256:`` and the first 16 digits; a file that cannot be read is an ``StgTuneError``."""
        try:
            with self.path.open("rb") as file:
                return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:_DIGITS]}"
        except OSError as error:
            raise StgTuneError(f"cannot read the LoRA {self.path}: {error.strerror or error}") from None


def parse_lora(word: str) -> Lora:
    """A LoRA as the command line names it: ``FILE`` or ``FILE=SCALE``.

    Raises:
        StgTuneError: No such file, another format, or no usable strength.
    """
    name, _, text = word.rpartition("=")
    whole = not name or Path(word).expanduser().is_file()  # a name may hold "=" itself
    path, scale = (Path(word), 1.0) if whole else (Path(name), _scale(text, word))
    path = path.expanduser().absolute()
    if path.suffix.lower() != _SUFFIX:
        raise StgTuneError(
            f"--lora {word}: only {_SUFFIX} files are read, because other formats can run code; type "
            f"--lora style{_SUFFIX} or --lora style{_SUFFIX}=0.8"
        )
    if not path.name.isprintable() or len(path.name) > MAX_NAME:
        raise StgTuneError(f"--lora {word!a:.80}: its name needs at most {MAX_NAME} printable characters: rename it")
    if not path.is_file():
        raise StgTuneError(f"--lora {word}: there is no file {path}")
    return Lora(path=path, scale=scale)


def parse_loras(words: Iterable[str]) -> tuple[Lora, ...]:
    """Several LoRAs, whose file names must differ: by them a run tells them apart. Raises as ``parse_lora`` does."""
    loras = tuple(map(parse_lora, words))
    names = [lora.path.name for lora in loras]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise StgTuneError(f"--lora: two files are called {twice}: rename one, or give it once with one strength")
    return loras


def identity(loras: Iterable[Lora]) -> dict[str, str]:
    """``lora NAME`` -> checksum and strength: what decides the numbers, wherever the file lies."""
    return {f"lora {lora.path.name}": f"{lora.checksum()} at {lora.scale:g}" for lora in loras}


def attach(pipe: Any, entry: ModelEntry, loras: Sequence[Lora]) -> None:
    """Load the LoRAs into a pipeline, each with its strength.

    Args:
        pipe: The pipeline of ``entry``.
        entry: The model, for messages.
        loras: Applied together.

    Raises:
        StgTuneError: A file is damaged or was made for another model; nothing in it fits.
    """
    names = [f"lora_{number}" for number in range(len(loras))]
    for name, lora in zip(names, loras, strict=True):
        try:
            with _quiet():
                pipe.load_lora_weights(
                    str(lora.path.parent), weight_name=lora.path.name, adapter_name=name, use_safetensors=True
                )
        except Exception as error:  # diffusers, peft and safetensors each raise errors of their own
            raise _unfit(lora, entry, f"{type(error).__name__}: {error}") from error
        there, fit = _layers(lora.path), _adapted(pipe, name)
        if not fit:
            raise _unfit(lora, entry, "none of its layers is one of this model")
        if fit < there:
            warnings.warn(
                f"{fit} of {there} layers of {lora.path} fit {entry.name}; the others are left out", stacklevel=2
            )
    if loras:
        pipe.set_adapters(names, adapter_weights=[lora.scale for lora in loras])


def check_takes(entry: ModelEntry, loras: Sequence[Lora]) -> None:
    """Raise ``StgTuneError``, before anything large is loaded, when this model or this installation takes no LoRA."""
    if not loras:
        return
    module, _, name = entry.architecture.pipeline.partition(":")
    if not hasattr(getattr(import_module(module), name), "load_lora_weights"):
        raise StgTuneError(
            f"--lora {loras[0].path.name}: {name}, the pipeline of {entry.name}, cannot load LoRAs; fuse it into the "
            "model's folder with the tool that made it, and give that folder with --model"
        )
    if find_spec("peft") is None:
        raise StgTuneError(f"--lora {loras[0].path.name}: diffusers loads LoRAs by peft only; type: pip install peft")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what diffusers and peft log of a file that does not fit: it is one message here."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(before)


def _layers(file: Path) -> int:
    """Layers that a LoRA has weights for, whichever of the usual names they go by."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as weights:
        return sum(any(mark in f"{name}." for mark in _DOWN) for name in weights.keys())  # noqa: SIM118  no mapping


def _adapted(pipe: Any, name: str) -> int:
    """Layers of the pipeline that have an adapter of this name."""
    parts = [part for part in pipe.components.values() if hasattr(part, "modules")]
    return sum(name in getattr(layer, "lora_A", ()) for part in parts for layer in part.modules())


def _scale(text: str, word: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not 0 < abs(scale) <= MAX_SCALE:
        raise StgTuneError(
            f"--lora {word}: the strength must be a number other than 0, at most {MAX_SCALE:g}, got {text!r:.40}; "
            f"type FILE{_SUFFIX}=0.8"
        )
    return scale


def _unfit(lora: Lora, entry: ModelEntry, why: str) -> StgTuneError:
    reason = " ".join(why.split())[:300]
    return StgTuneError(f"{lora.path} cannot be loaded into {entry.name} ({reason}): give a LoRA made for this model")
