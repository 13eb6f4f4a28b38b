"""Where networks run, without a GPU: torch is told that there is one."""

from __future__ import annotations

import pytest
import torch

from stg_tune.score.placement import CPU_BYTES, GPU_BYTES, Placement, in_batches


def test_a_cpu_works_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here = Placement.automatic()
    assert (here.device.type, here.dtype, here.memory) == ("cpu", torch.float32, CPU_BYTES)


@pytest.mark.parametrize(("free", "memory"), [(2**31, 2**30), (2**40, GPU_BYTES)])
def test_a_gpu_is_taken_where_there_is_one_in_float16(monkeypatch: pytest.MonkeyPatch, free: int, memory: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**41))
    there = Placement.automatic()
    assert (there.device.type, there.dtype, there.memory) == ("cuda", torch.float16, memory)
    assert Placement.automatic("cpu").device.type == "cpu"


def test_at_least_one_frame_goes_through() -> None:
    little = Placement(device=torch.device("cpu"), dtype=torch.float32, memory=1000)
    assert (little.batch(300), little.batch(5000)) == (3, 1)


def test_parts_give_what_the_whole_gives() -> None:
    rows, seen = torch.arange(7.0)[:, None], []

    def compute(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(part))
        return part * 2

    assert torch.equal(in_batches(compute, rows, 3), rows * 2)
    assert torch.equal(in_batches(compute, rows, None), rows * 2)
    assert seen == [3, 3, 1, 7]
