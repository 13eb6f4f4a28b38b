import math
from collections import Counter
from dataclasses import replace

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.driver import run_search
from stg_tune.search.executor import BatchingExecutor, Finished, InlineExecutor, Task
from stg_tune.search.ledger import Ledger
from stg_tune.search.storage import EvaluationTable

PAIRS = [Pair(prompt="p", seed=i) for i in range(4)]
SPEC = GuidanceSpec(cfg_scale=2.0)
TASKS = [Task(spec=SPEC, pair=pair, role="search") for pair in PAIRS]


class Backwards:
    """Several workers finish in any order: here, the last first."""

    slots = 4

    def run(self, tasks):
        for task in reversed(list(tasks)):
            yield Finished(task=task, evaluation=score(task.spec, task.pair), worker="w")


def score(spec, pair):
    return Evaluation(config=spec.hash(), pair=pair, scores={"a": float(pair.seed)}, seconds=0.5)


@pytest.fixture
def make(tmp_path):
    def ledger(executor, told=None):
        table = EvaluationTable(f"sqlite:///{tmp_path / 'study.db'}", "m")
        note = (lambda row, new: told.append((row.pair.seed, new))) if told is not None else lambda row, new: None
        return Ledger(table, executor, versions={}, on_evaluation=note)

    return ledger


def test_nothing_is_evaluated_twice_in_one_run_or_the_next(make):
    calls, told = [], []

    def counted(spec, pair):
        calls.append(pair.seed)
        return score(spec, pair)

    first = make(InlineExecutor(counted), told)
    assert [row.pair.seed for row in first.run([*TASKS[:2], TASKS[0]])] == [0, 1, 0]
    second = make(InlineExecutor(counted), told)
    assert second.missing(TASKS) == 4
    assert [row.pair.seed for row in second.run(TASKS)] == [0, 1, 2, 3]
    assert calls == [0, 1, 2, 3]
    assert told == [(0, True), (1, True), (0, False), (1, False), (2, True), (3, True)]
    assert (first.spent, second.spent, second.seconds, second.missing(TASKS)) == (2, 4, 2.0, 0)


def test_the_order_of_the_answers_does_not_depend_on_the_workers(make):
    assert [row.pair.seed for row in make(Backwards()).run(TASKS)] == [0, 1, 2, 3]


def test_stopping_early_leaves_the_rest_undone_but_keeps_what_is_done(make):
    ledger = make(InlineExecutor(score))
    stream = ledger.run(TASKS)
    next(stream)
    stream.close()
    assert ledger.spent == 1
    assert len(ledger._table.rows()) == 1


def test_numbers_that_are_none_become_could_not_score(make):
    def broken(spec, pair):
        return Evaluation(config=spec.hash(), pair=pair, scores={"a": math.nan, "b": 1.0, "c": math.inf})

    row = next(make(InlineExecutor(broken)).run(TASKS))
    assert row.scores == {"b": 1.0}
    assert row.unscored == {"a": "the score came out as nan", "c": "the score came out as inf"}


def test_an_answer_to_another_question_is_refused(make):
    def confused(spec, pair):
        return score(GuidanceSpec(cfg_scale=9.0), pair)

    with pytest.raises(StgTuneError, match=r"must return spec\.hash\(\)"):
        next(make(InlineExecutor(confused)).run(TASKS))


def test_a_batch_is_kept_as_a_whole_and_its_rows_count_when_they_are_asked_for(make):
    ledger = make(BatchingExecutor(InlineExecutor(score), 3))
    stream = ledger.run(TASKS)
    next(stream)
    stream.close()
    assert ledger.spent == 1
    assert [row.evaluation.pair.seed for row in ledger._table.rows()] == [0, 1]
    assert [row.pair.seed for row in ledger.run(TASKS)] == [0, 1, 2, 3]
    assert ledger.spent == 4


def test_what_a_late_batch_brings_for_the_second_time_is_dropped(make):
    class Late:
        """Hands out what another call has abandoned: the same pairs in another batch."""

        slots = 1

        def run(self, tasks):
            first, *rest = tasks
            for task in (replace(first, more=(PAIRS[1], PAIRS[2])), replace(first, more=PAIRS[1:2]), *rest):
                one, *more = (score(task.spec, pair) for pair in task.pairs)
                yield Finished(task=task, evaluation=one, worker="w", more=tuple(more))

    ledger = make(Late())
    assert [row.pair.seed for row in ledger.run(TASKS)] == [0, 1, 2, 3]
    assert len(ledger._table.rows()) == 4


class TwoWorkers:
    """Hands the first task to the first worker, the next to the second; ``wrong`` adds to what the second says."""

    slots = 2

    def __init__(self, wrong=0.0):
        self.wrong, self.done = wrong, []

    def run(self, tasks):
        for number, task in enumerate(tasks):
            done = score(task.spec, task.pair)
            if number % 2:
                done = replace(done, scores={"a": done.scores["a"] + self.wrong})
            self.done.append((f"w{number % 2}", task.pair.seed))
            yield Finished(task=task, evaluation=done, worker=f"w{number % 2}")


def test_what_is_done_twice_is_done_by_another_worker_and_stored_once(make, tmp_path):
    executor, told = TwoWorkers(), []
    ledger = make(executor, told)
    ledger.run_twice(TASKS[:2])
    assert executor.done == [("w0", 0), ("w1", 1), ("w0", 1), ("w1", 0)]
    assert told == [(0, True), (1, True)]
    assert ledger.spent == 2
    assert len(EvaluationTable(f"sqlite:///{tmp_path / 'study.db'}", "m").rows()) == 2
    ledger.run_twice(TASKS[:2])  # known, in this session or from an earlier one: the rest of a run need not prove it
    assert len(executor.done) == 4


def test_workers_that_do_not_agree_about_a_skip_end_the_run(make):
    with pytest.raises(StgTuneError, match=r"different scores on w1 and w0: a 1\.1 and 1\. A score must not"):
        make(TwoWorkers(wrong=0.1)).run_twice(TASKS[:2])


def test_one_worker_does_nothing_twice(make):
    calls = []
    make(InlineExecutor(lambda spec, pair: calls.append(pair.seed) or score(spec, pair))).run_twice(TASKS[:2])
    assert calls == [0, 1]


def test_a_screen_has_its_first_settings_done_twice(landscape, make_plan, tmp_path):
    """The default says nothing about what skips: a worker that differs only there must be found out at once."""
    scene = landscape(name="d1", noise=0.4)
    seen = Counter()

    class Workers(TwoWorkers):
        def run(self, tasks):
            for number, task in enumerate(tasks):
                done = scene(task.spec, task.pair)
                seen[task.key] += 1
                if number % 2 and task.spec.segments:
                    done = replace(done, scores={**done.scores, "aesthetic": 99.0})
                yield Finished(task=task, evaluation=done, worker=f"w{number % 2}")

    with pytest.raises(StgTuneError, match=r"different scores on .* aesthetic"):
        run_search(make_plan(scene, budget="150", prompts=200), executor=Workers(), directory=tmp_path)
    assert max(seen.values()) == 2
