"""CFG line, screen and trials on the synthetic landscape, each on its own."""

import math

import pytest

from stg_tune.records import Evaluation, GuidanceSpec
from stg_tune.search.belief import Learner
from stg_tune.search.bench import Bench
from stg_tune.search.cfg_line import run_cfg_line
from stg_tune.search.encoding import Encoding
from stg_tune.search.executor import InlineExecutor
from stg_tune.search.features import Features
from stg_tune.search.ledger import Ledger
from stg_tune.search.screen import LayerScore, rank, run_screen, suggest
from stg_tune.search.storage import EvaluationTable
from stg_tune.search.study import TrialStore, TrialStudy


@pytest.fixture
def make_bench(tmp_path, make_plan):
    def make(evaluate, landscape, pairs=8, name="study"):
        plan = make_plan(landscape)
        url = f"sqlite:///{tmp_path / name}.db"
        ledger = Ledger(
            EvaluationTable(url, "m"), InlineExecutor(evaluate), versions={}, on_evaluation=lambda row, new: None
        )
        chosen = plan.search_pairs[:pairs]
        return plan, chosen, Bench.calibrate(ledger, plan.baseline, chosen, plan.space.objective, plan.kinds), url

    return make


def test_cfg_line_finds_the_best_scale_within_its_budget(landscape, make_bench):
    scene = landscape(name="cfg", height=0.0, cfg_height=0.5, noise=0.1)
    plan, pairs, bench, _ = make_bench(scene, scene)
    before = bench.ledger.spent
    line = run_cfg_line(bench, plan.space, plan.baseline, pairs, 48)
    assert abs(line.best.cfg_scale - scene.best_cfg) <= 0.5
    assert bench.ledger.spent - before <= 48
    assert line.points[0].spec == plan.baseline
    assert all(not segment.terms for point in line.points for segment in point.spec.segments)
    assert {point.spec.segments[0].rescale for point in line.points if point.spec.segments} == {0.35, 0.7}


def test_cfg_line_keeps_the_baseline_when_it_is_best(landscape, make_bench):
    scene = landscape(name="cfg", height=0.0, cfg_height=2.0, noise=0.1, best_cfg=3.5)
    plan, pairs, bench, _ = make_bench(scene, scene)
    best = run_cfg_line(bench, plan.space, plan.baseline, pairs, 48).best
    assert best.cfg_scale == 3.5


def test_cfg_line_is_not_taken_in_by_one_lucky_scale(landscape, make_bench):
    """Six pairs under heavy noise: what is expected after all points chooses better scales than the best mean does."""
    true = {"means": [], "expected": []}
    for number in range(12):
        scene = landscape(name=f"luck {number}", height=0.0, cfg_height=0.15, noise=1.5, best_cfg=3.0)
        plan, pairs, bench, _ = make_bench(scene, scene, pairs=6, name=f"luck {number}")
        baseline = bench.measure([plan.baseline], pairs)[0]
        for name in true:
            features = Features(space=plan.space, depths=plan.depths)
            learner = Learner(features, baseline) if name == "expected" else None
            line = run_cfg_line(bench, plan.space, plan.baseline, pairs, 48, learner)
            true[name].append(scene.quality(line.best))
    assert sum(true["expected"]) > sum(true["means"]) + 0.2
    assert min(true["expected"]) >= min(true["means"])


def test_cfg_line_of_a_small_budget_still_has_a_final(landscape, make_bench):
    scene = landscape(name="d1", cfg_height=0.6, noise=0.2)
    plan, pairs, bench, _ = make_bench(scene, scene, pairs=6)
    baseline = bench.measure([plan.baseline], pairs)[0]
    learner = Learner(Features(space=plan.space, depths=plan.depths), baseline)
    line = run_cfg_line(bench, plan.space, plan.baseline, pairs, 19, learner)
    assert scene.quality(line.best) > 0.9
    assert [point.spec for point in line.points[1:] if len(point.rows) == len(pairs)] == [line.best]
    assert bench.ledger.spent - len(pairs) <= 19


def test_screen_puts_the_good_layers_first(landscape, make_bench):
    scene = landscape(name="s1", noise=0.3)
    plan, pairs, bench, _ = make_bench(scene, scene)
    before = bench.ledger.spent
    table = run_screen(bench, plan.space, plan.depths, plan.baseline, pairs, 78)
    assert 74 <= bench.ledger.spent - before <= 78
    assert len(table.scores) == 32
    assert all(math.isfinite(score.standard_error) for score in table.scores)
    assert {score.pairs for score in table.scores} == {2, 4}
    ranked = sorted(table.scores, key=lambda score: score.gain, reverse=True)
    assert any(score.pairs == 4 for score in ranked[:3])
    for (stack, op), order in table.orders.items():
        good = [layer for layer in range(8) if scene.layer(stack, op, layer) > 0]
        assert set(order[: len(good)]) == set(good), (stack, op, order)
        assert sorted(order) == list(range(8))


def test_a_screen_that_cannot_afford_all_layers_strides_and_fills_the_rest(landscape, make_bench):
    scene = landscape(name="s1", noise=0.0)
    plan, pairs, bench, _ = make_bench(scene, scene)
    table = run_screen(bench, plan.space, plan.depths, plan.baseline, pairs, 40)
    measured = [score for score in table.scores if score.pairs]
    assert 16 <= len(measured) <= 20
    assert {(score.stack, score.skip_op) for score in measured} == set(table.orders)
    between = [score for score in table.scores if not score.pairs]
    assert all(math.isfinite(score.gain) for score in between)
    assert all(sorted(order) == list(range(8)) for order in table.orders.values())


