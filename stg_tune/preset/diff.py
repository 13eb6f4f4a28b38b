"""What differs between two presets, field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stg_tune.preset.record import Preset

ABSENT = "-"
"""What a side shows that has no such field."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One field that two presets do not share."""

    field: str
    """Path of the field: ``guidance.segments[0].terms.spatial.stg_scale``; terms go by name, segments by place."""
    left: object
    """Value of the first preset; ``ABSENT`` when it has none."""
    right: object
    """Value of the second preset; ``ABSENT`` when it has none."""
    changes_result: bool
    """False for name, evidence and origin: the same video comes out."""


def diff(left: Preset, right: Preset) -> tuple[Difference, ...]:
    """Every differing field, in the order of the file; empty when the presets are equal.

    Numbers are equal when they agree to 6 digits, as in ``Preset.hash``.
    """
    ours, theirs = (dict(_leaves(_keyed(preset.to_dict()))) for preset in (left, right))
    fields = [*ours, *(field for field in theirs if field not in ours)]
    pairs = ((field, ours.get(field, ABSENT), theirs.get(field, ABSENT)) for field in fields)
    return tuple(
        Difference(field=field, left=a, right=b, changes_result=_top(field) not in ("name", "evidence", "origin"))
        for field, a, b in pairs
        if not _same(a, b)
    )


def _top(field: str) -> str:
    return field.partition(".")[0].partition("[")[0]


def _keyed(data: Any) -> Any:
    """Lists of named things become mappings, so that an added term does not shift the others."""
    if isinstance(data, list) and data and all(isinstance(item, dict) and "name" in item for item in data):
        return {item["name"]: _keyed({key: value for key, value in item.items() if key != "name"}) for item in data}
    if isinstance(data, dict):
        return {key: _keyed(value) for key, value in data.items()}
    return [_keyed(item) for item in data] if isinstance(data, list) else data


def _leaves(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        yield from _below(value, f"{path}.{key}" if path else str(key))


def _below(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        yield from _leaves(value, path)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for place, item in enumerate(value):
            yield from _below(item, f"{path}[{place}]")
    else:  # a list of numbers, such as layers, is one value
        yield path, value


def _same(left: object, right: object) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return round(left - right, 6) == 0
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return all(_same(a, b) for a, b in zip(left, right, strict=True))
    return type(left) is type(right) and left == right
