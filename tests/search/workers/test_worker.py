"""What a worker's process does with a task, without any process."""

import pickle
from dataclasses import dataclass, replace

import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.executor import Task
from stg_tune.search.workers.worker import Worker

PAIR = Pair(prompt="p", seed=1)
TASK = Task(spec=GuidanceSpec(cfg_scale=2.0), pair=PAIR, role="search")


@dataclass
class Steps:
    """Tells how many steps it took, one pair or several at a time."""

    steps: int = 20

    def __call__(self, spec, pair):
        return Evaluation(config=spec.hash(), pair=pair, forwards=float(self.steps))

    def many(self, spec, pairs):
        return [replace(self(spec, pair), effects={"batch": len(pairs)}) for pair in pairs]

    def at(self, fidelity):
        return Steps(self.steps // int(fidelity.removeprefix("steps/")))


class OneSpeed:
    def __call__(self, spec, pair):
        return Steps()(spec, pair)


class Recipe:
    def __init__(self, evaluate):
        self.evaluate = evaluate

    def __call__(self, threads):
        return self.evaluate

    def identity(self):
        return {}


def worker_with(evaluate):
    worker = Worker()
    assert worker.load(Recipe(evaluate), threads=1) == {}
    return worker


@pytest.mark.parametrize(("fidelity", "steps"), [("full", 20.0), ("steps/2", 10.0)])
def test_the_fidelity_of_a_task_travels_with_it(fidelity, steps):
    worker, task = worker_with(Steps()), pickle.loads(pickle.dumps(replace(TASK, fidelity=fidelity)))
    assert [row.forwards for row in worker.evaluate(task)] == [steps]
    batch = worker.evaluate(replace(task, more=(Pair(prompt="p", seed=2),)))
    assert [(row.forwards, row.effects["batch"]) for row in batch] == [(steps, 2), (steps, 2)]


def test_an_evaluator_of_one_fidelity_is_for_the_user_to_mend():
    trouble = worker_with(OneSpeed()).evaluate(replace(TASK, fidelity="steps/2"))
    assert trouble.fixable
    assert "give it a method at(fidelity)" in trouble.message
