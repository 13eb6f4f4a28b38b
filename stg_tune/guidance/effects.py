"""What a guided run measured: how much every weak prediction differs, and what was computed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stg_tune.records import SkipOp, SkipTerm

# Rows of a batch of another size differ by rounding alone: less than this share of the prediction is no effect.
_ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-4, torch.bfloat16: 4e-3}

_REASONS: dict[SkipOp, str] = {
    "attention": "each query sees a single key there (temporal attention of one frame), or the attention is gated off",
    "residual": "these blocks add nothing to their input",
    "salient_blur": "the latents are flat, or attention rests everywhere alike",
    "weak_model": "the weak model is the model itself",
}
_ANY_REASON = "what is perturbed there adds nothing to the prediction"


class GuidedRun:
    """The report of a ``with stg_tune.guided(...)``; grows while pipelines run inside it."""

    def __init__(self, terms: Iterable[SkipTerm], dtype: torch.dtype) -> None:
        self.forwards = 0.0
        """Denoiser-forward equivalents of one row so far: a prompted or negative row counts 1, a row of a weak pass
        the share of the blocks it ran (a block whose attention alone was skipped counts as run)."""
        self._ops = {term.name: term.skip_op for term in terms}
        self._sums: dict[str, Tensor] = {}
        self._series: dict[str, list[Tensor]] = {}
        self._steps = dict.fromkeys(self._ops, 0)
        self._rounding = _ROUNDING.get(dtype, 1e-5)

    def effects(self) -> dict[str, float]:
        """Term -> mean of ``||c - p|| / ||c||`` over samples and active steps; 0 for a term that was never active."""
        return {name: float(self._sums[name]) / steps if steps else 0.0 for name, steps in self._steps.items()}

    def effect_series(self) -> dict[str, tuple[float, ...]]:
        """Term -> ``||c - p|| / ||c||`` of each active step, in their order."""
        return {name: tuple(map(float, values)) for name, values in self._series.items()}

    def add_effect(self, term: str, effect: Tensor) -> None:
        """Notes one active step; ``effect`` stays on its device until somebody asks."""
        self._sums[term] = self._sums[term] + effect if term in self._sums else effect
        self._series.setdefault(term, []).append(effect)
        self._steps[term] += 1

    def warn_without_effect(self) -> None:
        """Warns of every term that was active and changed nothing beyond rounding."""
        for name, effect in self.effects().items():
            if self._steps[name] and effect <= self._rounding:
                reason = _REASONS.get(self._ops[name], _ANY_REASON)
                warnings.warn(
                    f"term {name!r} had no effect: its weak prediction equals the prompted one (relative difference "
                    f"{effect:.1e} over {self._steps[name]} steps). Likely {reason}. It cost a "
                    "forward pass a step for nothing: skip other layers, or set its stg_scale to 0.",
                    UserWarning,
                    stacklevel=4,
                )
