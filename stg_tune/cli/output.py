"""What the commands write: tables and JSON to standard output, messages to standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


_UNSEEN = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "�")
"""Control characters, which would command the terminal: prompts and files of others may hold some."""


def say(text: str = "") -> None:
    """One line of result."""
    sys.stdout.write(f"{text.translate(_UNSEEN)}\n")


def complain(text: str) -> None:
    """One message that is not a result."""
    sys.stderr.write(f"stg-tune: {text.translate(_UNSEEN)}\n")
    sys.stderr.flush()


def say_json(data: Any) -> None:
    """Data for another program."""
    sys.stdout.write(f"{json.dumps(data, indent=2, ensure_ascii=False)}\n")


def say_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; numbers are aligned by the caller's formatting."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; what is not known is a dash, never 0."""
    return "-" if value is None else f"{value:.{digits}g}"
