"""Every fault a worker can have, in made-up time."""

import math
from dataclasses import replace

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.search.workers.deadline import DeadlineRule
from stg_tune.search.workers.pool import Pool, PoolRule
from stg_tune.search.workers.selftest import Reference
from stg_tune.search.workers.staff import StaffRule

RULE = PoolRule(deadline=DeadlineRule(factor=5, least=10, first=100), staff=StaffRule(patience=50, load=20))


def pool_over(crew, **changes):
    return Pool(lambda: crew, slots=2, clock=crew.clock, **{"identity": {"torch": "2"}, "rule": RULE, **changes})


def keys(finished):
    return sorted(item.task.pair.seed for item in finished)


def test_two_workers_take_half_the_time(crew_of, tasks):
    crew = crew_of(size=2)
    done = list(pool_over(crew).run(tasks(9)))
    assert keys(done) == list(range(9))
    # a second to load, nine evaluations and the one of the self-test, two at a time
    assert crew.now == pytest.approx(1 + 10 / 2)
    assert {item.worker for item in done} == {"host:1", "host:2"}


def test_nothing_is_started_for_nothing(crew_of):
    crew = crew_of()
    assert list(pool_over(crew).run([])) == []
    assert crew.hired == 0


def test_one_task_is_done_by_two_workers_and_counts_once(crew_of, tasks):
    crew = crew_of(size=3)
    done = list(pool_over(crew).run(tasks(6)))
    assert keys(done) == list(range(6))
    assert sum(task.pair.seed == 0 for _, task, _ in crew.given) == 2


def test_a_new_machine_is_compared_before_it_counts(crew_of, tasks):
    crew = crew_of(size=4, nodes=4)
    list(pool_over(crew).run(tasks(12)))
    assert sorted(worker for worker, task, _ in crew.given if task.pair.seed == 0) == [1, 2, 3, 4]


def test_workers_that_disagree_are_refused(crew_of, tasks, events):
    def biased(task, worker):
        honest = events["score"](task, worker)
        return replace(honest, scores={"a": honest.scores["a"] + (0.1 if worker == 2 else 0)})

    with pytest.raises(StgTuneError, match=r"different scores on host:1 and host:2: a 2 and 2\.1.*one kind of GPU"):
        list(pool_over(crew_of(behave=biased)).run(tasks(4)))


def test_rounding_is_no_disagreement(crew_of, tasks, events):
    def rounded(task, worker):
        honest = events["score"](task, worker)
        return replace(honest, scores={"a": honest.scores["a"] * (1 + 1e-5 * worker)})

    assert len(list(pool_over(crew_of(behave=rounded)).run(tasks(4)))) == 4


def test_a_row_of_an_earlier_session_is_the_measure(crew_of, tasks, events):
    (task,) = tasks(1, 7.0)
    known = events["score"](task, 0)
    crew = crew_of(size=1)
    good = Reference(task=task, evaluation=known, worker="old:1")
    assert keys(pool_over(crew, reference=good).run(tasks(2))) == [0, 1]
    assert crew.given[0][1] == task
    bad = replace(good, evaluation=replace(known, scores={"a": 9.0}))
    with pytest.raises(StgTuneError, match=r"on old:1 and host:1: a 9 and 7"):
        list(pool_over(crew_of(size=1), reference=bad).run(tasks(2)))


def test_a_test_that_fails_on_its_own_is_replaced(crew_of, tasks, events):
    def first_fails(task, worker):
        done = events["score"](task, worker)
        return replace(done, scores={}, error="nan: black") if task.pair.seed == 0 else done

    crew = crew_of(behave=first_fails)
    done = list(pool_over(crew).run(tasks(6)))
    assert keys(done) == list(range(6))
    assert [item.evaluation.error for item in done if item.task.pair.seed == 0] == ["nan: black"]


def test_a_hung_evaluation_is_stopped_tried_again_and_then_a_failure(crew_of, tasks, events):
    crew = crew_of(behave=lambda task, worker: None if task.pair.seed == 5 else events["score"](task, worker))
    done = {item.task.pair.seed: item for item in pool_over(crew).run(tasks(8))}
    assert sorted(done) == list(range(8))
    assert done[5].evaluation.error == "timeout: no result after 40 s; the median of the others is 1.0 s" or done[
        5
    ].evaluation.error.startswith("timeout: no result after 400 s")
    assert [number for number, task, _ in crew.given if task.pair.seed == 5] != []
    assert len(crew.fired) == 2
    assert not any(done[seed].evaluation.error for seed in range(8) if seed != 5)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("warm_up", [0.0, 20.0])
