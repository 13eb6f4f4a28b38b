"""The limits of the documentation, in numbers."""

import pytest

from stg_tune.search.workers.deadline import DeadlineRule, Deadlines


def after(*durations, first=0.0):
    """Deadlines that know some durations; ``first`` is that of a worker's first evaluation."""
    made = Deadlines(DeadlineRule())
    if first:
        made.note(first, fresh=True)
    for seconds in durations:
        made.note(seconds)
    return made


@pytest.mark.parametrize(
    ("median", "once", "again"),
    [(0.5, 30, 120), (6, 30, 120), (10, 50, 200), (15, 75, 300), (60, 300, 300), (600, 3000, 3000)],
)
def test_five_times_the_median_and_more_only_where_that_is_short(median, once, again):
    known = after(*[median] * 5)
    assert known.limit(fresh=False) == once
    assert known.limit(fresh=False, again=True) == again


@pytest.mark.parametrize("again", [False, True])
def test_two_hours_are_for_a_run_that_knows_nothing(again):
    assert after().limit(fresh=True, again=again) == 7200
    assert after(10).limit(fresh=True) == 50


@pytest.mark.parametrize(("first", "limit"), [(4, 50), (40, 200), (900, 4500), (4000, 7200)])
def test_a_fresh_worker_may_take_five_times_the_slowest_first_evaluation(first, limit):
    known = after(*[10] * 5, first=first)
    assert known.limit(fresh=True) == limit
    assert known.limit(fresh=False) == 50


def test_warming_up_says_nothing_about_the_usual_time():
    known = after(10, first=400)
    for _ in range(5):
        known.note(400, fresh=True)
    assert known.limit(fresh=False) == 50
    assert after(first=400).limit(fresh=False) == 2000


def test_a_first_batch_counts_as_a_whole():
    known = after(*[10] * 5)
    known.note(40, pairs=3, fresh=True)
    assert known.limit(fresh=True) == 600
    assert known.limit(fresh=False, pairs=3) == 150
