"""Where networks run, in which precision, and how many frames at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

CPU_BYTES = 2**26
"""Memory for feature maps on a CPU: about what its cache holds. With 1 GiB, a frame takes CLIP a sixth longer."""
GPU_BYTES = 2**32
"""The same on a GPU, if half of its free memory is not less: the video model is there, too."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Device, precision of the large towers, and memory for activations."""

    device: torch.device
    """Where the networks are."""
    dtype: torch.dtype
    """Of the CLIP towers; all other networks are small and stay in float32."""
    memory: int
    """Bytes that the feature maps of one pass may take."""

    @classmethod
    def automatic(cls, device: str | torch.device | None = None) -> Placement:
        """A GPU where torch sees one, with the towers in float16 as OpenAI runs them; else the CPU in float32."""
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if chosen.type != "cuda":
            return cls(device=chosen, dtype=torch.float32, memory=CPU_BYTES)
        free = torch.cuda.mem_get_info(chosen)[0]
        return cls(device=chosen, dtype=torch.float16, memory=min(GPU_BYTES, free // 2))

    def batch(self, bytes_each: float) -> int:
        """How many frames of ``bytes_each`` fit; at least one."""
        return max(1, int(self.memory / bytes_each))


def in_batches(compute: Callable[[Tensor], Tensor], inputs: Tensor, batch: int | None) -> Tensor:
    """``compute(inputs)``, in parts of ``batch`` rows; ``None``: in one part."""
    if batch is None or len(inputs) <= batch:
        return compute(inputs)
    return torch.cat([compute(part) for part in inputs.split(batch)])
