"""One process at a time writes a file that several share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError

try:
    import fcntl as _fcntl
except ImportError:  # not on every system; without it, two downloads of one file at a time are not kept apart
    _fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Wait until nobody else writes ``path``, and keep others waiting; the kernel ends the wait when a process dies.

    The lock is ``.NAME.lock`` beside the file, and stays: to remove it would let two processes hold two locks.

    Raises:
        StgTuneError: Nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f".{path.name}.lock").open("w")
    except OSError as error:
        raise StgTuneError(
            f"cannot write beside {path}: {error.strerror or error}; choose a folder you may write to"
        ) from None
    with file:
        locks: Any = _fcntl
        if locks is not None:
            locks.flock(file, locks.LOCK_EX)
        yield