def test_a_setting_that_hangs_on_every_pair_costs_minutes(crew_of, tasks, events, workers, resumed, warm_up):
    """Once a pair has failed at its second try, the others are tried once."""
    crew = crew_of(
        size=workers,
        warm_up=warm_up,
        behave=lambda task, worker: None if task.spec.cfg_scale == 9.0 else events["score"](task, worker),
    )
    (known,) = tasks(1, 7.0)
    reference = Reference(task=known, evaluation=events["score"](known, 0), worker="old:1") if resumed else None
    pool = pool_over(crew, rule=PoolRule(), reference=reference)
    done = list(pool.run([*tasks(1), *tasks(24, 9.0), *tasks(8, 3.0)]))
    hung = [item for item in done if item.evaluation.error]
    assert len(done) == 33
    assert {item.task.spec.cfg_scale for item in hung} == {9.0}
    assert len(hung) == 24
    assert all(item.evaluation.error.startswith("timeout: no result after") for item in hung)
    once, again = (5 * 21, 300) if warm_up else (30, 120)
    another = warm_up + 3  # a worker to replace the one that was stopped, its self-test included
    assert crew.now <= once + again + (once + another) * 24 / workers + 2 * (warm_up + 10)


def test_a_worker_that_began_before_anything_was_known_is_not_waited_for(crew_of, tasks, events):
    crew = crew_of(size=4, behave=lambda task, worker: None if worker == 3 else events["score"](task, worker))
    done = list(pool_over(crew, rule=PoolRule()).run(tasks(8)))
    assert not any(item.evaluation.error for item in done)
    assert crew.now < 60


def test_a_worker_that_must_warm_up_is_not_stopped_for_it(crew_of, tasks, events):
    """One that replaces another takes as long for its first evaluation as the others did."""
    crew = crew_of(size=1, seconds=1.0, warm_up=200.0)
    dead = []

    def die_once(task, worker):
        if task.pair.seed == 4 and not dead:
            dead.append(worker)
            return events["lost"](worker=worker, message="killed")
        return events["score"](task, worker)

    crew.behave = die_once
    done = list(pool_over(crew, rule=PoolRule()).run(tasks(8)))
    assert not any(item.evaluation.error for item in done)
    assert crew.hired == 2


@pytest.mark.parametrize("fault", ["memory", "network"])
def test_what_the_machine_lacks_is_no_fault_of_the_configuration(crew_of, tasks, events, fault):
    """More often than a crash would be forgiven; where memory was short, the next worker comes later."""

    def starving(times):
        left = iter(range(times))

        def behave(task, worker):
            if task.pair.seed == 3 and next(left, None) is not None:
                return events["lost"](worker=worker, message="1 GB of 1 GB", fault=fault)
            return events["score"](task, worker)

        return crew_of(size=1, behave=behave)

    crew = starving(5)
    done = list(pool_over(crew).run(tasks(6)))
    assert not any(item.evaluation.error for item in done)
    assert crew.hired == 6
    assert (crew.now >= 5 * 10) == (fault == "memory")
    message = {"memory": r"too little memory for its workers; give fewer --workers", "network": "cannot be reached"}[
        fault
    ]
    with pytest.raises(StgTuneError, match=rf"{message}.*set back 10 times by no fault of its own.*1 GB of 1 GB"):
        list(pool_over(starving(100)).run(tasks(6)))
    crew = crew_of(behave=lambda task, worker: events["lost"](worker=worker, message="1 GB of 1 GB", fault=fault))
    with pytest.raises(StgTuneError, match=rf"no worker is ready.*{message}.*1 GB of 1 GB"):
        list(pool_over(crew).run(tasks(2)))


def test_a_machine_that_stalled_once_is_forgiven(crew_of, tasks, events):
    stalled = []

    def stall_once(task, worker):
        if task.pair.seed == 5 and not stalled:
            stalled.append(worker)
            return None
        return events["score"](task, worker)

    done = {item.task.pair.seed: item for item in pool_over(crew_of(behave=stall_once)).run(tasks(8))}
    assert not any(item.evaluation.error for item in done.values())


