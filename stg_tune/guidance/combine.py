"""The guidance formulas of arXiv:2411.18664 as pure functions of predictions ``(batch, channels, ...)``.

Notation of the paper: ``c`` with the prompt, ``u`` with the negative prompt, ``p`` with the prompt and skipped layers,
``d = c - p``. Everything is per sample: a batch gives what its samples give one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.guidance.passes import StepPlan


class Rescale(Protocol):
    """What takes the guided prediction back to the spread of the prompted one."""

    def __call__(self, x: Tensor, c: Tensor, factor: float, /) -> Tensor:
        """``x`` rescaled by the share ``factor``, 0 to 1."""


def classifier_free(c: Tensor, u: Tensor, scale: float) -> Tensor:
    """``u + g (c - u)``, eq. 6."""
    return u + scale * (c - u)


def orthogonalised(deltas: Sequence[Tensor]) -> list[Tensor]:
    """Takes from each direction its part along the earlier ones, eq. 21 (Gram-Schmidt in the order given).

    A direction that is zero in a sample takes nothing away there.
    """
    found: list[Tensor] = []
    for delta in deltas:
        rest = delta
        for axis in found:
            rest = rest - _share(rest, axis) * axis
        found.append(rest)
    return found


def rescaled(x: Tensor, c: Tensor, factor: float) -> Tensor:
    """``x (phi std(c) / std(x) + 1 - phi)``, eq. 15-16 of arXiv:2305.08891, unbiased std of each sample."""
    return x * rescale_factor(x, c, factor)


def rescale_factor(x: Tensor, c: Tensor, factor: float) -> Tensor:
    """``phi std(c) / std(x) + 1 - phi`` of each sample, in a shape that broadcasts."""
    spread = _std(x)
    ratio = torch.where(spread > 0, _std(c) / spread, 1.0)
    return factor * ratio + (1 - factor)


def combine(plan: StepPlan, c: Tensor, u: Tensor | None, weak: Sequence[Tensor], rescale: Rescale = rescaled) -> Tensor:
    """The guided prediction of one step: eq. 6, plus eq. 13 (one term), eq. 20 or eq. 21 (several), then the rescale.

    Args:
        plan: Scales, combination and rescale.
        c: Prediction with the prompt.
        u: Prediction with the negative prompt, ``None`` when ``plan`` needs none.
        weak: One prediction a term of ``plan``, in its order.
        rescale: How; the prediction itself is rescaled unless another space is meant.
    """
    x = c if u is None else classifier_free(c, u, plan.cfg_scale)
    x = with_terms(plan, x, x, c, weak)
    return rescale(x, c, plan.rescale) if plan.rescale else x


def with_terms(plan: StepPlan, x: Tensor, guided: Tensor, c: Tensor, weak: Sequence[Tensor]) -> Tensor:
    """``x`` plus the scaled directions of all terms, eq. 13, 20, 21.

    Args:
        plan: Terms and how they are combined.
        x: What they are added to.
        guided: The result of eq. 6, from which terms on the branch ``from_guided`` point away.
        c: Prediction with the prompt, from which all other terms do.
        weak: One prediction a term.
    """
    pairs = list(zip(plan.terms, weak, strict=True))
    deltas = [(guided if term.branch == "from_guided" else c) - p for term, p in pairs]
    if plan.combination == "orthogonal":
        deltas = orthogonalised(deltas)
    for (term, _), delta in zip(pairs, deltas, strict=True):
        x = x + term.stg_scale * delta  # eq. 13, 20
    return x


def relative_effect(c: Tensor, p: Tensor) -> Tensor:
    """``||c - p|| / ||c||``, mean over the samples; a 0-dimensional tensor (0 where ``c`` is zero)."""
    size = _norm(c)
    return torch.where(size > 0, _norm(c - p) / size, 0.0).mean()


def _share(x: Tensor, axis: Tensor) -> Tensor:
    length = (axis * axis).flatten(1).sum(1)
    share = torch.where(length > 0, (x * axis).flatten(1).sum(1) / length, 0.0)
    return share.reshape(-1, *[1] * (x.dim() - 1))


def _std(x: Tensor) -> Tensor:
    return x.std(dim=tuple(range(1, x.dim())), keepdim=True)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm
