"""Importance: the number that decides comes out on top and beyond chance; noise does not."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from stg_tune.search import snapshot
from stg_tune.search.encoding import Encoding
from stg_tune.search.importance import LEAST_TRIALS, importances
from stg_tune.search.result import SearchResult
from stg_tune.search.study import Trial


@pytest.fixture(scope="module")
def result(finished_run) -> SearchResult:
    return snapshot(finished_run)


def _with_trials(result: SearchResult, count: int, gain, *, repeated: bool = False) -> SearchResult:
    dice = random.Random(3)
    encoding = Encoding(space=result.plan.space, orders=result.screen.orders, num_steps=result.plan.num_steps)
    trials = []
    for number in range(count):
        params = {
            knob.name: dice.randint(int(knob.low), int(knob.high)) if knob.whole else dice.uniform(knob.low, knob.high)
            for knob in encoding.knobs()
        }
        value = gain(params, dice)
        measurement = SimpleNamespace(mean=value, deltas={"pair": value})
        trials.append(Trial(number=number, measurement=measurement, pruned=False, repeated=repeated, params=params))
    return replace(result, trials=tuple(trials))


def test_the_number_that_decides_stands_out(result: SearchResult) -> None:
    found = importances(_with_trials(result, 60, lambda params, dice: -abs(params["cfg_scale"] - 2)))
    assert found[0].name == "cfg_scale"
    assert found[0].share > found[0].chance
    assert sum(item.share for item in found) == pytest.approx(1)
    assert [item.share for item in found] == sorted((item.share for item in found), reverse=True)


def test_noise_seldom_passes_chance(result: SearchResult) -> None:
    found = importances(_with_trials(result, 60, lambda params, dice: dice.gauss(0, 1)))
    assert sum(item.share > item.chance for item in found) <= 2


def test_too_few_trials_say_nothing(result: SearchResult) -> None:
    few = _with_trials(result, LEAST_TRIALS - 1, lambda params, dice: dice.random())
    assert importances(few) == ()
    again = _with_trials(result, 40, lambda params, dice: dice.random(), repeated=True)
    assert importances(again) == ()
    assert importances(replace(result, screen=None)) == ()
