"""The process that evaluates: one model, one task at a time; what goes wrong comes back as words, never as tensors."""

from __future__ import annotations

import gc
import os
import socket
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.search.executor import attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stg_tune.records import Evaluation
    from stg_tune.search.executor import Evaluate, Task
    from stg_tune.search.workers.crew import Recipe

FRAMES = 3
"""Innermost places of a traceback that are told."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """An exception in words."""

    message: str
    """What, and where it came from."""
    fixable: bool
    """It was an ``StgTuneError``: for the user, and the same on every worker."""


class Worker:
    """What an actor of the pool is made of."""

    def __init__(self) -> None:
        self._evaluate: Evaluate | None = None

    def place(self) -> tuple[str, str]:
        """``host:pid``, and Ray's name of the machine."""
        import ray

        return _name(), ray.get_runtime_context().get_node_id()

    def load(self, recipe: Recipe, threads: int) -> Mapping[str, str] | Trouble:
        """Load the model; the worker's versions and checksums."""
        try:
            self._evaluate = recipe(threads)
            return dict(recipe.identity())
        except Exception as error:  # noqa: BLE001 - whatever it is, the pool decides
            return _trouble(error, f"{_name()} cannot load the model")

    def evaluate(self, task: Task) -> tuple[Evaluation, ...] | Trouble:
        """Evaluate one task, pair by pair or in one batch."""
        assert self._evaluate is not None
        try:
            evaluations = attempt(self._evaluate, task)
        except Exception as error:  # noqa: BLE001 - whatever it is, the pool decides
            return _trouble(error, _name())
        if any(evaluation.error for evaluation in evaluations):
            _free_memory()
        return evaluations


def _name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _trouble(error: Exception, where: str) -> Trouble:
    if isinstance(error, StgTuneError):
        return Trouble(message=str(error), fixable=True)
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    places = " < ".join(f"{frame.name} ({Path(frame.filename).name}:{frame.lineno})" for frame in reversed(frames))
    text = str(error).strip().splitlines()
    return Trouble(message=f"{where}: {type(error).__name__}: {text[0] if text else ''}; in {places}", fixable=False)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")  # here only if the model uses it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
