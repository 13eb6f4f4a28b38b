"""The memory that one video on a CPU has freed is kept for the next one."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of mallopt(3), by the numbers of ``malloc.h``."""
MOST = 2**31 - 1
"""Bytes; what is free at the end of the heap is given back beyond it, and an ``int`` holds no more."""
RESERVE = 2**26
"""Bytes by which the heap grows at least, so that it grows seldom."""


@cache
def keep_freed_memory() -> bool:
    """Have glibc keep what tensors free, for the whole process; whether it does.

    Otherwise large blocks go back to the system each time, which then clears them page by page when they are asked for
    again: a quarter of the time of a small video model. Numbers stay the same; the process keeps its peak of memory.
    Left alone where the user has tuned the allocator (``MALLOC_...``, ``GLIBC_TUNABLES``), and where there is no glibc.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    # no block of its own for large ones: a threshold of more than 32 MB is refused by older versions
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: MOST, M_TOP_PAD: RESERVE}
    return {library.mallopt(name, value) for name, value in wanted.items()} == {1}
