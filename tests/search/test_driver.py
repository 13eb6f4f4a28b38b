"""Whole runs on the synthetic landscape."""

import dataclasses
import json
import random
import sqlite3

import optuna
import pytest

from stg_tune import preset
from stg_tune.errors import StgTuneError
from stg_tune.models.base import GenerationDefaults
from stg_tune.outcome import findings_of
from stg_tune.records import GuidanceSpec
from stg_tune.search.driver import preview, run_search, snapshot
from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.lock import DriverLock
from stg_tune.search.objective import Judge
from stg_tune.search.plan import load_run
from stg_tune.search.ranges import Range, RestartRange, SecondPart
from stg_tune.search.space import WarmStart
from stg_tune.search.stored import first_row

BUDGET = "240"


class CrashError(Exception):
    """Stands for a killed process."""


def interrupted_after(landscape, calls, error):
    left = iter(range(calls))

    def evaluate(spec, pair):
        if next(left, None) is None:
            raise error
        return landscape(spec, pair)

    return evaluate


def essence(result):
    """What must not depend on interruptions."""
    return {
        "spent": result.spent,
        "trials": [(t.measurement.config, t.measurement.mean, t.pruned, t.repeated) for t in result.trials],
        "orders": dict(result.screen.orders),
        "winner": result.verdict.winner.hash(),
        "gain": result.verdict.gain,
        "stg": result.verdict.stg_gain,
    }


@pytest.fixture(scope="module")
def whole(landscape, make_plan, tmp_path_factory):
    """One uninterrupted run, shared: (landscape, plan, result, events, folder)."""
    landscape = landscape(name="d3", noise=0.4)
    plan = make_plan(landscape, budget=BUDGET, prompts=200)
    folder = tmp_path_factory.mktemp("whole") / "run"
    events = []
    result = run_search(plan, landscape, directory=folder, progress=events.append)
    return landscape, plan, result, events, folder


def test_it_finds_and_proves_a_better_setting(whole):
    landscape, _, result, _, _ = whole
    verdict = result.verdict
    assert verdict.improved
    assert verdict.gain.low > 0
    assert verdict.stg_gain.low > 0
    true = landscape.quality(verdict.winner)
    assert true > 0.6
    assert landscape.quality(verdict.best_cfg) <= 0.45
    spread = sum(result.spread[name] for name in ("aesthetic", "imaging_quality", "temporal_lpips", "alignment")) / 4
    assert verdict.gain.low * spread * 0.8 < true < verdict.gain.high * spread * 1.25


def test_every_pair_is_evaluated_once_and_the_budget_is_kept(whole):
    landscape, _, result, events, _ = whole
    assert len(landscape.calls) == len(set(landscape.calls)) == result.spent <= int(BUDGET)
    assert result.spent >= 0.75 * int(BUDGET)
    assert events[-1].done == result.spent


def test_the_search_never_sees_a_held_out_pair(whole):
    _, plan, result, _, _ = whole
    held = {pair.key for pair in plan.holdout_pairs}
    seen = [row.pair.key for trial in result.trials for row in trial.measurement.rows]
    assert not held & set(seen)
    confirm = {item.gain.pairs for item in result.verdict.scorers}
    assert confirm == {result.division.confirm}


def test_progress_tells_stage_best_and_time(whole):
    *_, events, folder = whole
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["baseline", "published", "cfg", "screen", "search", "select", "confirm"]
    assert all(event.stage_done <= event.stage_total for event in events)
    search = [event for event in events if event.stage == "search"]
    assert search[-1].best.name.startswith("trial")
    assert not search[-1].best.held_out
    assert events[-1].best.held_out
    assert events[-1].seconds_left is not None
    state = json.loads((folder / "state.json").read_text())
    assert (state["status"], state["stage"]) == ("finished", "confirm")


def test_a_finished_run_is_answered_from_the_table(whole):
    landscape, plan, result, _, folder = whole
    before = len(landscape.calls)
    again = run_search(plan, landscape, directory=folder)
    assert len(landscape.calls) == before
    assert essence(again) == essence(result)
    assert essence(snapshot(folder)) == essence(result)
    assert load_run(folder).allowances[-1].verdict


