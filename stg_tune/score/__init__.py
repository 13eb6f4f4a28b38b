"""Scorers: a batch of videos in, numbers with direction, range, unit and weights' checksum out.

The names below are loaded on first use, so that ``import stg_tune`` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stg_tune.score.base import Measure, Scorer, Videos01, View
    from stg_tune.score.composite import CompositeScorer
    from stg_tune.score.default import default_scorers
    from stg_tune.score.embedded import embedded_scorers

_HOMES = {
    "CompositeScorer": "composite",
    "Measure": "base",
    "Scorer": "base",
    "Videos01": "base",
    "View": "base",
    "default_scorers": "default",
    "embedded_scorers": "embedded",
}

__all__ = ["CompositeScorer", "Measure", "Scorer", "Videos01", "View", "default_scorers", "embedded_scorers"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
