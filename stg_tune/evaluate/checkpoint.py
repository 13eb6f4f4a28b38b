"""Which weights a model's numbers belong to, wherever the files lie."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.record import embedded_folder
from stg_tune.search.workers.sizing import MODEL_FILES

if TYPE_CHECKING:
    from stg_tune.studio import ModelRecipe

FILES = (*MODEL_FILES, ".json", ".txt", ".model")
"""Weights, configurations and vocabularies."""


def checkpoint_of(recipe: ModelRecipe) -> str:
    """Fingerprint of the model's folder where one is given or ships with the package, else the record's source."""
    entry = models.entry(recipe.model)
    if recipe.path is not None:
        return folder_fingerprint(recipe.path)
    if entry.embedded:
        return folder_fingerprint(embedded_folder(entry.name))
    folder = Path(recipe.model).expanduser()  # a folder may be named in place of a model
    return folder_fingerprint(folder) if folder.is_dir() else entry.source


def folder_fingerprint(folder: Path) -> str:
    """16 hex digits over names and contents of a model's files, hidden ones left out.

    Raises:
        StgTuneError: The folder holds none.
    """
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix in FILES and path.is_file())
    files = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
    if not files:
        raise StgTuneError(
            f"{folder} holds no files of a model ({', '.join(FILES)}): give its folder, --model-path DIR"
        )
    digest = hashlib.sha256()
    for path in files:
        with (folder / path).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]
