"""Loads pipelines that diffusers has itself: embedded, from a local folder, or from the hub; safetensors only."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stg_tune.errors import NotReachableError, StgTuneError
from stg_tune.models import folders
from stg_tune.models.open_sora.hub import PATH_VARIABLE
from stg_tune.models.open_sora.record import embedded_folder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from stg_tune.models.base import ModelEntry


_LIBRARIES = (None, "diffusers", "transformers")


def load_embedded(entry: ModelEntry, path: Path | None = None) -> DiffusionPipeline:
    """The trained model inside the package, or its replacement in ``path``, in float32.

    Raises:
        StgTuneError: The installation lacks the weights, or they are damaged.
    """
    folder = path or embedded_folder(entry.name)
    if path is None and not (folder / "model_index.json").is_file():
        raise StgTuneError(
            f"{entry.name}: this installation lacks the embedded weights ({folder / 'model_index.json'} is missing): "
            f"train them with `python -m stg_tune.embedded.train {entry.name}` in a checkout, or give a folder that "
            "holds them with --model-path"
        )
    return load_folder(entry, folder, dtype=torch.float32)


def load_local(entry: ModelEntry, path: Path | None = None) -> DiffusionPipeline:
    """A folder named in place of a model: bfloat16 where torch sees a GPU, else float32."""
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return load_folder(entry, path or Path(entry.source), dtype=dtype)


def load_published(entry: ModelEntry, path: Path | None = None) -> DiffusionPipeline:
    """The published model in bfloat16: a local folder, else the hub's cache, else the hub.

    Args:
        entry: The record.
        path: Local folder; ``None``: that of the environment variable ``STG_TUNE_MODEL_PATH``, else the hub.

    Raises:
        NotReachableError: The files are neither on this machine nor reachable.
        StgTuneError: The folder is no such model.
    """
    named = path or os.environ.get(PATH_VARIABLE)
    if named:
        return load_folder(entry, Path(named).expanduser(), dtype=torch.bfloat16)
    try:
        return _from_pretrained(entry, entry.repository, torch.bfloat16)
    except Exception as error:
        # Every generation of huggingface_hub raises the errors of another HTTP client.
        reason = (str(error).splitlines() or [""])[0][:200]
        raise NotReachableError(
            f"{entry.name}: the weights could not be reached.\n"
            f"Tried: the hub's cache, then {entry.repository} on the Hugging Face hub "
            f"({type(error).__name__}: {reason}).\n"
            "With a connection (and, where the licence asks for it, `hf auth login`), type the same command again. "
            f"With a local copy of the repository, type --model-path DIR (or set {PATH_VARIABLE}=DIR)."
        ) from error


def load_folder(entry: ModelEntry, folder: Path, *, dtype: torch.dtype) -> DiffusionPipeline:
    """A diffusers folder of the entry's pipeline class; no other class that it may name is looked up.

    Raises:
        StgTuneError: It is the folder of another pipeline, a file is missing or damaged, or another depth.
    """
    wanted = entry.architecture.pipeline.rpartition(":")[2]
    index = folders.read(folder / "model_index.json")
    found = index.get("_class_name")
    if found != wanted:
        raise StgTuneError(f"{folder} holds {found!r:.60}, but {entry.name} needs {wanted}: give another --model-path")
    _refuse_strangers(index, folder)
    try:
        return _from_pretrained(entry, str(folder), dtype)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0][:300]
        raise StgTuneError(
            f"{folder} cannot be loaded as {wanted} ({type(error).__name__}: {reason}): copy the folder again; weights "
            "must be .safetensors"
        ) from error


def _refuse_strangers(index: dict[str, object], folder: Path) -> None:
    """An index may name parts of diffusers and transformers only: anything else would be imported by its word."""
    parts = {name: part for name, part in index.items() if isinstance(part, list)}
    strange = [name for name, part in parts.items() if not part or part[0] not in _LIBRARIES]
    if strange:
        raise StgTuneError(
            f"{folder / 'model_index.json'}: {strange[0]} is {parts[strange[0]]!r:.80}, but only parts of diffusers "
            "and transformers are loaded: use a folder that `save_pretrained` of diffusers has written"
        )


def _from_pretrained(entry: ModelEntry, place: str, dtype: torch.dtype) -> Any:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    # Mochi asks for float32 in autocast, which a CPU answers with a warning in every call and by doing just that
    warnings.filterwarnings("ignore", message="In CPU autocast, but the target dtype is not supported")
    module, _, name = entry.architecture.pipeline.partition(":")
    shown = transformers_logging.is_progress_bar_enabled(), diffusers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    try:
        return getattr(import_module(module), name).from_pretrained(place, dtype=dtype, use_safetensors=True)
    finally:
        for logging, was_shown in zip((transformers_logging, diffusers_logging), shown, strict=True):
            if was_shown:
                logging.enable_progress_bar()
