"""What is believed of settings: gains, guards, luck of pairs."""

import random
from dataclasses import replace

import numpy as np
import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.belief import FITS, LEAST_SURE, MOST, SURE, Learner, fitted_at
from stg_tune.search.bench import Measurement
from stg_tune.search.encoding import Encoding
from stg_tune.search.features import Features


@pytest.fixture
def world(landscape, make_plan):
    """Random settings of a space with their true gains."""
    scene = landscape(name="b1")
    plan = make_plan(scene)
    orders = {(stack, op): tuple(range(8)) for stack in plan.depths for op in ("attention", "residual")}
    encoding = Encoding(space=plan.space, orders=orders, num_steps=plan.num_steps)
    dice = random.Random(3)

    def draw():
        params = {
            knob.name: dice.randint(int(knob.low), int(knob.high)) if knob.whole else dice.uniform(knob.low, knob.high)
            for knob in encoding.knobs()
        }
        return encoding.decode(params)

    features = Features(space=plan.space, depths=plan.depths)
    return scene, plan, features, list({spec.hash(): spec for spec in (draw() for _ in range(160))}.values())


def measurement(spec, gain, guard=-1.0, pairs=8, luck=(), noise=0.0, dice=None):
    deltas = {
        f"pair {at}": gain + (luck[at] if luck else 0.0) + (dice.normal() * noise if dice else 0.0)
        for at in range(pairs)
    }
    row = Evaluation(config=spec.hash(), pair=Pair(prompt="p", seed=1), scores={})
    violations = {"motion": guard, "failed pairs": 0.0}
    return Measurement(spec=spec, rows=(row,) * pairs, deltas=deltas, violations=violations)


def test_gains_of_unseen_settings_are_foretold(world):
    scene, plan, features, specs = world
    dice = np.random.default_rng(0)
    baseline = measurement(plan.baseline, 0.0)
    seen = [measurement(spec, scene.quality(spec), noise=0.5, dice=dice) for spec in specs[:110]]
    outlook = Learner(features, baseline).learn(seen)(specs[110:])
    true = np.array([max(scene.quality(spec), -1.5) for spec in specs[110:]])
    assert np.corrcoef(outlook.gain, true)[0, 1] > 0.7
    off = np.abs(outlook.gain - true) / outlook.deviation
    assert np.mean(off[true > -1] < 2) > 0.75


def test_a_guard_that_grows_with_cfg_is_learnt(world):
    _, plan, features, specs = world
    baseline = measurement(plan.baseline, 0.0, guard=-0.5)
    seen = [measurement(spec, 0.5, guard=spec.cfg_scale - 3.0) for spec in specs[:60]]
    low, high = (GuidanceSpec(cfg_scale=scale) for scale in (1.4, 4.6))
    belief = Learner(features, baseline).learn(seen)
    outlook = belief([low, high])
    assert outlook.keeps[0] > 0.95
    assert outlook.keeps[1] < 0.05
    assert all(item.spec.cfg_scale < 3.3 for item, _ in belief.ranking)
    strict = Learner(features, baseline, strict=True).learn(seen)
    assert all(item.spec.cfg_scale < 3.0 for item, _ in strict.ranking)


def broken_by_pairs(specs, pairs, *, own, dice, number=30):
    """Settings that keep motion, on pairs where all of them seem to break it or to keep it well; a third sees two."""
    found = []
    for at, spec in enumerate(specs[:number]):
        seen = list(pairs)[: 2 if at % 3 == 0 else None]
        parts = {key: pairs[key] + dice.normal(0.0, own) for key in seen}
        item = measurement(spec, 0.3, guard=-0.05 + float(np.mean(list(parts.values()))))
        found.append(replace(item, rows=item.rows[: len(seen)], breaches={"motion": parts}))
    return found


def test_what_all_settings_break_on_a_pair_is_luck(world):
    """The first two pairs look bad for everybody, and many settings see no others: that is not held against them."""
    _, plan, features, specs = world
    baseline = measurement(plan.baseline, 0.0, guard=-0.05)
    pairs = {f"pair {at}": value for at, value in enumerate((0.3, 0.25, -0.1, -0.1, -0.1, -0.05, -0.1, -0.1))}
    seen = broken_by_pairs(specs, pairs, own=0.03, dice=np.random.default_rng(3))
    assert len(Learner(features, baseline).learn(seen).ranking) == 30
    assert len(Learner(features, baseline, strict=True).learn(seen).ranking) < 25
    parts = {"motion": dict.fromkeys(pairs, 0.5)}
    frozen = [replace(item, violations={"motion": 0.45, "failed pairs": 0.0}, breaches=parts) for item in seen]
    assert Learner(features, baseline).learn(frozen).ranking == []


