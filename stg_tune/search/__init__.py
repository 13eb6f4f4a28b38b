"""Finds the configuration: space, screen, Optuna study, race, statistics, storage (no torch; Optuna when used)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stg_tune.search.driver import preview, run_search, snapshot
    from stg_tune.search.executor import Evaluate, EvaluationError, Executor, InlineExecutor
    from stg_tune.search.plan import SearchPlan, load_run, split_pairs
    from stg_tune.search.progress import Progress, ProgressEvent
    from stg_tune.search.result import SearchResult
    from stg_tune.search.space import SearchSpace, WarmStart
    from stg_tune.search.space_file import load_space, space_names

__all__ = [
    "Evaluate",
    "EvaluationError",
    "Executor",
    "InlineExecutor",
    "Progress",
    "ProgressEvent",
    "SearchPlan",
    "SearchResult",
    "SearchSpace",
    "WarmStart",
    "load_run",
    "load_space",
    "preview",
    "run_search",
    "snapshot",
    "space_names",
    "split_pairs",
]

_HOMES = {
    "driver": ("preview", "run_search", "snapshot"),
    "executor": ("Evaluate", "EvaluationError", "Executor", "InlineExecutor"),
    "plan": ("SearchPlan", "load_run", "split_pairs"),
    "progress": ("Progress", "ProgressEvent"),
    "result": ("SearchResult",),
    "space": ("SearchSpace", "WarmStart"),
    "space_file": ("load_space", "space_names"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"stg_tune.search.{module}"), name)
    raise AttributeError(f"module 'stg_tune.search' has no attribute {name!r}")
