"""Weights folders of scorers: safetensors files and one index that holds their checksums and configurations."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from stg_tune.errors import NotReachableError, StgTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INDEX = "scorers.json"
SCHEMA = "stg-tune/scorers/1"
MOST_BYTES = 64 * 2**20
"""No embedded file is near this size; a larger one is not read."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One verified file: tensors in float32 and what is needed to build the network around them."""

    name: str
    """File name without ``.safetensors``."""
    tensors: Mapping[str, Tensor]
    """State dict; integers keep their type."""
    config: Mapping[str, Any]
    """Plain JSON."""
    sha256: str
    """64 hex digits over the bytes of the file."""

    @property
    def short(self) -> str:
        """First 16 digits: what a ``ScoreKind`` carries."""
        return self.sha256[:16]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below ``prefix.``, with the prefix removed."""
        return {key.removeprefix(f"{prefix}."): t for key, t in self.tensors.items() if key.startswith(f"{prefix}.")}

    def fill(self, module: nn.Module, prefix: str) -> None:
        """Load the tensors below ``prefix.`` into ``module`` and set it to eval; a misfit raises ``StgTuneError``."""
        try:
            module.load_state_dict(self.part(prefix))
        except RuntimeError as error:
            raise StgTuneError(f"scorer weights {self.name!r} do not fit their configuration: {error}") from error
        module.eval().requires_grad_(requires_grad=False)

    def setting(self, key: str) -> Any:
        """A value of the configuration; a missing one raises ``StgTuneError``."""
        if key not in self.config:
            raise StgTuneError(f"{INDEX}: the configuration of scorer {self.name!r} has no field {key!r}")
        return self.config[key]


def write_weights(folder: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """Store floating tensors as float16 and enter checksum and ``config`` in the index; returns the SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {key: (t.half() if t.is_floating_point() else t).contiguous() for key, t in tensors.items()}
    save_file(stored, folder / f"{name}.safetensors")
    sha256 = hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest()
    index: dict[str, Any] = _read_index(folder) if (folder / INDEX).exists() else {"schema": SCHEMA, "files": {}}
    index["files"][name] = {"sha256": sha256, "config": dict(config)}
    (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return sha256


def read_weights(folder: Path, name: str) -> Weights:
    """Read and verify one file of a weights folder.

    Args:
        folder: holds ``scorers.json`` and the safetensors files.
        name: entry of the index.

    Raises:
        NotReachableError: the folder has no index or not this file.
        StgTuneError: wrong checksum, broken index or broken file.
    """
    entry = _entry(_read_index(folder), name, folder)
    path = folder / f"{name}.safetensors"
    data = _read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != entry["sha256"]:
        raise StgTuneError(
            f"{path} has the checksum {sha256[:16]}..., {INDEX} says {str(entry['sha256'])[:16]}...: the file is "
            "damaged or was replaced; reinstall stg-tune"
        )
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise StgTuneError(f"{path} is not a safetensors file: {error}") from error
    return Weights(
        name=name,
        tensors={key: t.float() if t.is_floating_point() else t for key, t in tensors.items()},
        config=entry["config"],
        sha256=sha256,
    )


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise NotReachableError(f"scorer weights are missing: {path}; reinstall stg-tune")
    if path.stat().st_size > MOST_BYTES:
        raise StgTuneError(
            f"{path} has {path.stat().st_size} bytes, more than the {MOST_BYTES} that scorer weights may"
        )
    return path.read_bytes()


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise StgTuneError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(index, dict) or index.get("schema") != SCHEMA or not isinstance(index.get("files"), dict):
        raise StgTuneError(f"{path} is not an index of scorer weights: it needs schema {SCHEMA!r} and files")
    return index


def _entry(index: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    entry = index["files"].get(name)
    if entry is None:
        raise NotReachableError(f"{folder / INDEX} has no scorer {name!r}; it has {', '.join(sorted(index['files']))}")
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict) or "sha256" not in entry:
        raise StgTuneError(f"{folder / INDEX}: the entry {name!r} needs sha256 and config")
    return entry


def tensors_of(**modules: nn.Module) -> dict[str, Tensor]:
    """One state dict of several modules, each below its own prefix: the inverse of ``Weights.fill``."""
    return {
        f"{prefix}.{key}": tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for prefix, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
