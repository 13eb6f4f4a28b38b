"""Older preset files become current ones, one version at a time; files of a newer version are refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.preset.record import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Step = Callable[[dict[str, Any]], dict[str, Any]]

STEPS: Mapping[str, Step] = {}
"""Schema name -> what turns such a file into one of the next version. Version 1 is the first that was released."""

_NAME = re.compile(r"stg-tune/preset/([1-9]\d{0,5})")


def migrate(
    data: Any, where: str = "preset", *, steps: Mapping[str, Step] = STEPS, current: str = SCHEMA
) -> dict[str, Any]:
    """The content of a preset file in the current form; what was handed in is not changed.

    Args:
        data: What the JSON said; anything at all.
        where: How errors name the file.
        steps: One conversion a past version; each is given a copy.
        current: The schema name to reach.

    Raises:
        StgTuneError: It is no preset, or one of a newer version.
    """
    found = data.get("schema") if isinstance(data, dict) else None
    while isinstance(found, str) and found != current and found in steps:
        data = {**steps[found]({**data}), "schema": _next(found)}
        found = data["schema"]
    if found != current or not isinstance(data, dict):
        raise StgTuneError(f"{where}: {_reason(found, current)}")
    return data


def _next(name: str) -> str:
    head, _, version = name.rpartition("/")
    return f"{head}/{int(version) + 1}"


def _reason(found: object, current: str) -> str:
    shown = str(found)[:60]
    theirs = _NAME.fullmatch(found) if isinstance(found, str) else None
    if theirs and int(theirs[1]) > int(current.rpartition("/")[2]):
        return f"schema must be {current!r}, got {shown!r}: a newer stg-tune wrote it; type pip install -U stg-tune"
    return f"this is not a preset: schema must be {current!r}, got {shown!r}"
