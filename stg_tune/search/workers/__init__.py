"""Workers: a pool that other processes and machines evaluate pairs in (Ray is imported when a pool begins to work)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stg_tune.search.workers.crew import Recipe
    from stg_tune.search.workers.executor import RayExecutor, RaySettings
    from stg_tune.search.workers.pool import Pool
    from stg_tune.search.workers.selftest import Reference

__all__ = ["Pool", "RayExecutor", "RaySettings", "Recipe", "Reference"]

_HOMES = {
    "crew": ("Recipe",),
    "executor": ("RayExecutor", "RaySettings"),
    "pool": ("Pool",),
    "selftest": ("Reference",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"stg_tune.search.workers.{module}"), name)
    raise AttributeError(f"module 'stg_tune.search.workers' has no attribute {name!r}")
