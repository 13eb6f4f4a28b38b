"""The sampler proposes inside the space, never twice the same, the same from the same, and better than chance."""

import math
import random

import numpy as np
import optuna
import pytest
from scipy.integrate import quad

from stg_tune.records import Evaluation, Pair
from stg_tune.search.belief import Learner
from stg_tune.search.bench import Measurement
from stg_tune.search.encoding import Encoding
from stg_tune.search.features import Features
from stg_tune.search.proposals import SurrogateSampler, distribution, improvement


@pytest.fixture
def scenery(landscape, make_plan):
    scene = landscape(name="p1")
    plan = make_plan(scene)
    orders = {
        (stack, op): tuple(sorted(range(8), key=lambda i: -scene.layer(stack, op, i)))
        for stack in plan.depths
        for op in ("attention", "residual")
    }
    encoding = Encoding(space=plan.space, orders=orders, num_steps=plan.num_steps)
    learner = Learner(Features(space=plan.space, depths=plan.depths), measured(plan.baseline, 0.0))
    return scene, encoding, learner


def measured(spec, gain):
    row = Evaluation(config=spec.hash(), pair=Pair(prompt="p", seed=1), scores={})
    return Measurement(spec=spec, rows=(row,), deltas={"pair": gain}, violations={"failed pairs": 0.0})


def anywhere(encoding, dice):
    return {
        knob.name: dice.randint(int(knob.low), int(knob.high)) if knob.whole else dice.uniform(knob.low, knob.high)
        for knob in encoding.knobs()
    }


def propose(encoding, belief, tried, seed, number=0):
    study = optuna.create_study(sampler=SurrogateSampler(encoding, belief, tried, set(tried), seed=seed))
    for _ in range(number):
        study.add_trial(optuna.trial.create_trial(value=0.0))
    trial = study.ask({knob.name: distribution(knob) for knob in encoding.knobs()})
    return trial.params


@pytest.fixture
def started(scenery):
    scene, encoding, learner = scenery
    dice = random.Random(4)
    drawn = [anywhere(encoding, dice) for _ in range(30)]
    tried = {encoding.decode(params).hash(): params for params in drawn}
    specs = [encoding.decode(params) for params in tried.values()]
    return scene, encoding, learner, tried, [measured(spec, scene.quality(spec)) for spec in specs]


def test_proposals_are_inside_new_and_repeatable(started):
    _, encoding, learner, tried, seen = started
    belief = learner.learn(seen)
    for seed in range(4):
        params = propose(encoding, belief, tried, seed, number=seed)
        assert params == propose(encoding, belief, tried, seed, number=seed)
        assert encoding.decode(params).hash() not in tried
        for knob in encoding.knobs():
            assert knob.low <= params[knob.name] <= knob.high
            assert not knob.whole or params[knob.name] == int(params[knob.name])
    assert propose(encoding, belief, tried, 1) != propose(encoding, belief, tried, 2)


def test_a_dozen_proposals_beat_as_many_random_settings(started):
    scene, encoding, learner, tried, seen = started
    dice = random.Random(9)
    chance = [[scene.quality(encoding.decode(anywhere(encoding, dice))) for _ in range(12)] for _ in range(40)]
    for number in range(12):
        params = propose(encoding, learner.learn(seen), tried, seed=number, number=number)
        spec = encoding.decode(params)
        tried[spec.hash()] = params
        seen.append(measured(spec, scene.quality(spec)))
    found = [item.mean for item in seen[30:]]
    assert np.mean(found) > max(np.mean(drawn) for drawn in chance)
    assert max(found) > np.quantile([max(drawn) for drawn in chance], 0.75)


def test_improvement_is_its_integral(started):
    """Expected improvement from its definition: the mean of what a normal gain has above the leader's."""
    _, encoding, learner, _, seen = started
    belief = learner.learn(seen)
    dice = random.Random(2)
    specs = [encoding.decode(anywhere(encoding, dice)) for _ in range(3)]
    outlook, best = belief(specs), belief.leader()[1]
    for at, value in enumerate(improvement(belief, specs)):
        mean, deviation = outlook.gain[at], outlook.deviation[at]

        def above(gain, mean=mean, deviation=deviation):
            density = math.exp(-0.5 * ((gain - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
            return (gain - best) * density

        assert value == pytest.approx(quad(above, best, max(best, mean) + 9 * deviation)[0], rel=1e-4, abs=1e-9)


def test_numbers_outside_the_space_are_drawn_at_random(started):
    _, encoding, learner, tried, seen = started
    study = optuna.create_study(sampler=SurrogateSampler(encoding, learner.learn(seen), tried, set(tried), seed=0))
    trial = study.ask({"more": optuna.distributions.FloatDistribution(3.0, 4.0)})
    assert 3.0 <= trial.params["more"] <= 4.0
