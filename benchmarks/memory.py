"""A full search without a disk: the stages, the sampler and the verdict are the real ones, the storage forgets."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

from stg_tune.records import GuidanceSpec
from stg_tune.search.budget import parse_budget
from stg_tune.search.executor import InlineExecutor
from stg_tune.search.plan import Allowance, RunFile
from stg_tune.search.progress import Tracker, silent
from stg_tune.search.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from stg_tune.search import Evaluate, SearchPlan, SearchResult
    from stg_tune.search.bench import Measurement
    from stg_tune.search.storage import Row


_HASH = GuidanceSpec.hash


def _remembered(spec: GuidanceSpec) -> str:
    """The hash of a setting, computed once: it is asked for a dozen times an evaluation."""
    known: str | None = spec.__dict__.get("_hash")
    if known is None:
        known = _HASH(spec)
        object.__setattr__(spec, "_hash", known)
    return known


class NoTable:
    """In place of ``EvaluationTable``: what is asked twice is in the ledger's memory already."""

    def __init__(self, url: str, study: str) -> None:
        """Nothing to open."""

    def rows(self) -> list[Row]:
        """Nothing is known at the start."""
        return []

    def add(self, *rows: Row) -> None:
        """Forget."""

    def close(self) -> None:
        """Nothing to close."""


class NoStore:
    """In place of ``TrialStore``: the live Optuna study holds the trials."""

    def __init__(self, url: str, study: str, *, read_only: bool, previews: Path | None = None) -> None:
        """Nothing to open."""

    def finished(self) -> list[FrozenTrial]:
        """Nothing to take over."""
        return []

    def add(self, trial: FrozenTrial) -> None:
        """Forget."""


def search_in_memory(
    plan: SearchPlan, evaluate: Evaluate, on_lead: Callable[[GuidanceSpec], None] = lambda spec: None
) -> SearchResult:
    """The result that ``run_search`` would give in an empty folder, several times as fast when evaluations are free.

    Args:
        plan: What is searched.
        evaluate: Answers.
        on_lead: Called with what the search holds to be best, whenever that changes.
    """
    allowance = Allowance(budget=plan.budget, evaluations=parse_budget(plan.budget).evaluations)
    run = RunFile(plan=plan, storage="", allowances=(allowance,))
    # Session opens its storage by URL, and the commit of every row is three quarters of a simulated search
    storage = patch.multiple("stg_tune.search.session", EvaluationTable=NoTable, TrialStore=NoStore)
    with storage, patch.object(GuidanceSpec, "hash", _remembered):
        session = _Watched(run, InlineExecutor(evaluate), Tracker(silent, None), directory=None)
        session.on_lead = on_lead
        return session.run()


class _Watched(Session):
    """Tells who leads."""

    on_lead: Callable[[GuidanceSpec], None]

    def _lead_in_sample(self, name: str, leader: Measurement) -> None:
        self.on_lead(leader.spec)