def test_a_machine_that_is_slow_for_a_while_is_no_fault_of_the_configuration(crew_of, tasks, events):
    """What has hit its limit gets four times as long; the same slowness at the first try is stopped."""
    crew = crew_of(size=1)
    pool = pool_over(crew)
    list(pool.run(tasks(4)))
    crew.seconds = 25.0  # the limit is 10 s, the second 40 s
    done = list(pool.run(tasks(8)[4:]))
    assert not any(item.evaluation.error for item in done)
    assert crew.fired


def test_deadlines_know_that_a_cheaper_evaluation_says_less_about_a_full_one(crew_of, tasks):
    crew = crew_of(seconds=3.0)
    pool = pool_over(crew)
    cheap = [replace(task, fidelity="steps/2") for task in tasks(8)]
    assert {item.task.fidelity for item in pool.run(cheap)} == {"steps/2"}
    crew.seconds = 20.0  # more than 5 x 3 s, less than 5 x 6 s
    done = list(pool.run(tasks(4)))
    assert not any(item.evaluation.error for item in done)
    assert {item.task.fidelity for item in done} == {"full"}


def test_a_dead_worker_is_replaced_and_its_task_done_by_another(crew_of, tasks, events):
    def die_once(task, worker):
        if task.pair.seed == 3 and worker <= 2:
            return events["lost"](worker=worker, message="killed")
        return events["score"](task, worker)

    crew = crew_of(behave=die_once)
    done = list(pool_over(crew).run(tasks(8)))
    assert keys(done) == list(range(8))
    assert not any(item.evaluation.error for item in done)
    assert crew.hired >= 3


def test_what_kills_every_worker_is_a_failure_of_the_configuration(crew_of, tasks, events):
    def deadly(task, worker):
        if task.pair.seed == 3:
            return events["lost"](worker=worker, message="signal 11")
        return events["score"](task, worker)

    done = {item.task.pair.seed: item for item in pool_over(crew_of(behave=deadly)).run(tasks(8))}
    assert sorted(done) == list(range(8))
    assert done[3].evaluation.error == "crash: 3 workers died at it; the last one: signal 11"


def test_when_nothing_works_nobody_is_blamed(crew_of, tasks, events):
    crew = crew_of(behave=lambda task, worker: events["lost"](worker=worker, message="signal 9"))
    with pytest.raises(StgTuneError, match=r"3 workers died at their first evaluation.*signal 9"):
        list(pool_over(crew).run(tasks(4)))


def test_a_lost_machine_is_nobodys_fault_but_not_for_ever(crew_of, tasks, events):
    lost = []

    def leave(task, worker):
        if task.pair.seed == 3 and len(lost) < 5:
            lost.append(worker)
            return events["lost"](worker=worker, message="node died", fault="machine")
        return events["score"](task, worker)

    done = list(pool_over(crew_of(behave=leave)).run(tasks(6)))
    assert len(lost) == 5
    assert not any(item.evaluation.error for item in done)
    crew = crew_of(behave=lambda task, worker: events["lost"](worker=worker, message="node died", fault="machine"))
    with pytest.raises(
        StgTuneError, match=r"machines are lost again and again: configuration \w+ on pair .* set back 10 times"
    ):
        list(pool_over(crew).run(tasks(2)))


def test_a_bug_ends_the_search_after_three_tries_and_is_not_blamed_on_the_configuration(crew_of, tasks, events):
    def buggy(task, worker):
        if task.pair.seed == 3:
            return events["broke"](worker=worker, message="host:1: AttributeError: typo", fixable=False)
        return events["score"](task, worker)

    crew = crew_of(behave=buggy)
    seen = []
    with pytest.raises(StgTuneError, match=r"failed 3 times, and not because of the configuration.*typo"):
        seen.extend(pool_over(crew).run(tasks(8)))
    assert sum(task.pair.seed == 3 for _, task, _ in crew.given) == 3


def test_what_the_user_can_fix_is_said_at_once(crew_of, tasks, events):
    crew = crew_of(behave=lambda task, worker: events["broke"](worker=worker, message="no such file x", fixable=True))
    with pytest.raises(StgTuneError, match=r"^no such file x$"):
        list(pool_over(crew).run(tasks(2)))
    crew = crew_of(loading=lambda number: events["unable"](worker=number, message="unknown model", fixable=True))
    with pytest.raises(StgTuneError, match=r"^unknown model$"):
        list(pool_over(crew).run(tasks(2)))


