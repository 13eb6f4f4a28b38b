"""Checks of plain values: what was wrong, where, and what is allowed, in one ``StgTuneError``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stg_tune.errors import StgTuneError


def read_fields(data: object, required: set[str], optional: set[str], what: str) -> dict[str, Any]:
    """The fields of an object; an unknown or a missing one raises ``StgTuneError`` by name."""
    if not isinstance(data, Mapping):
        raise StgTuneError(f"a {what} must be an object with named fields, got {data!r:.80}")
    unknown = sorted(str(key) for key in data if key not in required | optional)
    missing = sorted(required - set(data))
    if unknown or missing:
        problem = f"unknown field {unknown[0]!r}" if unknown else f"missing field {missing[0]!r}"
        raise StgTuneError(f"{what}: {problem}; fields are {', '.join(sorted(required | optional))}")
    return dict(data)


def read_list(value: object, what: str) -> list[Any]:
    """The entries of a list."""
    if not isinstance(value, list | tuple):
        raise StgTuneError(f"{what} must be a list, got {value!r:.80}")
    return list(value)


def finite(value: object, what: str) -> None:
    """Refuse what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StgTuneError(f"{what} must be a finite number, got {value!r}")


def whole(value: object, low: int, high: int, what: str) -> None:
    """Refuse what is no whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise StgTuneError(f"{what} must be a whole number from {low} to {high}, got {value!r}")


def between(value: object, low: float, high: float, what: str) -> None:
    """Refuse what is no number from ``low`` to ``high``."""
    finite(value, what)
    assert isinstance(value, int | float)
    if not low <= value <= high:
        raise StgTuneError(f"{what} must be between {low} and {high}, got {value!r}")


def one_of(value: object, allowed: tuple[str, ...], what: str) -> None:
    """Refuse what is not among the allowed words."""
    if value not in allowed:
        raise StgTuneError(f"{what} must be one of {', '.join(allowed)}, got {value!r}")