def test_equal_layers_are_ordered_late_first():
    def score(layer, gain):
        return LayerScore(
            stack="s", skip_op="attention", layer=layer, gain=gain, standard_error=0, pairs=2, effect=0, forwards=0
        )

    assert rank([score(0, 0.5), score(1, 0.9), score(2, 0.5)]) == {("s", "attention"): (1, 2, 0)}


@pytest.fixture
def make_study(make_bench):
    def make(evaluate, scene, found=None, name="study"):
        plan, pairs, bench, url = make_bench(evaluate, scene, name=name)
        table = run_screen(bench, plan.space, plan.depths, plan.baseline, pairs, 66)
        encoding = Encoding(space=plan.space, orders=table.orders, num_steps=plan.num_steps)
        baseline = bench.measure([plan.baseline], pairs)[0]
        study = TrialStudy(
            encoding,
            bench,
            pairs,
            seed=1,
            store=TrialStore(url, "m"),
            on_lead=lambda name, leader: found.append((name, leader)) if found is not None else None,
            learner=Learner(Features(space=plan.space, depths=plan.depths), baseline),
            earlier=table.measured,
        )
        return study, bench, suggest(table, encoding)

    return make


def test_trials_start_from_the_screen_are_paired_pruned_and_stay_in_budget(landscape, make_study):
    scene = landscape(name="s1", noise=0.8)
    found = []
    study, bench, starts = make_study(scene, scene, found)
    end = bench.ledger.spent + 90
    study.run(starts, end)
    assert bench.ledger.spent <= end
    assert [dict(trial.params)["op"] for trial in study.trials[: len(starts)]] == [start["op"] for start in starts]
    assert any(trial.pruned for trial in study.trials)
    assert all(4 <= len(trial.measurement.rows) < 8 for trial in study.trials if trial.pruned and not trial.repeated)
    belief = study.believe()
    leader = belief.leader()
    assert leader is not None
    assert found[-1][1].config == leader[0].config
    assert len(found) > 1  # the trials found something better than the screen
    assert scene.quality(leader[0].spec) > max(scene.quality(item.spec) for item in study._earlier)
    stored = study._store.finished()
    assert [trial.value for trial in stored] == [trial.measurement.mean for trial in study.trials]
    assert all(trial.state.name == "COMPLETE" for trial in stored)


def test_a_failing_configuration_is_stopped_penalised_and_infeasible(landscape, make_study):
    scene = landscape(name="s1")

    def fragile(spec, pair):
        done = scene(spec, pair)
        strong = any(term.stg_scale > 0.3 for segment in spec.segments for term in segment.terms)
        return Evaluation(config=done.config, pair=pair, error="nan: latents") if strong else done

    study, bench, starts = make_study(fragile, scene)
    study.run(starts, bench.ledger.spent + 120)
    failed = [trial for trial in study.trials if trial.measurement.rows[-1].error]
    assert failed
    for trial in failed:
        assert len(trial.measurement.rows) == 1
        assert trial.measurement.mean == -3.0
        assert not trial.measurement.feasible
    assert study._store.finished()[failed[0].number].constraints["failed pairs"] == 1.0


def test_a_known_configuration_is_answered_from_the_table(landscape, make_study):
    scene = landscape(name="s1")
    study, bench, starts = make_study(scene, scene)
    idle = "temporal" if starts[0]["k_spatial"] else "spatial"
    twice = [starts[0], {**starts[0], "joint": 1.0, f"stg_scale_{idle}": 1.0, "combination": 1}]
    study.run(twice, bench.ledger.spent + 14)
    first, second = study.trials[:2]
    assert (first.repeated, second.repeated) == (False, True)
    assert second.measurement.mean == first.measurement.mean
    assert len(scene.calls) == len(set(scene.calls))


def test_a_resumed_study_proposes_what_an_uninterrupted_one_would(landscape, make_study):
    scene = landscape(name="s1")
    whole, bench, starts = make_study(scene, scene, name="whole")
    begun = bench.ledger.spent
    whole.run(starts, begun + 80)
    first, _, _ = make_study(scene, scene)
    first.run(starts, begun + 50)
    again, bench, starts = make_study(scene, scene)
    again.replay()
    assert 0 < len(again.trials) < len(whole.trials)
    again.run(starts, begun + 80)
    assert [t.measurement.config for t in again.trials] == [t.measurement.config for t in whole.trials]
    assert bench.ledger.spent <= begun + 80


def test_an_infeasible_setting_is_not_the_best(landscape, make_study):
    scene = landscape(name="s1")

    def frozen(spec, pair):
        done = scene(spec, pair)
        skips = any(segment.terms for segment in spec.segments)
        return Evaluation(
            config=done.config,
            pair=pair,
            scores={**done.scores, "motion": 1.0 if skips else done.scores["motion"]},
        )

    found = []
    study, bench, starts = make_study(frozen, scene, found)
    study.run(starts, bench.ledger.spent + 60)
    skipping = [trial for trial in study.trials if trial.measurement.spec.segments and trial.measurement.forwards == 0]
    assert any(trial.measurement.mean > 0.3 for trial in skipping)
    assert all(not any(seg.terms for seg in trial.measurement.spec.segments) for trial in found)


def test_a_spec_outside_the_numbers_is_a_candidate(landscape, make_study, one_term):
    scene = landscape(name="s1")
    study, bench, _ = make_study(scene, scene)
    spec = GuidanceSpec(cfg_scale=3.33, segments=one_term(0.77).segments)
    study.warm_spec(spec, bench.ledger.spent + 8)
    assert study.trials[0].measurement.spec == spec
    study.warm_spec(GuidanceSpec(cfg_scale=3.31), bench.ledger.spent + 7)
    assert len(study.trials) == 1