def test_loading_is_tried_again_later(crew_of, tasks, events):
    def full_at_first(number):
        if number <= 3:
            return events["unable"](worker=number, message="CUDA out of memory", fixable=False)
        return crew_of().loading(number)

    crew = crew_of(size=1, loading=full_at_first)
    assert keys(pool_over(crew).run(tasks(2))) == [0, 1]
    assert crew.now >= 10 + 20 + 40


def test_a_model_that_never_loads_ends_the_search(crew_of, tasks, events):
    crew = crew_of(loading=lambda number: events["unable"](worker=number, message="bad file", fixable=False))
    with pytest.raises(StgTuneError, match=r"no worker is ready to evaluate, tried 5 times; .*host:\d.*bad file"):
        list(pool_over(crew).run(tasks(2)))


def test_a_load_that_hangs_is_given_up(crew_of, tasks):
    class Silent(crew_of):
        def hire(self):
            number = super().hire()
            if number == 1:
                self._events = [item for item in self._events if item[0] < self.now + 1]
            return number

    crew = Silent(size=1)
    assert keys(pool_over(crew).run(tasks(2))) == [0, 1]
    assert crew.fired == [1]


def test_waiting_for_a_place_has_an_end(crew_of, tasks):
    with pytest.raises(StgTuneError, match=r"no worker has come for 50 s.*--gpus-per-worker"):
        list(pool_over(crew_of(arrives=lambda number: False)).run(tasks(1)))


def test_other_versions_are_refused(crew_of, tasks):
    with pytest.raises(StgTuneError, match=r"torch is 2 on host:1 and 3 here"):
        list(pool_over(crew_of(), identity={"torch": "3"}).run(tasks(1)))
    with pytest.raises(StgTuneError, match=r"scorer clip is nothing on host:1 and abc here"):
        list(pool_over(crew_of(), identity={"torch": "2", "scorer clip": "abc"}).run(tasks(1)))


def test_machines_that_join_get_work_and_those_that_leave_are_missed_by_nobody(crew_of, tasks):
    crew = crew_of(size=1)
    pool = pool_over(crew)
    stream = pool.run(tasks(30))
    for _ in range(4):
        next(stream)
    assert (crew.hired, pool.slots) == (1, 1)
    crew.size = 3
    begun = crew.now
    rest = list(stream)
    assert crew.hired == 3
    assert len(rest) == 26
    assert crew.now - begun < 26 / 2
    crew.size = 0
    assert pool.slots == 1


def test_an_abandoned_task_is_finished_and_handed_out_later(crew_of, tasks):
    crew = crew_of(size=2)
    pool = pool_over(crew)
    first = pool.run(tasks(8))
    got = [next(first), next(first)]
    first.close()
    others = tasks(3, 5.0)
    second = list(pool.run([tasks(8)[2], *others]))
    done = [item.task.key for item in got + second]
    assert len(done) == len(set(done))
    assert {item.task.key for item in second} >= {task.key for task in [tasks(8)[2], *others]}
    assert len({task.key for _, task, _ in crew.given}) == len(done)


@pytest.mark.parametrize(("optional", "begun"), [(False, 2), (True, 1)])
def test_a_free_worker_waits_for_the_listener_only_with_tasks_that_may_be_needless(crew_of, tasks, optional, begun):
    crew = crew_of(size=1)
    stream = pool_over(crew).run(replace(task, optional=optional) for task in tasks(3))
    next(stream)
    assert len(crew.given) == begun
    assert keys(stream) == [1, 2]


def test_a_task_that_nobody_waits_for_is_not_tried_again(crew_of, tasks, events):
    def deadly(task, worker):
        if task.pair.seed == 2:
            return events["lost"](worker=worker, message="killed")
        return events["score"](task, worker)

    crew = crew_of(size=2, behave=deadly)
    pool = pool_over(crew)
    stream = pool.run(replace(task, optional=True) for task in tasks(3))
    next(stream), next(stream)
    stream.close()
    assert keys(pool.run(tasks(2, 5.0))) == [0, 1]
    assert sum(task.pair.seed == 2 for _, task, _ in crew.given) <= 1


def test_closing_ends_the_crew(crew_of, tasks):
    crew = crew_of()
    pool = pool_over(crew)
    next(pool.run(tasks(2)))
    pool.close()
    assert crew.closed
    assert not math.isnan(crew.now)
