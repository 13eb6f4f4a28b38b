"""What the training scripts share: resumable checkpoints on a clock, and pixels as tensors."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor


def to_pixels(frames: NDArray[Any]) -> Tensor:
    """uint8 (..., height, width, 3) -> float (..., 3, height, width) in [-1, 1]."""
    return torch.from_numpy(frames).movedim(-1, -3).float() / 127.5 - 1


@dataclass(kw_only=True)
class Loop:
    """A training loop that may be ended at any moment and goes on from its last checkpoint."""

    path: Path
    """The checkpoint file."""
    state: Mapping[str, Any]
    """Name -> object with ``state_dict`` and ``load_state_dict``."""
    steps: int
    """Steps of the whole training, all sittings together."""
    save_every: float = 120.0
    """Seconds between checkpoints."""
    step: int = 0
    """Steps done."""
    log: list[dict[str, float]] = field(default_factory=list)
    """What the model card's loss curve is drawn from: one entry every 50 steps."""

    def resume(self) -> None:
        """Load the checkpoint if there is one."""
        if not self.path.exists():
            return
        saved = torch.load(self.path, weights_only=True)
        for name, holder in self.state.items():
            holder.load_state_dict(saved["state"][name])
        self.step, self.log = saved["step"], saved["log"]

    def run(self, train_step: Callable[[int], dict[str, float]]) -> None:
        """Call ``train_step(step)`` for all steps that are left; log the mean of what it returns."""
        begin, saved, window = time.monotonic(), time.monotonic(), list[dict[str, float]]()
        while self.step < self.steps:
            window.append(train_step(self.step))
            self.step += 1
            if self.step % 50 == 0:
                self._note(window, time.monotonic() - begin)
                window = []
            if time.monotonic() - saved > self.save_every:
                saved = time.monotonic()
                self.save()
        self.save()

    def _note(self, window: list[dict[str, float]], seconds: float) -> None:
        means = {key: sum(values[key] for values in window) / len(window) for key in window[0]}
        self.log.append({"step": float(self.step), **means})
        line = " ".join(f"{key} {value:.4f}" for key, value in means.items())
        print(f"{self.path.name} step {self.step}/{self.steps} {seconds:.0f} s {line}", flush=True)  # noqa: T201

    def save(self) -> None:
        """Write the checkpoint; a torn write leaves the earlier one in place."""
        state = {name: holder.state_dict() for name, holder in self.state.items()}
        data = {"state": state, "step": self.step, "log": self.log}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        torch.save(data, fresh)
        fresh.replace(self.path)

    def learning_rate(self, *, peak: float, warmup: int = 100, floor: float = 0.02) -> float:
        """Linear warm-up over ``warmup`` steps, flat until 60 % of the steps, then linear down to ``floor * peak``."""
        progress = self.step / self.steps
        decay = 1.0 if progress < 0.6 else 1 - (1 - floor) * (progress - 0.6) / 0.4
        return peak * min(1.0, (self.step + 1) / warmup) * decay


def curve(log: Sequence[dict[str, float]], points: int = 12) -> list[dict[str, float]]:
    """About ``points`` entries of a log, evenly spaced, the last one always among them."""
    every = max(1, len(log) // points)
    return list(log[::-1][::every][::-1])
