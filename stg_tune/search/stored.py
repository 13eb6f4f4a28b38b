"""Finds stored evaluations, for a second look at them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.search.driver import snapshot
from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.executor import Task
from stg_tune.search.fidelity import FULL
from stg_tune.search.plan import load_run
from stg_tune.search.storage import EvaluationTable
from stg_tune.search.workers.selftest import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stg_tune.search.plan import SearchPlan
    from stg_tune.search.storage import Row

SHOWN = 5
"""Names that a message lists."""


def rows_of(directory: Path) -> list[Row]:
    """Every stored evaluation of a run, in the order they were finished."""
    run = load_run(directory)
    table = EvaluationTable(run.storage, run.plan.model)
    try:
        return table.rows()
    finally:
        table.close()


def first_row(directory: Path) -> Reference | None:
    """An evaluation to compare workers with: the oldest with skip guidance, which contains what the default does.

    Before there is one, the oldest of all; ``None`` when there is none yet. Those that failed do not count.
    """
    rows = [row for row in rows_of(directory) if not row.evaluation.error]
    guided = (row for row in rows if not is_cfg_only(row.spec) and row.fidelity == FULL)
    row = next(guided, rows[0] if rows else None)
    return _reference(row) if row else None


def find_row(directory: Path, config: str, pair: str) -> Reference:
    """One stored evaluation; of several fidelities the full one.

    Args:
        directory: Folder of the run.
        config: ``default``, ``winner``, the number of a trial, or the beginning of a configuration's hash.
        pair: The number of a search pair (0, 1, ...), ``h`` and the number of a held-out pair, or the beginning of a
            pair's key.

    Raises:
        StgTuneError: There is no such row, or the words fit several.
    """
    plan, rows = load_run(directory).plan, rows_of(directory)
    wanted, key = _config(directory, plan, config), _pair(plan, pair)
    configs = {row.evaluation.config for row in rows if row.evaluation.config.startswith(wanted)}
    chosen = _only(sorted(configs), config, "configuration", sorted({row.evaluation.config for row in rows}))
    mine = sorted((row for row in rows if row.evaluation.config == chosen), key=lambda row: row.fidelity != FULL)
    known = list(dict.fromkeys(row.evaluation.pair.key for row in mine))
    found = _only([item for item in known if item.startswith(key)], pair, f"pair of configuration {chosen}", known)
    return _reference(next(row for row in mine if row.evaluation.pair.key == found))


def _config(directory: Path, plan: SearchPlan, word: str) -> str:
    if word == "default":
        return plan.baseline.hash()
    if word == "winner":
        verdict = snapshot(directory).verdict
        if verdict is None:
            raise StgTuneError(f"the run in {directory} has no winner yet; name a trial or a configuration")
        return verdict.winner.hash()
    if re.fullmatch(r"\d{1,5}", word):
        trials = snapshot(directory).trials
        if int(word) >= len(trials):
            raise StgTuneError(f"there is no trial {word}: the run has {len(trials)} so far, numbered from 0")
        return trials[int(word)].measurement.config
    return word


def _pair(plan: SearchPlan, word: str) -> str:
    number = re.fullmatch(r"(h?)(\d{1,5})", word)
    if number is None:
        return word
    pairs = plan.holdout_pairs if number[1] else plan.search_pairs
    if int(number[2]) >= len(pairs):
        raise StgTuneError(f"there is no pair {word}: numbers go from 0 to {len(pairs) - 1}")
    return pairs[int(number[2])].key


def _only(found: Sequence[str], word: str, what: str, known: Sequence[str]) -> str:
    if len(found) == 1:
        return found[0]
    listed = ", ".join((found or known)[:SHOWN]) or "none yet"
    problem = f"{len(found)} fit" if found else "none is stored"
    raise StgTuneError(f"no single {what} for {word!r}: {problem}; there are for instance {listed}")


def _reference(row: Row) -> Reference:
    task = Task(spec=row.spec, pair=row.evaluation.pair, role=row.role, fidelity=row.fidelity)
    return Reference(task=task, evaluation=row.evaluation, worker=row.worker)