def test_the_result_becomes_a_preset_with_its_evidence(whole, tmp_path):
    _, plan, result, _, _ = whole
    generation = GenerationDefaults(height=64, width=64, num_frames=17, num_inference_steps=10, cfg_scale=3.5, fps=8)
    made = preset.from_result(result, family="open-sora", checkpoint="embedded", generation=generation)
    preset.save(made, tmp_path / "preset.json")
    loaded = preset.load(tmp_path / "preset.json")
    assert loaded == made
    assert loaded.spec == result.verdict.winner
    assert loaded.evidence.gain.low == result.verdict.gain.low
    assert loaded.evidence.evaluations == result.spent
    for kept, found in zip(loaded.evidence.guard_values, result.verdict.guards, strict=True):
        assert (kept.name, kept.limit, kept.holds) == (found.name, found.limit, found.holds)
        assert (kept.value.low, kept.value.mean, kept.value.high) == (
            found.value.low,
            found.value.mean,
            found.value.high,
        )
    assert {item.name for item in loaded.evidence.scorers} == set(plan.kinds)
    assert preset.validate(tmp_path / "preset.json") == ()


@pytest.mark.parametrize("kind", [CrashError, KeyboardInterrupt])
def test_a_run_that_is_stopped_anywhere_ends_as_the_uninterrupted_one(whole, tmp_path, kind):
    landscape, plan, result, _, _ = whole
    fresh = dataclasses.replace(landscape, calls=[])
    chance = random.Random(kind.__name__)
    folder = tmp_path / "run"
    stops = 0
    while stops < 4:
        try:
            run_search(plan, interrupted_after(fresh, chance.randint(5, 70), kind("stop")), directory=folder)
            break
        except kind:
            stops += 1
            state = json.loads((folder / "state.json").read_text())
            assert state["status"] == ("interrupted" if kind is KeyboardInterrupt else "failed")
            partial = snapshot(folder)
            assert partial.spent == len(fresh.calls)
            assert not partial.finished
    final = run_search(plan, fresh, directory=folder)
    assert stops
    assert essence(final) == essence(result)
    assert len(fresh.calls) == len(set(fresh.calls)) == result.spent


def test_a_resumed_run_must_repeat_a_row_that_is_stored(whole, tmp_path):
    landscape, plan, result, _, _ = whole
    fresh = dataclasses.replace(landscape, calls=[])
    with pytest.raises(KeyboardInterrupt):
        run_search(plan, interrupted_after(fresh, 90, KeyboardInterrupt()), directory=tmp_path)
    stored = first_row(tmp_path)
    assert not is_cfg_only(stored.task.spec)

    def changed(spec, pair):
        done = landscape(spec, pair)
        return dataclasses.replace(done, scores={**done.scores, "aesthetic": done.scores["aesthetic"] + 1})

    with pytest.raises(StgTuneError, match=r"different scores on .* aesthetic"):
        run_search(plan, changed, directory=tmp_path, repeat=stored)
    again = run_search(plan, fresh, directory=tmp_path, repeat=stored)
    assert essence(again) == essence(result)
    assert len(fresh.calls) == result.spent + 1


def test_two_drivers_on_one_folder_are_refused(whole, tmp_path):
    landscape, plan, *_ = whole
    with DriverLock(tmp_path), pytest.raises(StgTuneError, match="another driver"):
        run_search(plan, landscape, directory=tmp_path)


def test_another_plan_in_the_same_folder_is_refused(whole):
    landscape, plan, _, _, folder = whole
    with pytest.raises(StgTuneError, match="another model, space, pairs, scorers or seed"):
        run_search(dataclasses.replace(plan, seed=9), landscape, directory=folder)
    with pytest.raises(StgTuneError, match="by a larger one only, and 160 comes to 160"):
        run_search(dataclasses.replace(plan, budget="160"), landscape, directory=folder)
    with pytest.raises(StgTuneError, match="leave out --storage"):
        run_search(plan, landscape, directory=folder, storage="sqlite:///other.db")


def test_a_bad_storage_leaves_no_run_behind(whole, tmp_path):
    landscape, plan, *_ = whole
    with pytest.raises(StgTuneError, match="storage"):
        run_search(plan, landscape, directory=tmp_path, storage="sqlite:////no/such/folder/x.db")
    assert not (tmp_path / "run.json").exists()


