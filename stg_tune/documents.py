"""Files people hand over: read with limits, checked against a JSON Schema, written atomically (no torch)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

MAX_DEPTH = 16
"""Deepest nesting of lists and objects that a file may have."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The first thing wrong with a document."""

    path: tuple[str | int, ...]
    """Keys and indices from the top of the document to the field."""
    message: str
    """What is wrong, with the value and what is allowed."""

    @property
    def field(self) -> str:
        """The path as people write it: ``stacks.spatial.ops[1]``."""
        return dotted(self.path) or "the document"


def dotted(path: Sequence[str | int]) -> str:
    """``("a", 1, "b")`` becomes ``a[1].b``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def load_schema(package: str, name: str) -> dict[str, Any]:
    """Read a JSON Schema that ships inside ``package``."""
    schema: dict[str, Any] = json.loads(resources.files(package).joinpath(name).read_text(encoding="utf-8"))
    return schema


def find_problem(data: object, schema: Mapping[str, Any]) -> Problem | None:
    """Check ``data`` against ``schema`` (draft 2020-12); ``None`` when it fits."""
    error = best_match(Draft202012Validator(schema).iter_errors(data))
    return None if error is None else Problem(path=tuple(error.absolute_path), message=_explain(error))


def nesting(data: object, depth: int = 1) -> int:
    """Depth of the deepest list or object, counted without recursion beyond ``MAX_DEPTH`` + 1."""
    if depth > MAX_DEPTH or not isinstance(data, dict | list):
        return depth
    children = data.values() if isinstance(data, dict) else data
    return max((nesting(child, depth + 1) for child in children), default=depth)


def read_limited(path: Path, limit: int, what: str) -> str:
    """Read UTF-8 text of at most ``limit`` bytes; anything else is an ``StgTuneError`` that names the file."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise StgTuneError(f"cannot read {what} {path}: {error.strerror or error}") from None
    if len(data) > limit:
        raise StgTuneError(f"{what} {path} is larger than {limit} bytes; that is not a {what}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StgTuneError(f"{what} {path} is not UTF-8 text (byte {error.start})") from None


def write_atomic(path: Path, text: str) -> None:
    """Write ``text`` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_synced(temporary, text)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StgTuneError(
            f"cannot write {path}: {error.strerror or error}; choose a folder you may write to"
        ) from None


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _explain(error: Any) -> str:
    explain: dict[str, Callable[[Any], str]] = {
        "additionalProperties": _unknown_field,
        "required": _missing_field,
        "enum": lambda e: f"{_shown(e.instance)} is not allowed; allowed: {_listed(e.validator_value)}",
        "const": lambda e: f"{_shown(e.instance)} is not allowed; it must be {_shown(e.validator_value)}",
        "type": lambda e: f"{_shown(e.instance)} must be of type {_listed(_as_list(e.validator_value))}",
        "minimum": lambda e: f"{_shown(e.instance)} is too small; it must be at least {e.validator_value}",
        "exclusiveMinimum": lambda e: f"{_shown(e.instance)} is too small; it must be more than {e.validator_value}",
        "maximum": lambda e: f"{_shown(e.instance)} is too large; it must be at most {e.validator_value}",
        "pattern": lambda e: f"{_shown(e.instance)} does not match the pattern {e.validator_value}",
        "uniqueItems": lambda e: f"{_shown(e.instance)} has an entry twice",
    }
    known = explain.get(error.validator)
    return known(error) if known else str(error.message)[:200]


def _unknown_field(error: Any) -> str:
    allowed = sorted(error.schema.get("properties", {}))
    unknown = next(key for key in error.instance if key not in allowed)
    return f"unknown field {unknown!r}; fields here are {', '.join(allowed)}"


def _missing_field(error: Any) -> str:
    missing = next(key for key in error.validator_value if key not in error.instance)
    return f"missing field {missing!r}; fields here are {', '.join(sorted(error.schema.get('properties', {})))}"


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _listed(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
