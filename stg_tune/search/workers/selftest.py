"""The same setting on the same pair must give the same scores on every worker, else pairs cannot be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from stg_tune.records import Evaluation
    from stg_tune.search.executor import Task
    from stg_tune.search.workers.staff import Member

SAME = 1e-3
"""Scores that differ by less than this fraction are the same: far below what a setting does, above rounding."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An evaluation that is known, for comparison."""

    task: Task
    """What was asked."""
    evaluation: Evaluation
    """What it gave."""
    worker: str
    """Who did it."""


class SelfTest:
    """Has one task done by two workers, and by one worker of every further machine, before they count.

    Args:
        reference: A row of an earlier session; every machine is then compared with it.
    """

    def __init__(self, reference: Reference | None) -> None:
        self._reference = reference
        self._task = reference.task if reference else None
        self._enough = 1 if reference else 2
        self._given: dict[int, str] = {}

    def task_for(self, member: Member) -> Task | None:
        """The task that ``member`` must do before any other, if there is one."""
        if self._task is None or member.number in self._given:
            return None
        if len(self._given) >= self._enough and member.node in self._given.values():
            return None
        self._given[member.number] = member.node
        return self._task

    def given(self, member: Member, task: Task) -> None:
        """``member`` begins an ordinary task; the first one becomes the test."""
        if self._task is None:
            self._task = task
        if task.key == self._task.key:
            self._given[member.number] = member.node

    def forget(self, member: Member) -> None:
        """``member`` is gone."""
        self._given.pop(member.number, None)
        if self._reference is None and not self._given:  # nobody is left to compare with
            self._task = None

    def check(self, member: Member, task: Task, evaluations: tuple[Evaluation, ...]) -> None:
        """Compare, when ``task`` is the test; of a batch, the first pair stands for all.

        Raises:
            StgTuneError: The scores differ.
        """
        if self._task is None or task.key != self._task.key:
            return
        evaluation = evaluations[0]
        if self._reference is not None:
            compare(self._reference, Reference(task=task, evaluation=evaluation, worker=member.name))
        elif evaluation.error:  # says nothing about workers: the next task is the test
            self._task = None
            self._given.clear()
        else:
            self._reference = Reference(task=task, evaluation=evaluation, worker=member.name)


def differences(one: Evaluation, other: Evaluation) -> list[str]:
    """Scorers whose numbers are not the same, in words; empty when all are."""
    if one.error or other.error:
        return [] if one.error == other.error else [f"error {one.error or 'none'!r} and {other.error or 'none'!r}"]
    names = dict.fromkeys((*one.scores, *other.scores))
    return [
        f"{name} {_shown(one.scores.get(name))} and {_shown(other.scores.get(name))}"
        for name in names
        if not _same(one.scores.get(name), other.scores.get(name))
    ]


def compare(one: Reference, other: Reference) -> None:
    """Raise ``StgTuneError`` when two evaluations of one task differ."""
    found = differences(one.evaluation, other.evaluation)
    if found:
        raise StgTuneError(
            f"the same setting on the same pair (configuration {one.task.key[0]}, pair {one.task.key[1]}) gave "
            f"different scores on {one.worker} and {other.worker}: {'; '.join(found)}. A score must not depend on the "
            "worker: use one kind of GPU, one checkpoint and one version of every library"
        )


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=SAME, abs_tol=1e-6)


def _shown(value: float | None) -> str:
    return "no score" if value is None else f"{value:.6g}"