def test_a_larger_budget_goes_on_and_pays_for_the_second_verdict(whole, tmp_path):
    landscape, plan, *_ = whole
    fresh = dataclasses.replace(landscape, calls=[])
    small = dataclasses.replace(plan, budget="150")
    first = run_search(small, fresh, directory=tmp_path)
    spent = len(fresh.calls)
    more = run_search(dataclasses.replace(plan, budget="200"), fresh, directory=tmp_path)
    assert len(fresh.calls) == len(set(fresh.calls))
    assert more.spent <= 200
    assert spent < len(fresh.calls) <= 200 + first.division.confirm  # the first winner, should the second be another
    assert [t.measurement.config for t in more.trials[: len(first.trials)]] == [
        t.measurement.config for t in first.trials
    ]
    assert (first.verdict.gain.level, more.verdict.gain.level) == (0.95, 0.975)
    assert [item.evaluations for item in load_run(tmp_path).allowances] == [150, 200]


def test_nothing_to_gain_is_not_claimed(landscape, make_plan, tmp_path):
    claims = []
    for seed in range(3):
        null = landscape(name=f"null {seed}", height=0.0, cfg_height=0.0, noise=1.0)
        plan = make_plan(null, budget="150", seed=seed, prompts=200)
        result = run_search(plan, null, directory=tmp_path / str(seed))
        claims.append(result.verdict.improved)
        assert result.spent <= 150
    assert sum(claims) <= 1


def test_a_time_budget_becomes_a_number_once(landscape, make_plan, tmp_path):
    scene = landscape(name="d1")
    plan = make_plan(scene, budget="70s")
    with pytest.raises(CrashError):
        run_search(plan, interrupted_after(scene, 20, CrashError()), directory=tmp_path)
    assert load_run(tmp_path).allowances[0].evaluations == int(70 / (0.3 * 1.4))
    with pytest.raises(StgTuneError, match="baseline has been timed"):
        preview(plan)
    assert preview(plan, seconds_each=0.3).total <= 166


def test_a_price_is_taken_off_every_gain_and_said(landscape, make_plan, tmp_path):
    scene = landscape(name="d1", noise=0.4)

    def counted(spec, pair):
        terms = sum(len(segment.terms) for segment in spec.segments)
        return dataclasses.replace(scene(spec, pair), forwards=20.0 + 10.0 * terms)

    plan = make_plan(scene, budget="200", prompts=200)
    dear = dataclasses.replace(plan, space=plan.space.priced(0.2))
    assert dear.fingerprint() != plan.fingerprint()
    result = run_search(dear, counted, directory=tmp_path)
    assert load_run(tmp_path).plan == dear
    verdict = result.verdict
    assert verdict.price == 0.2
    assert "net of a price of 0.2 standard deviations" in verdict.reason
    (trial,) = [item for item in result.trials if item.measurement.forwards == 40.0][:1]
    free = Judge(objective=plan.space.objective, kinds=plan.kinds, spread=result.spread)
    gross = free.with_baseline(result.baseline.rows)
    for row in trial.measurement.rows:
        assert trial.measurement.deltas[row.pair.key] == pytest.approx(gross.delta(row) - 0.2)
    page = findings_of(result)
    assert (page.price, page.provenance["objective"][:21]) == (0.2, "quality, less 0.2 sta")


def test_without_a_price_nothing_is_said_of_it(whole):
    _, plan, result, _, _ = whole
    assert (result.verdict.price, "price" in result.verdict.reason) == (0.0, False)
    assert "price" not in json.dumps(plan.to_dict())
    assert "objective" not in findings_of(result).provenance


def test_preview_spends_nothing(landscape, make_plan):
    scene = landscape()
    division = preview(make_plan(scene, prompts=200))
    assert division.total == 600
    assert division.confirm == 100
    assert scene.calls == []


def test_a_published_setting_races(landscape, make_plan, tmp_path, one_term):
    scene = landscape(name="d1")
    plan = make_plan(scene, budget="170", published={"paper": one_term()})
    result = run_search(plan, scene, directory=tmp_path)
    assert result.published["paper"].spec == one_term()
    assert "published: paper" in {item.name for item in result.race.finalists}
    assert result.spent <= 170


