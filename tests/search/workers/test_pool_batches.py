"""Tasks of several pairs in the pool, in made-up time."""

from stg_tune.search.executor import batches
from stg_tune.search.workers.pool import Pool


def pool_over(crew):
    return Pool(lambda: crew, slots=2, clock=crew.clock, identity={"torch": "2"})


def test_batches_are_handed_out_tried_again_and_marked_as_a_whole(crew_of, tasks, events):
    def dies(task, worker):
        spoiled = 4 in {pair.seed for pair in task.pairs}
        return events["lost"](worker=worker, message="signal 11") if spoiled else events["score"](task, worker)

    crew = crew_of(behave=dies)
    done = list(pool_over(crew).run(batches(tasks(9), 3)))
    rows = [(pair.seed, row) for item in done for pair, row in zip(item.task.pairs, item.evaluations, strict=True)]
    assert sorted(seed for seed, _ in rows) == list(range(9))
    assert sorted(seed for seed, row in rows if row.error) == [3, 4, 5]
    assert all(row.pair.seed == seed for seed, row in rows)


def test_a_batch_may_take_as_long_as_its_pairs_together(crew_of, tasks, events):
    crew = crew_of(seconds=4.0)
    done = list(pool_over(crew).run(batches(tasks(30), 10)))
    assert not any(row.error for item in done for row in item.evaluations)
