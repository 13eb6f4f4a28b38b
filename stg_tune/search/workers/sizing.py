"""How many workers a machine can hold: cores, memory, GPUs."""

from __future__ import annotations

import math
import os
from pathlib import Path

PROCESS_BYTES = 1_500_000_000
"""Memory of a worker with torch, without its model."""
FILES_FACTOR = 1.5
"""Memory of a model over the size of its files: what it computes with comes on top."""
ROUNDING = 1e-6
"""A share such as a third is not a whole fraction of 1 in binary."""
CPU_TOPOLOGY = Path("/sys/devices/system/cpu")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
MODEL_FILES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")


def cores() -> int:
    """Physical cores that this process may use; two hyperthreads are one core."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = {_siblings(number) for number in allowed}
    return max(len(siblings), 1)


def free_memory() -> int:
    """Bytes that new processes may use, a limit of the container included."""
    free = _meminfo().get("MemAvailable", 0) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(free, int(MEMORY_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no limit
        return free


def model_bytes(folder: Path | None) -> int:
    """Memory of one worker whose model lies in ``folder``; without one, that of the process alone."""
    files = (path for path in folder.rglob("*") if path.suffix in MODEL_FILES) if folder is not None else ()
    return PROCESS_BYTES + int(FILES_FACTOR * sum(path.stat().st_size for path in files))


def workers_for(*, gpus: int, gpus_per_worker: float, worker_bytes: int) -> int:
    """One worker a GPU (or a share of one); without a GPU one a core, as long as memory lasts; at least 1.

    Args:
        gpus: GPUs of this machine.
        gpus_per_worker: GPUs of one worker; 0: it computes on the processor.
        worker_bytes: Memory of one worker.
    """
    if gpus and gpus_per_worker > 0:
        return max(workers_on(gpus, gpus_per_worker), 1)
    return max(min(cores(), free_memory() // worker_bytes), 1)


def workers_on(gpus: float, share: float) -> int:
    """How many workers GPUs are enough for: Ray lets several share one GPU, but none have parts of two."""
    if share < 1:
        return math.floor(gpus + ROUNDING) * math.floor(1 / share + ROUNDING)
    return math.floor(gpus / share + ROUNDING)


def gpus_under(workers: int, share: float) -> int:
    """GPUs that a number of workers need, the reverse of ``workers_on``."""
    if share <= 0:
        return 0
    return math.ceil(workers / workers_on(1, share)) if share < 1 else math.ceil(workers * share - ROUNDING)


def _siblings(number: int) -> str:
    try:
        return (CPU_TOPOLOGY / f"cpu{number}/topology/thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(number)


def _meminfo() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    fields = (line.replace(":", " ").split() for line in lines)
    return {field[0]: int(field[1]) * 1024 for field in fields if len(field) == 3}
