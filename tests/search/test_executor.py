import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.executor import EvaluationError, InlineExecutor, Task

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
