"""Reads the configs of diffusers folders: whatever they hold, the answer is a checked value or an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stg_tune.documents import read_limited
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 1_000_000
_MAX_COUNT = 1000
_MAX_LEVELS = 16


def read(file: Path) -> dict[str, object]:
    """A JSON object; anything else is an error that names the file."""
    try:
        data = json.loads(read_limited(file, _MAX_BYTES, "model file"))
    except (ValueError, RecursionError) as error:
        raise StgTuneError(f"{file} is not JSON ({type(error).__name__}): copy the model folder again") from None
    if not isinstance(data, dict):
        raise StgTuneError(f"{file} must hold a JSON object: copy the model folder again")
    return data


def number(config: dict[str, object], name: str, where: Path) -> int:
    """A whole number from 1 to 1000."""
    return _checked(config.get(name), name, where)


def numbers(config: dict[str, object], name: str, count: int, where: Path) -> list[int]:
    """One whole number a level; a single number counts for all levels, and an absent one is 1."""
    value = config.get(name, 1)
    items = value if isinstance(value, list) else [value] * count
    if len(items) != count:
        raise StgTuneError(f"{where}: {name} must have {count} numbers, one a level, got {len(items)}")
    return [_checked(item, name, where) for item in items]


def words(config: dict[str, object], name: str, where: Path) -> list[str]:
    """A list of 1 to 16 words."""
    value = config.get(name)
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_LEVELS:
        raise StgTuneError(f"{where}: {name} must be a list of 1 to {_MAX_LEVELS} names, got {value!r:.80}")
    return [str(item) for item in value]


def _checked(value: object, name: str, where: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_COUNT:
        raise StgTuneError(f"{where}: {name} must be a whole number from 1 to {_MAX_COUNT}, got {value!r:.40}")
    return value
