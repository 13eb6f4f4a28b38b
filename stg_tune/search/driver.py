"""The public entry of the search: start a run, go on with one, look at one, preview one."""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.search.budget import Division, parse_budget
from stg_tune.search.executor import Evaluate, Executor, Finished, InlineExecutor, Task
from stg_tune.search.fidelity import FULL
from stg_tune.search.fidelity_check import check_cost, pointless
from stg_tune.search.finalists import repeated_finalists
from stg_tune.search.inflight import InFlight, watched
from stg_tune.search.lock import DriverLock
from stg_tune.search.plan import Allowance, RunFile, SearchPlan, load_run
from stg_tune.search.progress import Progress, Tracker, silent, worked_before
from stg_tune.search.session import Session, divide_plan
from stg_tune.search.storage import EvaluationTable
from stg_tune.search.timing import extended, is_longer
from stg_tune.search.workers.selftest import Reference, compare

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from stg_tune.search.progress import Status
    from stg_tune.search.result import SearchResult
    from stg_tune.search.storage import Row


def run_search(
    plan: SearchPlan,
    evaluate: Evaluate | None = None,
    *,
    directory: Path,
    storage: str | None = None,
    executor: Executor | None = None,
    progress: Progress = silent,
    takeover: bool = False,
    repeat: Reference | None = None,
) -> SearchResult:
    """Run a search, or go on with the one in ``directory``.

    Args:
        plan: What to search; for an existing folder it must be the same, save for a larger budget.
        evaluate: Generates and scores one pair, in this process.
        directory: Folder of the run: ``run.json``, ``state.json``, ``driver.lock`` and, by default, ``study.db``.
        storage: SQLAlchemy URL; default ``sqlite:///DIR/study.db``.
        executor: Evaluates pairs elsewhere, in place of ``evaluate``.
        progress: Told after each evaluation.
        takeover: Ignore a lock left by another host; where there is no run yet, such a lock protects nothing.
        repeat: A row that is stored; it is evaluated again, and other scores than then are an error.

    Returns:
        The result; ``result.race.verdict`` says whether anything is better than the default.

    Raises:
        StgTuneError: Something the user can fix.
        KeyboardInterrupt: After the state has been written; calling again goes on.
    """
    if executor is None:
        if evaluate is None:
            raise StgTuneError("run_search needs evaluate or executor")
        executor = InlineExecutor(watched(evaluate, InFlight(directory)))
    with DriverLock(directory, takeover=takeover or not (directory / "run.json").exists()):
        run = _open_run(plan, directory, storage, executor.slots)
        if repeat is not None:
            check_repeats(executor, repeat)
        return _drive(run, directory, executor, progress)


def snapshot(directory: Path) -> SearchResult:
    """What a run has found so far, without evaluating anything and without disturbing its driver."""
    session = Session(load_run(directory), _NoExecutor(), Tracker(silent, None), directory=None)
    try:
        return session.run()
    except _NotEvaluatedError:
        return session.result()
    finally:
        session.close()


def preview(plan: SearchPlan, *, seconds_each: float | None = None, slots: int = 1) -> Division:
    """The division of the budget before anything is spent.

    Args:
        plan: What would be searched.
        seconds_each: Seconds of one baseline evaluation; needed for a time budget.
        slots: Workers.
    """
    budget = parse_budget(plan.budget)
    if budget.evaluations is None and seconds_each is None:
        raise StgTuneError(f"budget {plan.budget!r} is a time: it is divided once the baseline has been timed")
    return divide_plan(plan, [budget.in_evaluations(seconds_each or 0.0, slots)])


def outlook(plan: SearchPlan, division: Division) -> str:
    """What will become of the fidelity of screen and trials, in words; empty when it is not left open.

    Args:
        plan: What would be searched.
        division: Of its budget, as ``preview`` gives it.
    """
    if plan.fidelity == FULL:
        return ""
    reason = pointless(plan, division, repeated_finalists(division))
    if reason:
        return f"everything at full fidelity: {reason}"
    cost = check_cost(division.search_pairs)
    return f"up to {cost} evaluations of the search's share will check whether half of the steps rank settings alike"