def test_the_sampler_learns_from_what_is_known_already(landscape, make_plan, tmp_path, one_term):
    """Published settings and warm starts that have numbers are proposals; the others are tried outside."""
    scene = landscape(name="d1", noise=0.4)
    plan = make_plan(scene, budget="260", prompts=200, published={"paper": one_term(0.3, 2.0, layer=2)})
    odd = GuidanceSpec(cfg_scale=3.33, segments=one_term(0.4).segments)
    fine = GuidanceSpec(cfg_scale=2.2, segments=(dataclasses.replace(one_term(0.25, layer=2).segments[0], stop=0.7),))
    warm = [
        WarmStart(name=name, spec=spec, why="a test", source="a test") for name, spec in (("odd", odd), ("fine", fine))
    ]
    plan = dataclasses.replace(plan, space=dataclasses.replace(plan.space, warm_starts=tuple(warm)))
    result = run_search(plan, scene, directory=tmp_path)
    assert 2 in result.screen.orders["spatial", "attention"][:4]  # else the numbers could not express it
    first, second, third = result.trials[:3]
    assert (first.measurement.spec, first.params) == (odd, {})
    assert second.measurement.spec == plan.published["paper"]
    assert third.measurement.spec == fine
    assert second.params.keys() == third.params.keys() == result.trials[-1].params.keys()
    study = optuna.load_study(study_name="synthetic", storage=load_run(tmp_path).storage)
    told = study.get_trials()
    assert [trial.params for trial in told[:2]] == [second.params, third.params]
    assert told[0].value == second.measurement.mean
    assert len(scene.calls) == len(set(scene.calls)) == result.spent <= 260
    names = [item.name for item in result.race.finalists]
    assert "published: paper" in names
    assert f"trial {second.number}" not in names
    assert essence(snapshot(tmp_path)) == essence(result)


def test_a_run_from_before_warm_starts_were_proposals_keeps_them(landscape, make_plan, tmp_path, one_term):
    scene = landscape(name="d1", noise=0.4)
    plan = make_plan(scene, budget="200", prompts=200, rules=1)
    fine = GuidanceSpec(cfg_scale=2.2, segments=one_term(0.25, layer=2).segments)
    warm = (WarmStart(name="fine", spec=fine, why="a test", source="a test"),)
    known = dataclasses.replace(plan, space=dataclasses.replace(plan.space, warm_starts=warm))
    before = run_search(plan, scene, directory=tmp_path / "run")
    assert "2" in str(before.screen.orders["spatial", "attention"][:4])
    # the same run as an older version leaves it: warm starts in the plan, none among the optimiser's trials
    run = load_run(tmp_path / "run")
    older = dataclasses.replace(run, plan=known, storage=f"sqlite:///{tmp_path / 'other.db'}")
    with sqlite3.connect(tmp_path / "run" / "study.db") as whole, sqlite3.connect(tmp_path / "other.db") as base:
        whole.backup(base)
        base.execute("update stg_tune_runs set fingerprint = ?", (known.fingerprint(),))
    older.save(tmp_path / "old")
    more = run_search(dataclasses.replace(known, budget="240"), scene, directory=tmp_path / "old")
    assert fine.hash() in {trial.measurement.config for trial in more.trials}
    proposed = [trial.measurement.config for trial in more.trials if trial.params]
    assert proposed[: len(before.trials)] == [trial.measurement.config for trial in before.trials]


def test_a_space_with_two_parts_and_restarts_is_searched(landscape, make_plan, tmp_path):
    scene = landscape(name="d1", noise=0.4)
    plan = make_plan(scene, budget="500", prompts=200)

    def between(low, high):
        return Range(low=low, high=high, why="a test", source="a test")

    space = dataclasses.replace(
        plan.space,
        segments=SecondPart(split=between(0.2, 0.8), cfg_scale=between(1.0, 4.0), stg_factor=between(0.0, 2.0)),
        restart=RestartRange(start=between(0.2, 0.4), stop=between(0.5, 0.8), max_count=2, why="x", source="x"),
    )
    result = run_search(dataclasses.replace(plan, space=space), scene, directory=tmp_path)
    specs = [trial.measurement.spec for trial in result.trials]
    assert {len(spec.segments) for spec in specs if not is_cfg_only(spec)} == {1, 2}
    assert {spec.restart is None for spec in specs} == {True, False}
    assert all("parts" in trial.params for trial in result.trials)
    assert result.verdict is not None
    assert load_run(tmp_path).plan.space == space


def test_someone_must_evaluate(landscape, make_plan, tmp_path):
    with pytest.raises(StgTuneError, match="evaluate or executor"):
        run_search(make_plan(landscape()), directory=tmp_path)


def test_the_baseline_must_work(landscape, make_plan, tmp_path):
    scene = landscape()

    def broken(spec, pair):
        raise FloatingPointError("black video")

    with pytest.raises(StgTuneError, match=r"own default setting fails on 6 of 6 pairs.*nan: black video"):
        run_search(make_plan(scene, budget="150"), broken, directory=tmp_path)
    assert GuidanceSpec(cfg_scale=3.5) == make_plan(scene).baseline
