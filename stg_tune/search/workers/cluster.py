"""The Ray cluster under a pool: a small quiet one on this machine, or one that is there already."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.search.workers.sizing import ROUNDING, workers_on

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT_STORE = 100_000_000
"""Bytes; only scores go through it."""
FOLDERS = Path("/tmp")
"""Where Ray keeps its sockets, whose paths must be short."""
PREFIX = "stg-ray-"


class LocalCluster:
    """Ray on this machine, reachable from this machine only and only with a token that is made up for it.

    Args:
        cpus: Cores that the workers share out.
        gpus: GPUs that the workers share out.
    """

    def __init__(self, *, cpus: int, gpus: int) -> None:
        _prepare_environment()
        _stay_local()
        _protect()
        import ray

        _sweep()
        # a folder of its own: the common one may belong to another user of the machine
        self._folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=FOLDERS))
        try:
            with _sigterm_later():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=gpus,
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=str(self._folder),
                )
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception):
                raise
            raise StgTuneError(
                f"Ray does not start on this machine ({_first_line(error)}); use --workers 1 to work without it"
            ) from error

    def close(self) -> None:
        """Stop Ray and remove its files."""
        import ray

        ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


class RemoteCluster:
    """A Ray cluster that is there already; how to authenticate is read from Ray's own environment variables.

    Args:
        address: ``host:port`` of its head, or ``auto`` for the one that runs on this machine.
    """

    def __init__(self, address: str) -> None:
        _prepare_environment()
        import ray

        self._mine = not ray.is_initialized()
        if not self._mine:
            return
        try:
            with _sigterm_later():
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:
            raise StgTuneError(
                f"no Ray cluster can be used at {address!r} ({_first_line(error)}); start one with `ray start --head`, "
                "give its address as host:port with --ray-address, and if it wants a token, set RAY_AUTH_MODE=token "
                "and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            ) from error

    def close(self) -> None:
        """Leave it."""
        import ray

        if self._mine:
            ray.shutdown()


def alive_nodes() -> dict[str, dict[str, float]]:
    """Identifier -> resources of every machine that is up."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def places(resources: dict[str, float], *, cpus: float, gpus: float) -> int:
    """How many workers of a size fit on a machine."""
    fits = []
    if cpus > 0:
        fits.append(math.floor(resources.get("CPU", 0.0) / cpus + ROUNDING))
    if gpus > 0:
        fits.append(workers_on(resources.get("GPU", 0.0), gpus))
    return min(fits, default=0)


def _prepare_environment() -> None:
    """Before Ray is imported: no telemetry, and a worker without a GPU sees none."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")


def _stay_local() -> None:
    """Have Ray listen on the loopback address only, as it does by itself where it supports no clusters.

    Ray replaces 127.0.0.1 by an address that other machines can reach wherever it is asked for in another way. It reads
    this when it is imported; such a process cannot join a cluster of several machines later.
    """
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _protect() -> None:
    """Ask for a token unless the user has decided. Ray reads this when it is imported; the token stays in memory."""
    if "RAY_AUTH_MODE" in os.environ or "ray" in sys.modules:
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextmanager
def _sigterm_later() -> Iterator[None]:
    """Answer a SIGTERM that comes while Ray starts when it has started, and as the program does, not as Ray would.

    Ray puts a handler of its own there, which waits for its machine to drain and then ends the process; an error of the
    program's that comes up inside its start can be lost or leave it half started. Where the program has no handler,
    Ray's is left: it ends the processes that Ray has started.
    """
    mine, real, came = signal.getsignal(signal.SIGTERM), signal.signal, list[FrameType | None]()
    if not callable(mine) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def claimed(number: int, handler: Any) -> Any:
        return mine if number == signal.SIGTERM else real(number, handler)

    real(signal.SIGTERM, lambda number, frame: came.append(frame))
    signal.signal = claimed  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = real
        real(signal.SIGTERM, mine)
    if came:
        mine(signal.SIGTERM, came[0])


def _sweep() -> None:
    """Remove what drivers that were killed have left behind."""
    for folder in FOLDERS.glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        with suppress(OSError):  # another driver may be sweeping as well
            if owner.isdigit() and folder.stat().st_uid == os.getuid() and not _runs(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


Cluster = LocalCluster | RemoteCluster


def actor_class(worker: type[Any], *, cpus: float, gpus: float) -> Any:
    """``worker`` as a Ray actor that is never restarted or retried by Ray: the pool counts for itself."""
    import ray

    return ray.remote(worker).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)
