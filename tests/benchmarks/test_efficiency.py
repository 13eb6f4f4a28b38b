"""The comparison of ways to search: fair counting, honest incumbents, an emulator that knows what it was shown."""

import csv
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import optuna
import pytest

from benchmarks import efficiency, efficiency_table, rivals
from benchmarks.emulator import Emulator, Landscape, cross_validate, features
from benchmarks.landscape import GRID_SCALES, NEAR, PAIRS_EACH, Scale, grid, pairs_of, settings, space_file, space_of
from benchmarks.simulated import Noise, Simulator, Terrain, plan_for
from stg_tune import models
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search import load_space

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # before Ray is imported; the token has a test of its own

DEPTHS = {"spatial": 8, "temporal": 8}
DEFAULT = GuidanceSpec(cfg_scale=7.0)


@pytest.fixture(scope="module")
def space():
    return load_space("open-sora-tiny", DEPTHS)


@pytest.fixture(scope="module")
def drawn():
    return settings(models.entry("open-sora-tiny"))


@pytest.fixture
def simulator():
    return Simulator(noise=Noise.read(), terrain=Terrain(stg=0.8, cfg=0.3, harm=0.5), seed=3)


@pytest.fixture
def plan(simulator):
    return replace(plan_for(simulator, budget="300", seed=3), space=load_space("open-sora-tiny", DEPTHS))


