"""Gaussian blur along the axes of a grid: of queries (SEG, arXiv:2408.00760) and of latents (SAG, arXiv:2210.00939).

At the border the weights of what is there add up to one, so nothing is invented outside, and a blur without end is the
mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def gaussian(length: int, sigma: float) -> Tensor:
    """``(length, length)``, float32: row i has the weights with which position i sees all; they add up to 1."""
    place = torch.arange(length, dtype=torch.float32)
    return torch.softmax(-((place[:, None] - place) ** 2) / (2 * sigma**2), dim=-1)


def blurred(x: Tensor, sigma: float, dims: Sequence[int]) -> Tensor:
    """``x`` with a Gaussian of standard deviation ``sigma`` (in steps of the grid) over each of ``dims``."""
    found = x.float()
    for dim in dims:
        kernel = gaussian(x.shape[dim], sigma).to(x.device)
        found = (found.transpose(dim, -1) @ kernel.T).transpose(dim, -1)
    return found.to(x.dtype)
