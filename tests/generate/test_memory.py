"""Freed memory stays with the process, unless the user has decided otherwise."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the allocator is told only where it is glibc's"
)

BYTES, PAGE, ROUNDS = 100_000_000, 4096, 5
PROGRAM = f"""
import resource, sys
import numpy as np
from stg_tune.generate.memory import keep_freed_memory
print(keep_freed_memory())
faults = []
for _ in range({ROUNDS}):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones({BYTES}, dtype=np.uint8)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[1:]))
"""


def run(**environment: str) -> tuple[str, int]:
    """Whether memory is kept, and how many pages of blocks after the first had to be made."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env={"PATH": "", **environment}
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


def test_a_block_that_was_freed_is_used_again_without_new_pages() -> None:
    kept, faults = run()
    assert kept == "True"
    assert faults < 0.05 * BYTES / PAGE


@pytest.mark.parametrize("chosen", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_an_allocator_that_the_user_has_tuned_is_left_alone(chosen: str) -> None:
    assert run(**{chosen: "2" if chosen.startswith("M") else "glibc.malloc.arena_max=2"})[0] == "False"