def _drive(run: RunFile, directory: Path, executor: Executor, progress: Progress) -> SearchResult:
    tracker = Tracker(progress, directory)
    session = Session(run, executor, tracker, directory=directory)
    try:
        result = session.run()
    except (KeyboardInterrupt, SystemExit):  # the latter is Ray's answer to SIGTERM
        signal.alarm(0)  # by which Ray would abort the process before the stop is a clean one
        _note(tracker, "interrupted", "stopped by the user; resume goes on")
        raise
    except Exception as error:
        _note(tracker, "failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        session.close()
    tracker.finish("finished")
    return result


def check_repeats(executor: Executor, stored: Reference) -> None:
    """Evaluate a stored row again; raise ``StgTuneError`` when it does not come out as it was."""
    for done in executor.run([stored.task]):
        compare(stored, Reference(task=stored.task, evaluation=done.evaluation, worker=done.worker))


def _note(tracker: Tracker, status: Status, message: str) -> None:
    with suppress(StgTuneError):  # a full disk must not hide what has happened
        tracker.finish(status, message)


def _open_run(plan: SearchPlan, directory: Path, storage: str | None, slots: int) -> RunFile:
    url = storage or f"sqlite:///{(directory / 'study.db').resolve()}"
    if not (directory / "run.json").exists():
        table = EvaluationTable(url, plan.model)  # before run.json: a bad URL must not end up in it
        table.claim(plan.fingerprint())
        table.close()
        run = RunFile(plan=plan, storage=url, allowances=(_allowance(plan.budget),))
        run.save(directory)
        return run
    run = load_run(directory)
    if run.plan.fingerprint() != plan.fingerprint():
        raise StgTuneError(
            f"{directory} holds a run with another model, space, pairs, scorers or seed; use resume {directory} to "
            "go on with it, or another folder for this one"
        )
    if storage is not None and storage != run.storage:
        raise StgTuneError(f"the run in {directory} keeps its numbers in {run.storage}; leave out --storage")
    return _extended(run, plan.budget, directory, slots)


def _extended(run: RunFile, budget: str, directory: Path, slots: int) -> RunFile:
    """The run with a larger budget; a time is turned into evaluations by what those that are stored have taken."""
    current, new = run.allowances[-1], _allowance(budget)
    if budget == current.budget:
        return run
    rows = _rows(run)
    if rows:
        elapsed = worked_before(directory)
        count = extended(parse_budget(budget), rows, elapsed=elapsed, slots=slots)
        # where time ran short, fewer were made than had been planned
        known = current.evaluations if current.search_end is None else len(rows)
        new = replace(new, evaluations=count if known is not None else new.evaluations)
        if known is not None and not (count > known and is_longer(parse_budget(budget), parse_budget(current.budget))):
            raise StgTuneError(
                f"the run in {directory} has the budget {current.budget}, {known} evaluations; it can be extended by a "
                f"larger one only, and {budget} comes to {count}"
            )
    kept = run.allowances if rows and current.evaluations is not None else run.allowances[:-1]
    run = replace(run, plan=replace(run.plan, budget=budget), allowances=(*kept, new))
    run.save(directory)
    return run


def _rows(run: RunFile) -> list[Row]:
    table = EvaluationTable(run.storage, run.plan.model)
    try:
        return table.rows()
    finally:
        table.close()


def _allowance(budget: str) -> Allowance:
    return Allowance(budget=budget, evaluations=parse_budget(budget).evaluations)


class _NotEvaluatedError(Exception):
    """A look at a run has come to what is not there yet."""


class _NoExecutor:
    """Evaluates nothing: everything must be in the table."""

    slots = 1

    def run(self, tasks: Iterable[Task]) -> Generator[Finished, None, None]:
        for task in tasks:
            raise _NotEvaluatedError(task.key)
        yield from ()
