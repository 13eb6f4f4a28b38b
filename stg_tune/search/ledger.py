"""Every evaluation goes through the ledger: answered from the table when known, else evaluated and committed first."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.search.fidelity import counts_as, in_full
from stg_tune.search.storage import EvaluationTable, Key, Row
from stg_tune.search.workers.selftest import Reference, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from stg_tune.records import Evaluation, GuidanceSpec
    from stg_tune.search.executor import Executor, Finished, Task

RECENT = 30
"""Evaluations that tell how long one takes now."""


class Ledger:
    """A cache over the table that also counts what a run has used.

    ``spent`` counts distinct (configuration, pair, fidelity) that the run asked for, from the table or not, so that a
    resumed run counts as the uninterrupted one would.

    Args:
        table: Where rows are kept.
        executor: Evaluates what is not known.
        versions: Library versions, stored with each new row.
        on_evaluation: Called with each evaluation the first time the run asks for it, and whether it is new.
        on_work: Called with the settings that are about to be evaluated, one an evaluation, and by how many workers.
    """

    def __init__(
        self,
        table: EvaluationTable,
        executor: Executor,
        *,
        versions: Mapping[str, str],
        on_evaluation: Callable[[Evaluation, bool], None],
        on_work: Callable[[Sequence[GuidanceSpec], int], None] = lambda specs, workers: None,
    ) -> None:
        self._table = table
        self._executor = executor
        self._versions = versions
        self._on_evaluation, self._on_work = on_evaluation, on_work
        self._known: dict[Key, Evaluation] = {_key(row): row.evaluation for row in table.rows()}
        self._used: dict[Key, Evaluation] = {}
        self._counts: Counter[str] = Counter()
        self._new: dict[Key, str] = {}

    @property
    def slots(self) -> int:
        """How many pairs run at the same time."""
        return self._executor.slots

    @property
    def spent(self) -> int:
        """Evaluations used by this run so far; cheaper ones count in part, their sum is rounded up."""
        return _sum(self._counts)

    @property
    def seconds(self) -> float:
        """Evaluation time behind ``spent``, summed over the workers."""
        return sum(row.seconds for row in self._used.values())

    @property
    def seconds_each(self) -> float:
        """Seconds that one evaluation at full fidelity takes now: the mean of the latest ``RECENT`` ones."""
        latest = list(self._used.items())[-RECENT:]
        return sum(in_full(key[2], row.seconds) for key, row in latest) / max(len(latest), 1)

    @property
    def used(self) -> Sequence[Evaluation]:
        """The evaluations behind ``spent``."""
        return tuple(self._used.values())

    def missing(self, tasks: Sequence[Task]) -> int:
        """How many of ``tasks`` would add to ``spent``."""
        return _sum(Counter(key[2] for key in {task.key for task in tasks} - self._used.keys()))

    def run(self, tasks: Sequence[Task]) -> Generator[Evaluation, None, None]:
        """Yield the evaluations in the order of ``tasks``; closing the generator early leaves the rest undone."""
        unknown = list({task.key: task for task in tasks if task.key not in self._known}.values())
        if unknown:
            self._on_work([task.spec for task in unknown], self.slots)
        with closing(self._executor.run(unknown)) as results:
            for task in tasks:
                yield self._use(task, results)

    def run_twice(self, tasks: Sequence[Task]) -> None:
        """Evaluate single pairs, then those that were not known once more: in the other order, so as a rule by others.

        With one worker there is nobody to compare with, and nothing is done twice.

        Raises:
            StgTuneError: Scores differ.
        """
        new = {task.key: task for task in tasks if task.key not in self._known}
        for _ in self.run(tasks):
            pass
        if not new or self.slots < 2:
            return
        with closing(self._executor.run(reversed(new.values()))) as again:
            for done in again:
                if done.task.key in new:
                    self._compare(done)
                else:  # left behind by an earlier run
                    self._commit(done)

    def _compare(self, done: Finished) -> None:
        """What has failed says nothing about the scores: the second time may have been the machine's fault."""
        key = done.task.key
        if done.evaluation.error or self._known[key].error:
            return
        before = Reference(task=done.task, evaluation=self._known[key], worker=self._new[key])
        compare(before, Reference(task=done.task, evaluation=done.evaluation, worker=done.worker))

    def _use(self, task: Task, results: Iterator[Finished]) -> Evaluation:
        while task.key not in self._known:
            self._commit(next(results))
        row = self._known[task.key]
        if task.key not in self._used:
            self._used[task.key] = row
            self._counts[task.fidelity] += 1
            self._on_evaluation(row, task.key in self._new)
        return row

    def _commit(self, finished: Finished) -> None:
        """Keep what is not known yet of a task, all of it in one transaction."""
        rows = [
            self._row(task, _finite(evaluation), finished.worker)
            for task, evaluation in zip(finished.task.single(), finished.evaluations, strict=True)
            if task.key not in self._known
        ]
        if rows:
            self._table.add(*rows)
        for row in rows:
            self._known[_key(row)] = row.evaluation
            self._new[_key(row)] = row.worker

    def _row(self, task: Task, evaluation: Evaluation, worker: str) -> Row:
        if (evaluation.config, evaluation.pair.key) != task.key[:2]:
            raise StgTuneError(
                f"asked for configuration {task.key[0]} on pair {task.key[1]}, the evaluator answered for "
                f"{evaluation.config} on {evaluation.pair.key}: it must return spec.hash() and the pair it was given"
            )
        return Row(
            spec=task.spec,
            evaluation=evaluation,
            role=task.role,
            fidelity=task.fidelity,
            worker=worker,
            versions=self._versions,
        )


def _key(row: Row) -> Key:
    return row.evaluation.config, row.evaluation.pair.key, row.fidelity


def _sum(counts: Mapping[str, int]) -> int:
    return math.ceil(round(sum(count * counts_as(fidelity) for fidelity, count in counts.items()), 6))


def _finite(evaluation: Evaluation) -> Evaluation:
    """Move scores that are no numbers to ``unscored``: arithmetic on NaN would hide them in every mean."""
    bad = {
        name: f"the score came out as {value}" for name, value in evaluation.scores.items() if not math.isfinite(value)
    }
    if not bad:
        return evaluation
    scores = {name: value for name, value in evaluation.scores.items() if name not in bad}
    return replace(evaluation, scores=scores, unscored={**evaluation.unscored, **bad})
