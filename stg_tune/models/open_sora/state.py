"""Weights from files into a model, all or nothing: safe formats, every key, every shape."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stg_tune.documents import read_limited
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from torch import nn

Model = TypeVar("Model", bound="nn.Module")

MAX_JSON_BYTES = 20_000_000
"""Largest configuration or index that is read; the index of a 1000-key model has 100 kB."""
_SAFE, _PICKLED = ("*.safetensors",), ("*.pth", "*.pt", "*.bin")
_WRAPPERS = ("state_dict", "model", "ema")
_CAPTION = "y_embedder.y_embedding"


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        StgTuneError: The file is missing, too large, or no JSON object.
    """
    try:
        data = json.loads(read_limited(file, MAX_JSON_BYTES, "model file"))
    except (ValueError, RecursionError) as error:
        raise StgTuneError(f"{file} is not JSON ({type(error).__name__}): fetch the file again") from None
    if not isinstance(data, dict):
        raise StgTuneError(f"{file} must hold a JSON object, found {type(data).__name__}: fetch the file again")
    return data


def weight_files(place: Path) -> list[Path]:
    """The weights in a folder: one file, or the shards an index names; safetensors before PyTorch's format.

    Args:
        place: A folder, or a weights file.

    Raises:
        StgTuneError: None, several that could be meant, or shards that are missing.
    """
    if place.is_file():
        return [place]
    for patterns in (_SAFE, _PICKLED):
        indices = _matches(place, [f"{pattern}.index.json" for pattern in patterns])
        found = indices or _matches(place, patterns)
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:4])
            raise StgTuneError(
                f"{place} holds several weights ({names}): keep the one to load, or name the file itself"
            )
        if found:
            return _shards(found[0]) if indices else found
    raise StgTuneError(
        f"{place} holds no weights: expected one {', '.join((*_SAFE, *_PICKLED))} file, or shards with their "
        "*.index.json"
    )


def read_state(place: Path) -> dict[str, Tensor]:
    """Tensors by name from the weights in a folder, or from one file.

    Wrappers that trainers put around them (``{"ema": ...}``, a ``module.`` before every name) are taken off. PyTorch
    files are read with ``weights_only=True``: nothing in them is executed.

    Raises:
        StgTuneError: Files are missing, damaged, or hold anything but tensors.
    """
    state: dict[str, Tensor] = {}
    for file in weight_files(place):
        state |= _tensors(file, _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file))
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def fit_caption_length(state: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """The state with the null caption of ``length`` tokens: cut, or extended by repeating its last row."""
    caption = state.get(_CAPTION)
    if caption is None or caption.ndim != 2 or len(caption) in {0, length}:
        return dict(state)
    rows = torch.cat([caption, caption[-1:].expand(max(0, length - len(caption)), -1)])[:length]
    return {**state, _CAPTION: rows}


def check_state(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes of two states (tensors may be on the meta device).

    Raises:
        StgTuneError: Keys are missing, unknown or misshapen; one message with counts and the first names.
    """
    misshapen = [
        f"{key!r} has shape {list(found[key].shape)} in place of {list(value.shape)}"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    problems = [
        *_problem("missing", [repr(key) for key in wanted if key not in found]),
        *_problem("not known to the model", [repr(key) for key in found if key not in wanted]),
        *_problem("misshapen", misshapen),
    ]
    if problems:
        raise StgTuneError(
            f"{where} does not fit the model ({len(wanted)} keys): {'; '.join(problems)}. Is this the checkpoint of "
            "another model or version?"
        )


def build(make: Callable[[], Model], state: Mapping[str, Tensor], where: str, *, dtype: torch.dtype) -> Model:
    """A model with the tensors of ``state``, in evaluation mode, without a second copy in memory.

    Args:
        make: Builds the model; called on the meta device.
        state: Every tensor of the model's state.
        where: What to call the state in messages.
        dtype: Floating-point tensors are cast to it.

    Raises:
        StgTuneError: See ``check_state``.
    """
    with torch.device("meta"):
        model = make()
    check_state(model.state_dict(), state, where)
    cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    model.load_state_dict(cast, assign=True)
    # assign=True takes over the loaded tensors' requires_grad, and the fixed rotation table must stay fixed.
    return model.requires_grad_(False).eval()


def _matches(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file())


def _shards(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map")
    names = (
        set(table.values()) if isinstance(table, dict) and all(isinstance(v, str) for v in table.values()) else set()
    )
    if not names or any("/" in name or "\\" in name or name in {".", ".."} for name in names):
        raise StgTuneError(f"{index}: weight_map must name files of the same folder: fetch the file again")
    files = [index.parent / name for name in sorted(names)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise StgTuneError(
            f"{index.parent} lacks {len(missing)} of {len(files)} shards that {index.name} names, first "
            f"{missing[0]!r}: fetch the missing files into that folder"
        )
    return files


def _read_safetensors(file: Path) -> object:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise StgTuneError(f"{file} is damaged ({str(error).splitlines()[0][:120]}): fetch it again") from None


def _read_pickled(file: Path) -> object:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise StgTuneError(
            f"{file} is damaged or holds more than tensors ({type(error).__name__}: {reason}); nothing in it was "
            "executed. Fetch it again, or convert it to safetensors"
        ) from None
    inner = [content[name] for name in _WRAPPERS if isinstance(content, Mapping) and name in content]
    return inner[0] if len(inner) == 1 and isinstance(inner[0], Mapping) else content


def _tensors(file: Path, content: object) -> dict[str, Tensor]:
    entries = dict(content) if isinstance(content, Mapping) else {}
    wrong = next(
        (key for key, value in entries.items() if not isinstance(key, str) or not isinstance(value, Tensor)), None
    )
    if not entries or wrong is not None:
        raise StgTuneError(f"{file} must hold tensors by name, found {f'{wrong!r:.60}' if entries else 'none'}")
    return entries


def _problem(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{len(names)} {what} ({', '.join(names[:3])}{rest})"]
