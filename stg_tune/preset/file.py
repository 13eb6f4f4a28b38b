"""Reads and writes preset files; what is read is hostile until it has passed limits, schema and layer checks."""

from __future__ import annotations

import json
import math
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from stg_tune.documents import MAX_DEPTH, find_problem, load_schema, nesting, read_limited, write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.models.families import FAMILIES
from stg_tune.preset.migrate import migrate
from stg_tune.preset.record import Preset

if TYPE_CHECKING:
    import os

MAX_BYTES = 1_000_000
"""Larger files are refused unread."""

_CONTROL = ("Cc", "Zl", "Zp")
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class _RefusedError(ValueError):
    """JSON that Python would read but a preset may not hold."""


def load(path: str | os.PathLike[str]) -> Preset:
    """Read a preset file.

    Raises:
        StgTuneError: It cannot be read, is no preset, or speaks of layers that its model does not have; the message
            names file, field, value and what is allowed.
    """
    file = Path(path)
    return parse(read_limited(file, MAX_BYTES, "preset"), str(file))


def parse(text: str, where: str = "preset") -> Preset:
    """Read the text of a preset; ``where`` names it in errors. See ``load``."""
    data = migrate(parse_json(text, where), where)
    problem = find_problem(data, _schema())
    if problem is not None:
        raise StgTuneError(f"{where}: {problem.field}: {problem.message}")
    try:
        return Preset.from_dict(data)
    except StgTuneError as error:
        raise StgTuneError(f"{where}: {error}") from None


def save(preset: Preset, path: str | os.PathLike[str]) -> None:
    """Write a preset file atomically; what is written can be loaded again, or ``StgTuneError`` is raised before."""
    text = json.dumps(preset.to_dict(), indent=2, ensure_ascii=False) + "\n"
    parse(text, f"the preset {preset.name!r}")
    write_atomic(Path(path), text)


def validate(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Check a preset file; an invalid one raises ``StgTuneError``, a valid one gives remarks for the user."""
    return remarks_on(load(path))


def remarks_on(preset: Preset) -> tuple[str, ...]:
    """What a user should know about a preset that is valid."""
    remarks = []
    if preset.evidence is None and preset.source:
        remarks.append("it was published by others and has no evidence of stg-tune's")
    elif preset.evidence is None:
        remarks.append("it has no evidence: nobody has measured whether it is better than the default")
    elif not preset.evidence.improved:
        remarks.append(f"its evidence shows no improvement: {preset.evidence.reason}")
    if _rescales_hidden(preset):
        remarks.append(
            f"it rescales x0, which stg_tune.guided cannot see in the family {preset.family}: it refuses the preset"
        )
    terms = [(segment, term) for segment in preset.spec.segments for term in segment.terms]
    remarks += [f"the term {term.name!r} has stg_scale 0 and does nothing" for _, term in terms if not term.stg_scale]
    steps = preset.generation.num_inference_steps
    for segment in preset.spec.segments:
        if not any(segment.start <= step / steps < segment.stop for step in range(steps)):
            remarks.append(f"the window [{segment.start}, {segment.stop}) covers none of the {steps} steps")
    return tuple(remarks)


def _rescales_hidden(preset: Preset) -> bool:
    """Whether the rescale is one of clean latents, in a family whose pipelines do not let them be estimated."""
    rescales = preset.combine_space == "sample" and any(segment.rescale for segment in preset.spec.segments)
    return rescales and any(record.converts for record in FAMILIES if record.family == preset.family)


@cache
def _schema() -> dict[str, Any]:
    return load_schema("stg_tune.preset", "preset.schema.json")


def parse_json(text: str, where: str) -> Any:
    """JSON without duplicate fields, NaN, infinite or endless numbers, half characters, deep nesting.

    Raises:
        StgTuneError: It is not that; the message begins with ``where``.
    """
    try:
        data = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_bounded
        )
    except RecursionError:
        raise StgTuneError(f"{where}: nested more than {MAX_DEPTH} levels deep") from None
    except json.JSONDecodeError as error:
        raise StgTuneError(f"{where}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except _RefusedError as error:
        raise StgTuneError(f"{where}: {error}") from None
    if nesting(data) > MAX_DEPTH:
        raise StgTuneError(f"{where}: nested more than {MAX_DEPTH} levels deep")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the field {_printable(twice)!r} is given twice")
    for key, value in pairs:
        for text in (key, *(value if isinstance(value, list) else [value])):
            if isinstance(text, str):
                _printable(text)
    return data


def _printable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _RefusedError("a text holds half a surrogate pair, which is no character") from None
    control = next((sign for sign in text if unicodedata.category(sign) in _CONTROL or sign in _BIDI), None)
    if control is not None:  # it would reach the terminal of whoever lists presets
        raise _RefusedError(f"a text holds the control character {control!a}")
    return text


def _refuse_constant(word: str) -> NoReturn:
    raise _RefusedError(f"{word} is not a number here; give a finite one")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _RefusedError(f"{digits[:40]} is too large; give a finite number")
    return value


def _bounded(digits: str) -> int:
    if len(digits) > 19:
        raise _RefusedError(f"{digits[:40]} is too large for a whole number")
    return int(digits)
