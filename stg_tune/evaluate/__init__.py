"""Evaluation suites: the paper's tables and curves, for any model that can be loaded. Loaded when first named."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stg_tune.evaluate.arms import Arm
    from stg_tune.evaluate.plan import EvaluationPlan
    from stg_tune.evaluate.rows import Row
    from stg_tune.evaluate.run import evaluate
    from stg_tune.evaluate.suites import SUITES, Suite, suite
    from stg_tune.evaluate.summary import summarise

_HOMES = {
    "SUITES": "suites",
    "Arm": "arms",
    "EvaluationPlan": "plan",
    "Row": "rows",
    "Suite": "suites",
    "evaluate": "run",
    "suite": "suites",
    "summarise": "summary",
}

__all__ = ["SUITES", "Arm", "EvaluationPlan", "Row", "Suite", "evaluate", "suite", "summarise"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
