"""One driver a run folder: a lock file that the kernel releases when the driver dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_TAKEOVER = (
    "this host cannot ask whether it still is. If that host, or pod, is gone, type "
    "`stg-tune resume {folder} --takeover`; if not, stop the driver there first"
)


class DriverLock:
    """Holds ``DIR/driver.lock`` while a driver works; a second driver is refused with the first one's pid and host.

    On one host the kernel's lock decides, so the lock of a killed driver is gone with it. The pid and host written into
    the file are for people and for other hosts: a shared folder whose lock names another host is refused, because its
    kernel cannot be asked.

    Args:
        directory: The run folder; it is made when missing.
        takeover: Ignore the entry of another host (its driver is known to be gone); whoever holds the kernel's lock is
            not ignored.

    Raises:
        StgTuneError: Another driver works on the folder, or it cannot be written.
    """

    def __init__(self, directory: Path, *, takeover: bool = False) -> None:
        self._path = directory / "driver.lock"
        self._takeover = takeover
        self._descriptor: int | None = None

    def __enter__(self) -> DriverLock:
        """Take the lock."""
        descriptor = self._open()
        try:
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Empty the file and release the lock."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StgTuneError(
                f"cannot write to the run folder {self._path.parent}: {error.strerror}; give a folder you may write to "
                "with --out"
            ) from None

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StgTuneError(self._refusal(_owner(descriptor), "stop it first or choose another --out")) from None
        owner = _owner(descriptor)
        host = socket.gethostname()
        if owner.get("host", host) != host and not self._takeover:
            raise StgTuneError(self._refusal(owner, _TAKEOVER.format(folder=self._path.parent)))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": host}).encode(), 0)

    def _refusal(self, owner: dict[str, object], advice: str) -> str:
        who = f"pid {owner.get('pid', 'unknown')} on {owner.get('host', 'this host')}"
        return f"another driver ({who}) is working on {self._path.parent}; {advice}"


def _owner(descriptor: int) -> dict[str, object]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except ValueError:  # torn by a crash of the machine; the kernel's lock still decides
        return {}
    return owner if isinstance(owner, dict) else {}
