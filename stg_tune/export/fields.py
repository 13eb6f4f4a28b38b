"""Reads values out of other tools' files, which are hostile until proven otherwise."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.preset.file import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = sys.float_info.max
"""Whole numbers of YAML may be larger, and then no float."""
_LAYERS = re.compile(r"\s*(\d{1,4}(\s*,\s*\d{1,4})*\s*,?\s*)?")


def json_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object, read with the limits of a preset."""
    data = parse_json(text, what)
    if not isinstance(data, dict):
        raise StgTuneError(f"{what}: an object with named fields is expected, got {str(data)[:60]!r}")
    return data


def number(data: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A finite number; missing without a default: ``StgTuneError``."""
    value = _get(data, key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MOST:
        raise StgTuneError(f"{key} must be a finite number, got {_shown(value)}")
    return float(value)


def flag(data: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false."""
    value = data.get(key, default)
    if not isinstance(value, bool):
        raise StgTuneError(f"{key} must be true or false, got {_shown(value)}")
    return value


def word(data: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """A text."""
    value = _get(data, key, default)
    if not isinstance(value, str):
        raise StgTuneError(f"{key} must be a text, got {_shown(value)}")
    return value


def indices(value: object, what: str) -> tuple[int, ...]:
    """A list of block indices."""
    if not isinstance(value, list) or any(isinstance(item, bool) or not isinstance(item, int) for item in value):
        raise StgTuneError(f"{what} must be a list of block indices, got {_shown(value)}")
    return tuple(dict.fromkeys(value))


def indices_text(value: object, what: str) -> tuple[int, ...]:
    """Block indices as ComfyUI writes them: ``"9, 10"``."""
    if not isinstance(value, str) or not _LAYERS.fullmatch(value):
        raise StgTuneError(f"{what} must be block indices with commas between them, got {_shown(value)}")
    return tuple(dict.fromkeys(int(part) for part in value.split(",") if part.strip()))


def layers_text(layers: tuple[int, ...]) -> str:
    """``(9, 10)`` as ComfyUI reads it."""
    return ", ".join(map(str, layers))


def pretty(data: object, indent: str = "") -> str:
    """JSON for a file; lists of plain values stay on one line."""
    inner = indent + "  "
    if isinstance(data, dict) and data:
        lines = (f"{inner}{json.dumps(key, ensure_ascii=False)}: {pretty(value, inner)}" for key, value in data.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(data, list) and any(isinstance(item, dict) for item in data):
        return "[\n" + ",\n".join(inner + pretty(item, inner) for item in data) + f"\n{indent}]"
    return json.dumps(data, ensure_ascii=False)


def _get(data: Mapping[str, Any], key: str, default: object) -> object:
    if key not in data and default is None:
        raise StgTuneError(f"missing field {key!r}")
    return data.get(key, default)


def _shown(value: object) -> str:
    return repr(value)[:60]
