"""The comparison of ways to search: fair counting, honest incumbents, an emulator that knows what it was shown."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import efficiency, rivals
from benchmarks.emulator import Emulator, Landscape, cross_validate, features
from benchmarks.landscape import GRID_SCALES, PAIRS_EACH, grid, pairs_of, settings
from benchmarks.simulated import Noise, Simulator, Terrain, plan_for
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search import load_space

DEPTHS = {"spatial": 8, "temporal": 8}
DEFAULT = GuidanceSpec(cfg_scale=7.0)


@pytest.fixture(scope="module")
def space():
    return load_space("open-sora-tiny", DEPTHS)


@pytest.fixture(scope="module")
def drawn(space):
    return settings(space, DEPTHS, DEFAULT, 10)


@pytest.fixture
def simulator():
    return Simulator(noise=Noise.read(), terrain=Terrain(stg=0.8, cfg=0.3, harm=0.5), seed=3)


@pytest.fixture
def plan(simulator):
    return replace(plan_for(simulator, budget="300", seed=3), space=load_space("open-sora-tiny", DEPTHS))


class TestSettings:
    def test_are_the_same_in_every_run_and_differ_from_each_other(self, space, drawn):
        again = settings(space, DEPTHS, DEFAULT, 10)
        assert drawn == again
        assert len({item.spec.hash() for item in drawn}) == len(drawn)

    def test_hold_every_layer_and_operation_at_the_published_scales(self, space, drawn):
        published = {item.spec.hash() for item in drawn if item.design == "grid"}
        assert published == {spec.hash() for spec in grid(space, DEPTHS, DEFAULT)}
        assert len(published) == 2 * 16 * len(GRID_SCALES)

    def test_begin_with_every_design(self, drawn):
        assert {item.design for item in drawn[:60]} == {"grid", "space", "near", "subset", "cfg"}

    def test_share_the_pairs_evenly(self):
        pairs = [Pair(prompt=str(i), seed=i) for i in range(48)]
        used = [pair.key for at in range(6) for pair in pairs_of(at, pairs)]
        assert sorted(used) == sorted(pair.key for pair in pairs)
        assert len(pairs_of(7, pairs)) == PAIRS_EACH


def made_up(specs, rng, noise):
    """A table with a known truth: a hill over CFG, spatial block 5 good, temporal block 2 bad."""

    def truth(spec):
        x = features(spec, DEPTHS)
        op = len(x) - 6
        good, bad = x[6 + op // 4 + 5], x[6 + 2 * op // 4 + 2]
        return 1 - (x[0] - 1.1) ** 2 + 0.5 * good - 0.7 * bad

    errors = np.full(len(specs), max(noise, 0.01))
    told = np.array([truth(spec) for spec in specs])
    seen = told + rng.normal(size=len(specs)) * noise
    table = Landscape(specs=tuple(specs), designs=("space",) * len(specs), gains={"a": seen}, errors={"a": errors})
    return table, told


class TestEmulator:
    def test_foretells_settings_that_it_has_not_seen(self, drawn):
        table, told = made_up([item.spec for item in drawn[:200]], np.random.default_rng(0), 0.1)
        known = np.arange(200) < 150
        emulator = Emulator(landscape=table.part(known), depths=DEPTHS)
        found = emulator.foretell([spec for spec, kept in zip(table.specs, known, strict=True) if not kept])["a"]
        assert np.corrcoef(found, told[~known])[0, 1] > 0.8
        assert emulator.gains(table.specs[199])["a"] == pytest.approx(found[-1])

    def test_finds_nothing_in_noise(self, drawn):
        table, _ = made_up([item.spec for item in drawn[:100]], np.random.default_rng(1), 0.1)
        shuffled = replace(table, gains={"a": np.random.default_rng(2).normal(size=100)})
        assert abs(cross_validate(shuffled, DEPTHS, {"a": 1.0})["spearman"]) < 0.35

    def test_tells_blocks_operations_and_windows_apart(self, drawn):
        distinct = {tuple(features(item.spec, DEPTHS)) for item in drawn}
        assert len(distinct) >= 0.98 * len(drawn)  # joint and separate terms of one strength may fall together


class TestCourt:
    def test_counts_an_evaluation_once(self, simulator, plan):
        court = rivals.Court(simulator, plan)
        assert court.spent == len(plan.search_pairs)
        spec = GuidanceSpec(cfg_scale=3.0)
        court.full(spec)
        court.full(spec)
        assert court.spent == 2 * len(plan.search_pairs)

    def test_a_setting_that_breaks_a_guard_is_never_the_best(self, plan):
        frozen = Simulator(noise=Noise.read(), terrain=Terrain(stg=0.0, cfg=3.0, motion=0.1), seed=1)
        court = rivals.Court(frozen, plan)
        court.full(GuidanceSpec(cfg_scale=3.0))
        assert [step.spec for step in court.trail] == [plan.baseline]


@pytest.mark.parametrize("name", [name for name in rivals.METHODS if not name.startswith("Ray")])
def test_every_method_keeps_its_budget_and_only_gets_better_by_its_own_numbers(name, simulator, plan):
    trail = rivals.METHODS[name](simulator, plan, 3, 300)
    assert trail[0].spec == plan.baseline
    spent = [step.spent for step in trail]
    assert spent == sorted(spent)
    assert spent[-1] <= 300
    assert len(trail) > 1


@pytest.mark.slow
def test_ray_tune_is_counted_as_it_ran(simulator, plan):
    import ray

    trail = rivals.ray_tune(simulator, plan, 3, 120)
    assert not ray.is_initialized()
    assert trail[0].spec == plan.baseline
    assert trail[-1].spent <= 130


class TestSummary:
    def test_a_goal_counts_from_where_it_is_kept(self):
        trail = [(10, 0.0), (20, 0.9), (30, 0.5), (40, 0.8), (50, 0.9)]
        assert efficiency.reached(trail, 0.7) == 40
        assert efficiency.reached(trail, 0.0) == 10
        assert efficiency.reached(trail, 0.95) == math.inf

    def test_the_curve_is_what_was_best_by_then(self):
        trail = [(10, 0.0), (20, 0.5)]
        assert [efficiency.curve(trail, at) for at in (5, 10, 19, 20, 99)] == [0.0, 0.0, 0.0, 0.5, 0.5]

    def test_who_never_arrives_has_no_number(self):
        runs = {"stg-tune": [[(10, 0.0), (50, 1.0)]] * 3, "random search": [[(10, 0.0), (90, 0.5)]] * 3}
        found = efficiency.summary(runs)
        assert found["goal"] == pytest.approx(0.95)
        assert found["methods"]["stg-tune"]["evaluations_to_goal"] == 50
        assert found["methods"]["random search"]["evaluations_to_goal"] is None
        assert found["methods"]["random search"]["runs_that_reach_it"] == 0
        assert found["methods"]["random search"]["ours_less_this"]["mean"] == pytest.approx(1.0)

    def test_twice_as_many_is_twice(self):
        runs = {"stg-tune": [[(10, 0.0), (50, 1.0)]] * 3, "random search": [[(10, 0.0), (100, 1.0)]] * 3}
        assert efficiency.summary(runs)["methods"]["random search"]["times_ours"] == pytest.approx(2.0)
