import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.executor import BatchingExecutor, EvaluationError, InlineExecutor, Task, batches

PAIR = Pair(prompt="p", seed=1)
TASKS = [Task(spec=GuidanceSpec(cfg_scale=float(g)), pair=PAIR, role="search") for g in (1, 2, 3)]


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


def fine(spec, pair):
    return Evaluation(config=spec.hash(), pair=pair, scores={"a": spec.cfg_scale})


def test_results_come_in_order_with_their_worker():
    finished = list(InlineExecutor(fine).run(TASKS))
    assert [item.task for item in finished] == TASKS
    assert [item.evaluation.scores["a"] for item in finished] == [1, 2, 3]
    assert ":" in finished[0].worker


def test_nothing_is_done_before_it_is_asked_for():
    seen = []

    def note(spec, pair):
        seen.append(spec.cfg_scale)
        return fine(spec, pair)

    stream = InlineExecutor(note).run(TASKS)
    next(stream)
    stream.close()
    assert seen == [1]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EvaluationError("nan", "latents"), "nan: latents"),
        (FloatingPointError("overflow"), "nan: overflow"),
        (TimeoutError("too slow"), "timeout: too slow"),
        (MemoryError(), "oom: out of memory"),
        (OutOfMemoryError("CUDA out of memory\nmore"), "oom: CUDA out of memory"),
    ],
)
def test_failures_of_the_configuration_are_recorded(error, text):
    def fail(spec, pair):
        raise error

    done = next(InlineExecutor(fail).run(TASKS)).evaluation
    assert (done.error, done.scores, done.config, done.pair) == (text, {}, TASKS[0].spec.hash(), PAIR)


def test_a_bug_is_not_a_bad_configuration():
    def buggy(spec, pair):
        raise AttributeError("typo")

    with pytest.raises(AttributeError, match="typo"):
        next(InlineExecutor(buggy).run(TASKS))


PAIRS = [Pair(prompt="p", seed=seed) for seed in range(7)]


class Many:
    """Takes batches; ``wrong`` is what a pair, or any batch with it, comes to."""

    def __init__(self, wrong=None):
        self.wrong = wrong or {}
        self.batches = []

    def __call__(self, spec, pair):
        return self.many(spec, [pair])[0]

    def many(self, spec, pairs):
        self.batches.append([pair.seed for pair in pairs])
        for pair in pairs:
            if pair.seed in self.wrong:
                raise self.wrong[pair.seed]
        return [Evaluation(config=spec.hash(), pair=pair, scores={"a": float(pair.seed)}) for pair in pairs]


def rows_of(finished):
    return [
        (task.pair.seed, row)
        for item in finished
        for task, row in zip(item.task.single(), item.evaluations, strict=True)
    ]


def test_pairs_of_one_setting_that_follow_each_other_become_batches():
    one, two = (GuidanceSpec(cfg_scale=scale) for scale in (1.0, 2.0))
    wanted = [*((one, pair, "search") for pair in PAIRS[:5]), (two, PAIRS[5], "search"), (two, PAIRS[6], "holdout")]
    evaluate = Many()
    executor = BatchingExecutor(InlineExecutor(evaluate), 2)
    done = list(executor.run(Task(spec=spec, pair=pair, role=role) for spec, pair, role in wanted))
    assert evaluate.batches == [[0], [1, 2], [3, 4], [5], [6]]
    assert [(seed, row.pair.seed, row.scores["a"]) for seed, row in rows_of(done)] == [(i, i, i) for i in range(7)]
    assert len({item.task.key for item in done}) == 5
    assert executor.slots == 1


@pytest.mark.parametrize(
    ("pairs", "size", "slots", "sizes"),
    [
        (12, 4, 1, [4, 4, 4]),
        (9, 4, 1, [3, 3, 3]),
        (12, 4, 2, [3, 3, 3, 3]),
        (6, 4, 2, [3, 3]),
        (14, 4, 8, [1, 2, 2, 2, 1, 2, 2, 2]),
        (3, 4, 8, [1, 1, 1]),
        (1, 4, 2, [1]),
    ],
)
def test_every_worker_gets_about_as_much(pairs, size, slots, sizes):
    tasks = tasks_of([Pair(prompt="p", seed=seed) for seed in range(pairs)])
    found = list(batches(tasks, size, slots))
    assert [len(task.pairs) for task in found] == sizes
    assert [pair.seed for task in found for pair in task.pairs] == list(range(pairs))


def test_a_batch_that_fails_marks_only_the_pair_that_fails_alone():
    evaluate = Many({2: FloatingPointError("black")})
    done = next(BatchingExecutor(InlineExecutor(evaluate), 4).run(tasks_of(PAIRS[:4])))
    assert evaluate.batches == [[0, 1, 2, 3], [0], [1], [2], [3]]
    assert [row.error for _, row in rows_of([done])] == ["", "", "nan: black", ""]


def test_a_bug_in_a_batch_is_raised():
    with pytest.raises(AttributeError, match="typo"):
        next(BatchingExecutor(InlineExecutor(Many({1: AttributeError("typo")})), 4).run(tasks_of(PAIRS)))


def test_an_evaluator_that_takes_one_pair_only_is_given_one_at_a_time():
    done = next(BatchingExecutor(InlineExecutor(fine), 4).run(tasks_of(PAIRS[:3])))
    assert [row.pair.seed for _, row in rows_of([done])] == [0, 1, 2]


def tasks_of(pairs):
    return [Task(spec=GuidanceSpec(cfg_scale=2.0), pair=pair, role="search") for pair in pairs]