class TestSettings:
    @pytest.mark.parametrize("model", list(NEAR))
    def test_are_the_same_in_every_run_and_differ_from_each_other(self, model):
        drawn = settings(models.entry(model))
        again = settings(models.entry(model))
        assert drawn == again
        assert len({item.spec.hash() for item in drawn}) == len(drawn)

    def test_hold_every_layer_and_operation_at_the_published_scales(self, space, drawn):
        published = {item.spec.hash() for item in drawn if item.design == "grid"}
        assert published == {spec.hash() for spec in grid(space, DEPTHS, DEFAULT)}
        assert len(published) == 2 * 16 * len(GRID_SCALES)

    def test_begin_with_every_design(self, drawn):
        assert {item.design for item in drawn[:60]} == {"grid", "space", "near", "subset", "cfg"}

    @pytest.mark.parametrize("each", [PAIRS_EACH, 16])
    def test_share_the_pairs_evenly(self, each):
        pairs = [Pair(prompt=str(i), seed=i) for i in range(48)]
        used = [pair.key for at in range(48 // each) for pair in pairs_of(at, pairs, each)]
        assert sorted(used) == sorted(pair.key for pair in pairs)
        assert len(pairs_of(7, pairs, each)) == each


class TestScale:
    def test_takes_off_what_easy_pairs_do_to_every_setting(self):
        rng = np.random.default_rng(0)
        levels = dict(zip([f"pair {i}" for i in range(48)], rng.normal(size=48), strict=True))
        spread = float(np.std(list(levels.values()), ddof=1))

        def seen(gain, keys, noise):
            scores = {key: 0.3 * levels[key] + 0.7 * np.mean(list(levels.values())) + gain * spread for key in keys}
            return {
                key: Evaluation(config="c", pair=Pair(prompt=key, seed=0), scores={"a": value + noise * rng.normal()})
                for key, value in scores.items()
            }

        base = {
            key: Evaluation(config="d", pair=Pair(prompt=key, seed=0), scores={"a": level})
            for key, level in levels.items()
        }
        easy = sorted(levels, key=levels.__getitem__)[-8:]
        others = [seen(0.5, rng.choice(list(levels), 8, replace=False), 0.05) for _ in range(30)]
        scale = Scale.of("a", base, others)
        assert scale.slope == pytest.approx(-0.7, abs=0.05)
        gain, error = scale.gain(seen(0.5, easy, 0.0))
        assert gain == pytest.approx(0.5, abs=0.1)
        assert error < 0.1
        assert Scale(name="a", sign=1.0, base=scale.base).gain(seen(0.5, easy, 0.0))[0] < -0.3  # as it was without


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
    @pytest.mark.parametrize(("kind", "least"), [("process", 0.8), ("trees", 0.6)])
    def test_foretells_settings_that_it_has_not_seen(self, drawn, kind, least):
        table, told = made_up([item.spec for item in drawn[:200]], np.random.default_rng(0), 0.1)
        known = np.arange(200) < 150
        emulator = Emulator(landscape=table.part(known), depths=DEPTHS, kind=kind)
        found = emulator.foretell([spec for spec, kept in zip(table.specs, known, strict=True) if not kept])["a"]
        assert np.corrcoef(found, told[~known])[0, 1] > least
        assert emulator.gains(table.specs[199])["a"] == pytest.approx(found[-1])

    def test_finds_nothing_in_noise(self, drawn):
        table, _ = made_up([item.spec for item in drawn[:100]], np.random.default_rng(1), 0.1)
        shuffled = replace(table, gains={"a": np.random.default_rng(2).normal(size=100)})
        assert abs(cross_validate(shuffled, DEPTHS, {"a": 1.0})["spearman"]) < 0.35
        assert abs(cross_validate(shuffled, DEPTHS, {"a": 1.0}, "trees")["spearman"]) < 0.35

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
    trail = rivals.ray_tune(simulator, plan, 3, 120)

    import ray  # not before it was told to stay on this machine

    assert not ray.is_initialized()
    assert trail[0].spec == plan.baseline
    assert trail[-1].spent <= 130


def test_a_run_is_made_again_only_where_it_was_shorter_or_its_budget_decided_it():
    assert not efficiency._is_there("random search, 8 pairs", None, 300)
    assert efficiency._is_there("random search, 8 pairs", {"budget": 900}, 300)
    assert not efficiency._is_there("random search, 8 pairs", {"budget": 900}, 1200)
    assert not efficiency._is_there(rivals.OURS, {"budget": 900}, 300)
    assert efficiency._is_there(rivals.RAY, {"budget": 900}, 900)


class TestSpaces:
    """The rivals must be able to find what ours can find."""

    def test_free_slots_skip_nothing_one_layer_or_several_in_one_stack_or_both(self, plan):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        counts = [
            tuple(len(layers) for layers in rivals.slots(study.ask(), plan).values()) for _ in range(300)
        ]  # spatial, temporal
        assert {(0, 0), (1, 0), (0, 1), (2, 1), (3, 3)} <= set(counts)
        assert 0.2 < sum(0 in pair for pair in counts) / len(counts) < 0.6

    @pytest.mark.parametrize("choose", [rivals.slots, rivals.bits])
    def test_all_but_the_layers_are_our_own_numbers(self, plan, choose):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        specs = [rivals.spec_of(study.ask(), plan, choose) for _ in range(200)]
        terms = [segment.terms for spec in specs for segment in spec.segments]
        assert any(len(each) == 2 and each[0].stg_scale != each[1].stg_scale for each in terms)
        assert any(len(each) == 1 and len(each[0].skip_layers) == 2 for each in terms)  # joint
        assert {segment.combination for spec in specs for segment in spec.segments} == {"independent", "orthogonal"}
        assert {term.skip_op for each in terms for term in each} == set(plan.space.ops)

    def test_ray_tune_searches_the_same_space(self, plan):
        code = (
            "import sys; from benchmarks import rivals; from benchmarks.simulated import *;"
            "from stg_tune.search.workers.cluster import _stay_local; _stay_local();"
            "from benchmarks.rival_ray import space_of;"
            "plan = plan_for(Simulator(noise=Noise.read(), terrain=Terrain()), budget='300', seed=0);"
            "print(*sorted(space_of(plan)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        trial = study.ask()
        rivals.spec_of(trial, plan, rivals.slots)
        assert done.stdout.split() == sorted(trial.params)


class TestSummary:
    def test_a_goal_counts_from_where_it_is_kept(self):
        trail = [(10, 0.0), (20, 0.9), (30, 0.5), (40, 0.8), (50, 0.9)]
        assert efficiency_table.reached(trail, 0.7) == 40
        assert efficiency_table.reached(trail, 0.0) == 10
        assert efficiency_table.reached(trail, 0.95) == math.inf

    def test_the_curve_is_what_was_best_by_then(self):
        trail = [(10, 0.0), (20, 0.5)]
        assert [efficiency_table.curve(trail, at) for at in (5, 10, 19, 20, 99)] == [0.0, 0.0, 0.0, 0.5, 0.5]

    def test_who_arrives_late_has_a_ratio_and_who_never_does_a_lower_bound(self):
        late = "random search, 24 pairs"
        runs = {
            "stg-tune": [[(10, 0.0), (400, 1.0)]] * 3,
            "random search, 8 pairs": [[(10, 0.0), (9000, 0.5)]] * 3,
            late: [[(10, 0.0), (1600, 1.0), (9000, 1.0)]] * 3,
            "TPE, include-bits, 8 pairs": [[(10, 0.0), (9000, 0.2)]] * 3,
            "published grid, 8 pairs": [[(10, 0.0), (776, 0.1)]] * 3,
        }
        found = efficiency_table.summary(runs)
        assert found["goal"] == pytest.approx(0.95)
        assert found["methods"]["stg-tune"]["evaluations_to_goal"] == 400
        assert found["methods"]["TPE, include-bits, 8 pairs"]["evaluations_to_goal"] is None
        assert found["methods"]["random search, 8 pairs"]["runs_that_reach_it"] == 0
        bars = {bar["against"]: bar for bar in found["bars"]}
        assert (bars[late]["times"], bars[late]["met"]) == (4.0, False)  # the better variant counts
        assert (bars["TPE, include-bits, 8 pairs"]["times_at_least"], bars["TPE, include-bits, 8 pairs"]["met"]) == (
            22.5,
            True,
        )
        assert "ended" in bars["published grid, 8 pairs"]

    @pytest.mark.parametrize(("followed", "told"), [(1200, {"times_at_least": 3.0}), (9000, {"times": 20.0})])
    def test_a_variant_that_was_not_followed_far_may_arrive_at_any_time(self, followed, told):
        runs = {
            "stg-tune": [[(10, 0.0), (400, 1.0)]] * 3,
            "random search, 8 pairs": [[(10, 0.0), (followed, 0.5)]] * 3,
            "random search, 24 pairs": [[(10, 0.0), (8000, 1.0)]] * 3,
        }
        (bar,) = efficiency_table.summary(runs)["bars"]
        assert told.items() <= bar.items()
        assert bar["met"] == ("times" in told)

    def test_a_search_that_is_behind_at_any_spending_is_worse(self):
        slots = "TPE, free slots, 8 pairs"
        ahead = [[(10, 0.0), (300, 0.5 + 0.01 * i), (2400, 1.0)] for i in range(4)]
        behind = [[(10, 0.0), (300, 0.1), (2400, 1.0 + 0.001 * i)] for i in range(4)]
        (bar,) = efficiency_table.summary({"stg-tune": behind, slots: ahead})["bars"]
        assert not bar["met"]
        assert bar["worst"]["after"] == 300
        (bar,) = efficiency_table.summary({"stg-tune": ahead, slots: behind})["bars"]
        assert bar["met"]

    def test_no_ratio_is_told_where_ours_does_not_arrive(self):
        ours, other = [[(10, 0.0), (400, 0.5)]] * 3, [[(10, 0.0), (1600, 1.0)]] * 3
        (bar,) = efficiency_table.summary({"stg-tune": ours, "random search, 8 pairs": other})["bars"]
        assert not bar["met"]
        assert bar["times"] is None
        assert "ours does not arrive" in efficiency_table._bar_in_words(bar)

    def test_the_table_says_what_was_met(self):
        runs = {"stg-tune": [[(10, 0.0), (400, 1.0)]] * 3, "random search, 8 pairs": [[(10, 0.0), (1600, 1.0)]] * 3}
        facts = {"model": "mochi-tiny", "measured": 7, "emulators": {"process": {"spearman": 0.8}}}
        text = efficiency_table.table({"process": efficiency_table.summary(runs)}, facts)
        assert "at least 5 times as many evaluations: **not met**, 4.0 times" in text


def test_runs_of_other_sources_are_dropped(tmp_path):
    one, other = tmp_path / "a.py", tmp_path / "b.py"
    one.write_text("1")
    other.write_text("2")
    before = efficiency.digest([one, other])
    assert before == efficiency.digest([other, one])
    other.write_text("3")
    assert efficiency.digest([one, other]) != before
    for model in efficiency.MODELS:
        assert all(path.exists() for path in efficiency.sources(model))


@pytest.mark.parametrize("model", efficiency.MODELS)
def test_a_kept_space_is_that_of_the_search_but_for_its_objective(model):
    entry = models.entry(model)
    kept, own = space_of(entry), load_space(model, entry.depths)
    assert replace(kept, objective=own.objective) == own
    assert space_file(model) in efficiency.sources(model)


@pytest.mark.slow
def test_the_whole_program_runs_goes_on_and_writes_its_table(tmp_path, drawn, monkeypatch):
    specs = [item.spec for item in drawn[:60]]
    table, _ = made_up(specs, np.random.default_rng(0), 0.1)
    names = list(Noise.read().scorers)
    columns = [f"{name}{end}" for name in names for end in ("", "_error")]
    rows = [
        ["space", json.dumps(spec.to_dict()), "8", *[number for _ in names for number in (f"{gain:.4f}", "0.1")]]
        for spec, gain in zip(specs, table.gains["a"], strict=True)
    ]
    for module in ("emulator", "landscape"):
        monkeypatch.setattr(f"benchmarks.{module}.RESULTS", tmp_path)
    with (tmp_path / "open-sora-tiny.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["design", "setting", "pairs", *columns], *rows])
    out = tmp_path / "found.json"
    words = ["--out", str(out), "--seeds", "2", "--emulators", "process"]
    words += ["--budget", "300", "--rivals", "200", "--methods", "stg-tune", "random search, 8 pairs"]
    efficiency.main(words)
    found = json.loads(out.read_text())
    assert found["summary"]["process"]["methods"]["stg-tune"]["runs"] == 2
    assert GuidanceSpec.from_dict(found["runs"]["process"]["stg-tune"]["1"]["final"])
    assert "| random search, 8 pairs | 2 |" in out.with_suffix(".md").read_text()

    def never(*arguments):
        raise AssertionError("it is there already")

    monkeypatch.setattr(efficiency, "METHODS", dict.fromkeys(efficiency.METHODS, never))
    efficiency.main(words)
    assert json.loads(out.read_text())["runs"] == found["runs"]
