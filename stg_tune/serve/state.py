"""Where a run is, as its driver last wrote it to ``DIR/state.json`` (standard library only)."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stg_tune.documents import read_limited
from stg_tune.errors import StgTuneError
from stg_tune.records import GuidanceSpec
from stg_tune.report.facts import describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_BYTES = 1_000_000
NO_STATE = "no state yet"
"""Status of a run whose driver has not written anything that can be read."""
LOST = "stopped without a word"
"""Status of a run that says it is running, though its driver is gone: killed, or the machine went down."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What is known; everything else is ``None`` or empty."""

    status: str = NO_STATE
    """``running``, ``interrupted``, ``failed``, ``finished``, ``LOST`` or ``NO_STATE``."""
    message: str = ""
    """Why it is not running."""
    stage: str = ""
    """What it is doing."""
    done: int | None = None
    """Evaluations so far."""
    total: int | None = None
    """Evaluations that it may use."""
    stage_done: int | None = None
    """Evaluations of the stage so far."""
    stage_total: int | None = None
    """Evaluations that the stage may use."""
    best: str = ""
    """The best setting so far, with its interval."""
    seconds_left: float | None = None
    """Expected remaining time."""
    workers: int | None = None
    """Pairs that are evaluated at the same time."""
    current: tuple[str, ...] = ()
    """Settings that are being evaluated, in words."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return asdict(self)


def read_state(directory: Path) -> RunState:
    """The state of a run; what is missing, torn or of another version is left out, never an error."""
    try:
        data = json.loads(read_limited(directory / "state.json", MAX_BYTES, "state file"))
    except (StgTuneError, ValueError, RecursionError):
        return RunState()
    if not isinstance(data, dict) or not isinstance(data.get("status"), str):
        return RunState()
    lost = data["status"] == "running" and driver_is_gone(directory)
    return RunState(
        status=LOST if lost else data["status"],
        message=f"go on with: stg-tune resume {directory}" if lost else _text(data, "message"),
        stage=_text(data, "stage"),
        best=_best(data.get("best")),
        seconds_left=_number(data.get("seconds_left")),
        current=tuple(_current(data.get("current"))),
        **{name: _count(data.get(name)) for name in ("done", "total", "stage_done", "stage_total", "workers")},
    )


def driver_is_gone(directory: Path) -> bool:
    """Whether the driver that has locked the folder is known to be dead; its lock is looked at, not touched.

    A lock of another host tells nothing, so that driver counts as alive.
    """
    try:
        owner = json.loads(read_limited(directory / "driver.lock", MAX_BYTES, "lock file"))
        pid, host = int(owner["pid"]), owner["host"]
    except (StgTuneError, ValueError, KeyError, TypeError, OverflowError):
        return True
    return host == socket.gethostname() and not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's, but there
        return True
    return True


def _best(best: object) -> str:
    gain = best.get("gain") if isinstance(best, dict) else None
    if not isinstance(best, dict) or not isinstance(gain, dict):
        return ""
    mean = _number(gain.get("mean"))
    if mean is None:
        return ""
    low, high = ("?" if end is None else f"{end:+.2f}" for end in (_number(gain.get("low")), _number(gain.get("high"))))
    kind = "held out" if best.get("held_out") is True else "in-sample"
    return f"{_text(best, 'name')}: {mean:+.2f} [{low}, {high}] {kind}"


def _current(specs: object) -> Iterator[str]:
    for spec in specs if isinstance(specs, list) else ():
        try:
            yield describe(GuidanceSpec.from_dict(spec))
        except (StgTuneError, ValueError, KeyError, TypeError, AttributeError):
            continue


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
