"""What can be tuned: names, records and loading. Nothing heavy is imported before ``load``."""

from __future__ import annotations

import json
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.documents import read_limited
from stg_tune.errors import StgTuneError
from stg_tune.models import mochi, svd
from stg_tune.models.loras import attach, check_takes
from stg_tune.models.open_sora import record as open_sora_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import DiffusionPipeline

    from stg_tune.models.base import ModelEntry
    from stg_tune.models.loras import Lora

_FAMILIES: tuple[Any, ...] = (open_sora_record, mochi, svd)
_MAX_BYTES = 1_000_000


def names() -> list[str]:
    """Every model that can be used, the families in order; embedded ones whose weights are not there are left out."""
    return [name for name, record in _records().items() if not record.embedded or _has_weights(name)]


def entry(name: str) -> ModelEntry:
    """The record of a model.

    Args:
        name: One of ``names()``, an embedded model that is to be trained, or the path of a diffusers folder of a known
            family.

    Raises:
        StgTuneError: Neither; the message lists close matches. Or the folder cannot be read.
    """
    record = _records().get(name)
    if record is not None:
        return record
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return _folder_entry(folder)
    close = get_close_matches(name, names(), n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise StgTuneError(
        f"unknown model {name!r}: {hint}Known: {', '.join(names())}; or give the path of a diffusers folder "
        "(with model_index.json) of one of these families"
    )


def fetch(entry: ModelEntry, path: Path | None = None) -> None:
    """Have the files of a model on this machine without loading them; raises as ``load`` does."""
    if entry.fetcher:
        module, _, function = entry.fetcher.partition(":")
        getattr(import_module(module), function)(entry, path)


def load(entry: ModelEntry, path: Path | None = None, loras: Sequence[Lora] = ()) -> DiffusionPipeline:
    """Load a model's pipeline, on the GPU when torch sees one.

    Args:
        entry: The record.
        path: Local folder to use in place of the record's source.
        loras: Loaded into it, each with its strength.

    Raises:
        NotReachableError: Files are neither on this machine nor reachable.
        StgTuneError: Files are damaged or belong to another model, or the pipeline takes no LoRA.
    """
    check_takes(entry, loras)
    module, _, function = entry.loader.partition(":")
    pipe = getattr(import_module(module), function)(entry, path)
    attach(pipe, entry, loras)
    import torch

    return pipe.to("cuda") if torch.cuda.is_available() else pipe


def _has_weights(name: str) -> bool:
    return (open_sora_record.embedded_folder(name) / "model_index.json").is_file()


def _records() -> dict[str, ModelEntry]:
    return {record.name: record for family in _FAMILIES for record in family.ENTRIES}


def _folder_entry(folder: Path) -> ModelEntry:
    index: Any = None
    if (folder / "model_index.json").is_file():
        try:
            index = json.loads(read_limited(folder / "model_index.json", _MAX_BYTES, "model index"))
        except (ValueError, RecursionError):
            index = None
    found = index.get("_class_name") if isinstance(index, dict) else None
    for family in _FAMILIES:
        if found == family.PIPELINE_CLASS:
            record: ModelEntry = family.folder_entry(folder)
            return record
    known = ", ".join(family.PIPELINE_CLASS for family in _FAMILIES)
    raise StgTuneError(
        f"{folder} is no model folder: its model_index.json must name one of the pipelines {known}, found {found!r:.60}"
    )
