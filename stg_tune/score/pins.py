"""Checksums of files whose publisher states none: remembered at first use, compared ever after."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from stg_tune.documents import read_limited, write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.score.locks import alone_with

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "stg-tune/pins/1"
MAX_BYTES = 100_000


class Pins:
    """A small JSON file, name -> SHA-256.

    Args:
        path: The file; it is made at the first pin.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, name: str) -> str:
        """The pinned checksum, or an empty text."""
        return self._read().get(name, "")

    def keep(self, name: str, sha256: str) -> None:
        """Pin; what is pinned already stays, and what another process pins meanwhile is not lost."""
        if name in self._read():  # a cache that can only be read is enough
            return
        with alone_with(self.path):
            pins = self._read()
            if name not in pins:
                content = {"schema": SCHEMA, "sha256": {**pins, name: sha256}}
                write_atomic(self.path, json.dumps(content, indent=1, sort_keys=True) + "\n")

    def _read(self) -> dict[str, str]:
        if not self.path.is_file():
            return {}
        try:
            content = json.loads(read_limited(self.path, MAX_BYTES, "list of pinned checksums"))
            pins = dict(content["sha256"]) if content["schema"] == SCHEMA else None
        except (ValueError, KeyError, TypeError, RecursionError):
            pins = None
        if pins is None or not all(re.fullmatch("[0-9a-f]{64}", str(pin)) for pin in pins.values()):
            raise StgTuneError(
                f"{self.path} is not a list of pinned checksums: remove it, and all files are pinned anew"
            )
        return pins