def test_the_leader_is_expected_to_be_better_and_surely_keeps_the_guards(world):
    scene, plan, features, specs = world
    baseline = measurement(plan.baseline, 0.0)
    seen = [measurement(spec, scene.quality(spec)) for spec in specs[:40]]
    leader, gain = Learner(features, baseline).learn(seen).leader()
    assert gain > 0
    assert scene.quality(leader.spec) >= np.quantile([scene.quality(spec) for spec in specs[:40]], 0.9)
    bad = [measurement(spec, -0.5) for spec in specs[:40]]
    assert Learner(features, baseline).learn(bad).leader() is None
    broken = [measurement(spec, scene.quality(spec), guard=0.5) for spec in specs[:40]]
    assert 0 < LEAST_SURE < 0.5 < SURE
    assert Learner(features, baseline).learn(broken).leader() is None


def test_the_luck_of_a_pair_is_taken_off(world):
    """A setting seen on easy pairs only is not taken for a good one."""
    _, plan, features, specs = world
    baseline = measurement(plan.baseline, 0.0)
    luck = (1.5, 1.5, 0.0, 0.0, -0.75, -0.75, -0.75, -0.75)
    seen = [measurement(spec, 0.3, luck=luck) for spec in specs[:30]]
    easy = measurement(specs[30], 0.3, luck=luck, pairs=2)
    found = Learner(features, baseline).learn([*seen, easy])([specs[30]]).gain[0]
    assert easy.mean == pytest.approx(1.8)
    assert found == pytest.approx(0.3, abs=0.25)


def test_the_same_measurements_give_the_same_belief_whatever_was_learnt_before(world):
    scene, plan, features, specs = world
    baseline = measurement(plan.baseline, 0.0)
    dice = np.random.default_rng(2)
    seen = [measurement(spec, scene.quality(spec), noise=0.5, dice=dice) for spec in specs[:60]]
    growing = Learner(features, baseline)
    for count in (5, 9, 30, 59):
        growing.learn(seen[:count])
    one, other = growing.learn(seen)(specs), Learner(features, baseline).learn(seen)(specs)
    assert np.array_equal(one.gain, other.gain)
    assert np.array_equal(one.keeps, other.keeps)


def test_failed_pairs_are_a_guard_only_once_something_fails(world):
    _, plan, features, specs = world
    baseline = measurement(plan.baseline, 0.0)
    fine = [measurement(spec, 0.5) for spec in specs[:20]]
    assert (Learner(features, baseline).learn(fine)(specs).keeps == 1.0).all()
    failing = [
        Measurement(
            spec=item.spec, rows=item.rows, deltas=item.deltas, violations={"motion": -1.0, "failed pairs": 1.0}
        )
        for item in fine[:1]
    ]
    keeps = Learner(features, baseline).learn([*failing, *fine[1:]])([fine[0].spec, fine[1].spec]).keeps
    assert keeps[0] < 0.5 < keeps[1]


def test_numbers_are_fitted_now_and_then_and_the_worst_are_forgotten(world):
    _, plan, features, specs = world
    assert fitted_at(FITS[0] - 1) == 0
    assert [fitted_at(at) for at in FITS] == list(FITS)
    assert fitted_at(10 * FITS[-1]) == FITS[-1]
    baseline = measurement(plan.baseline, 0.0)
    first = specs[: FITS[-1]]
    more = [GuidanceSpec(cfg_scale=1.0 + at / 1000) for at in range(MOST)]
    seen = [
        *(measurement(spec, -0.5) for spec in first),
        *(measurement(spec, at / MOST) for at, spec in enumerate(more)),
    ]
    learner = Learner(features, baseline)
    belief = learner.learn(seen)
    assert len(belief.measured) == MOST
    assert {item.config for item in belief.measured} >= {spec.hash() for spec in first}
    kept = {item.config for item in belief.measured}
    assert more[-1].hash() in kept
    assert more[0].hash() not in kept


def test_settings_without_a_compared_pair_are_left_out(world):
    _, plan, features, specs = world
    empty = Measurement(spec=specs[0], rows=(), deltas={}, violations={"motion": 1.0, "failed pairs": 1.0})
    belief = Learner(features, measurement(plan.baseline, 0.0)).learn([empty, measurement(specs[1], 0.2)])
    assert [item.config for item in belief.measured] == [specs[1].hash()]


def test_of_nothing_nothing_is_believed(world):
    _, plan, features, specs = world
    belief = Learner(features, measurement(plan.baseline, 0.0)).learn([])
    assert belief.leader() is None
    assert belief.ranking == []
    outlook = belief(specs[:3])
    assert (outlook.keeps == 1.0).all()
    assert (outlook.deviation > 0.1).all()
