"""Budgets of time: they become evaluations, they are kept, and they can be made larger."""

import dataclasses
import json
import math

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.budget import parse_budget
from stg_tune.search.driver import run_search, snapshot
from stg_tune.search.executor import InlineExecutor
from stg_tune.search.plan import Allowance, RunFile, load_run
from stg_tune.search.progress import Tracker, silent, worked_before
from stg_tune.search.session import Session
from stg_tune.search.storage import Row
from stg_tune.search.stored import rows_of
from stg_tune.search.timing import LEAST_CONFIRM, LEAST_TRIALS, Pace, confirmation, extended

SPEC = GuidanceSpec(cfg_scale=2.0)


def row(seconds, seed=0, fidelity="full"):
    done = Evaluation(config=SPEC.hash(), pair=Pair(prompt="p", seed=seed), seconds=seconds)
    return Row(spec=SPEC, evaluation=done, role="search", fidelity=fidelity, worker="w", versions={})


def test_what_there_is_still_time_for():
    pace = Pace(elapsed=3600, worked=7000, seconds_each=10, slots=2)
    assert pace.affordable(parse_budget("2h")) == 720
    assert pace.affordable(parse_budget("4wh")) == (4 * 3600 - 7000) / 10
    assert pace.affordable(parse_budget("30m")) < 0
    assert pace.affordable(parse_budget("small")) == math.inf


def test_the_confirmation_shrinks_to_what_is_left_but_not_to_nothing():
    assert confirmation(1000, 50, 3, 100) == 100
    assert confirmation(200, 50, 3, 100) == 50
    assert confirmation(0, 50, 3, 100) == LEAST_CONFIRM
    assert confirmation(0, 50, 3, 20) == 20


def test_more_time_is_what_the_stored_rows_took():
    rows = [row(12.0, seed) for seed in range(600)]
    assert extended(parse_budget("4h"), rows, elapsed=7200, slots=1) == 600 + 7200 // 12
    assert extended(parse_budget("4h"), rows, elapsed=0, slots=1) == 600 + 7200 // 12  # a run from before it was noted
    assert extended(parse_budget("4h"), rows, elapsed=3600, slots=2) == 600 + 2 * 3 * 3600 // 12
    eight = extended(parse_budget("4h"), rows, elapsed=900, slots=1)  # what has been done took eight workers
    assert eight == 600 + 8 * 3.75 * 3600 // 12
    assert extended(parse_budget("32wh"), rows, elapsed=7200, slots=1) == 600 + 30 * 3600 // 12
    assert extended(parse_budget("large"), rows, elapsed=7200, slots=1) == 5000
    assert extended(parse_budget("1h"), rows, elapsed=7200, slots=1) == 600
    cheap = [row(6.0, seed, "steps/2") for seed in range(100)]
    assert extended(parse_budget("1wh"), cheap, elapsed=600, slots=1) == 70 + int(3000 / (600 / 70))


class Slow:
    """A scene on a clock of its own: an evaluation takes ``pace(number)`` seconds of it."""

    def __init__(self, scene, pace, stop_at=None):
        self.scene, self.pace, self.stop_at, self.now, self.calls = scene, pace, stop_at, 0.0, 0

    def __call__(self, spec, pair):
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        seconds = self.pace(self.calls)
        self.now += seconds
        return dataclasses.replace(self.scene(spec, pair), seconds=seconds)

    def search(self, plan, folder):
        run = load_run(folder) if (folder / "run.json").exists() else self.begun(plan, folder)
        session = Session(run, InlineExecutor(self), Tracker(silent, folder, clock=lambda: self.now), directory=folder)
        try:
            return session.run()
        finally:
            session._tracker.finish("interrupted")
            session.close()

    def begun(self, plan, folder):
        folder.mkdir()
        run = RunFile(
            plan=plan, storage=f"sqlite:///{folder / 'study.db'}", allowances=(Allowance(budget=plan.budget),)
        )
        run.save(folder)
        return run


def slower(factor):
    return lambda number: 0.3 if number <= 6 else 0.42 * factor


@pytest.fixture(scope="module")
def scene(landscape):
    return landscape(name="d1", noise=0.4)


@pytest.fixture(scope="module")
def plan(scene, make_plan):
    return make_plan(scene, budget="250s", prompts=200)


def test_a_run_whose_evaluations_become_slower_keeps_its_time_and_still_confirms(scene, plan, tmp_path):
    slow = Slow(scene, slower(2.0))
    result = slow.search(plan, tmp_path / "run")
    assert load_run(tmp_path / "run").allowances[0].evaluations == 595  # would have taken 500 seconds
    assert slow.now < 250 * 1.15
    assert LEAST_CONFIRM <= result.division.confirm < 60
    assert len(result.trials) >= LEAST_TRIALS
    assert result.verdict is not None
    assert len(result.race.confirm) == result.division.confirm
    assert snapshot(tmp_path / "run").verdict == result.verdict


def test_a_little_slower_costs_trials_and_no_evidence(scene, plan, tmp_path):
    slow, usual = Slow(scene, slower(1.15)), Slow(scene, slower(1.0))
    result, whole = slow.search(plan, tmp_path / "slow"), usual.search(plan, tmp_path / "usual")
    assert slow.now < 250 * 1.05
    assert load_run(tmp_path / "usual").allowances[0].search_end is None
    assert result.division.confirm >= whole.division.confirm - 2
    assert 0 < len(result.trials) < len(whole.trials)


def test_a_run_that_ran_short_is_resumed_as_it_was(scene, plan, tmp_path):
    whole = Slow(scene, slower(2.0))
    expected = whole.search(plan, tmp_path / "whole")
    first = Slow(scene, slower(2.0), stop_at=whole.calls - 20)
    with pytest.raises(KeyboardInterrupt):
        first.search(plan, tmp_path / "run")
    assert worked_before(tmp_path / "run") == pytest.approx(first.now, abs=0.01)
    second = Slow(scene, slower(2.0))
    result = second.search(plan, tmp_path / "run")
    assert second.calls == 20
    assert result.verdict == expected.verdict
    assert result.division == expected.division


def test_a_session_counts_the_time_of_those_before_it(scene, plan, tmp_path):
    (tmp_path / "state.json").write_text(json.dumps({"elapsed": 200.0}))
    assert Tracker(silent, tmp_path, clock=lambda: 7.0).elapsed == 200.0
    for text in ("", "{}", "[]", '{"elapsed": "x"}', '{"elapsed": NaN}', '{"elapsed": -5}'):
        (tmp_path / "state.json").write_text(text)
        assert worked_before(tmp_path) == 0.0


def test_time_of_all_workers_is_kept_and_can_be_made_larger(scene, make_plan, tmp_path):
    plan = make_plan(scene, budget="0.02wh", prompts=200)  # 72 seconds, of which a row takes 0.3
    first = run_search(plan, scene, directory=tmp_path)
    spent = len(rows_of(tmp_path))
    more = run_search(dataclasses.replace(plan, budget="0.04wh"), scene, directory=tmp_path)
    assert first.verdict is not None
    assert more.verdict is not None
    allowances = load_run(tmp_path).allowances
    assert [item.budget for item in allowances] == ["0.02wh", "0.04wh"]
    assert allowances[1].evaluations == spent + int((144 - spent * 0.3) / 0.3)
    assert spent < len(rows_of(tmp_path))
    assert more.seconds <= 144
    with pytest.raises(StgTuneError, match=r"by a larger one only, and 0\.03wh comes to"):
        run_search(dataclasses.replace(plan, budget="0.03wh"), scene, directory=tmp_path)


def test_wall_time_can_be_made_larger(scene, make_plan, tmp_path):
    plan = make_plan(scene, budget="70s", prompts=200)
    run_search(plan, scene, directory=tmp_path)
    spent = len(rows_of(tmp_path))
    (tmp_path / "state.json").write_text(json.dumps({"elapsed": spent * 0.3}))  # as if a row had taken what it says
    run_search(dataclasses.replace(plan, budget="140s"), scene, directory=tmp_path)
    assert load_run(tmp_path).allowances[1].evaluations == spent + int((140 - spent * 0.3) / 0.3)


def test_a_run_that_has_stored_nothing_takes_any_other_time(scene, make_plan, tmp_path):
    plan = make_plan(scene, budget="70s", prompts=200)

    def never(spec, pair):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(plan, never, directory=tmp_path)
    result = run_search(dataclasses.replace(plan, budget="100s"), scene, directory=tmp_path)
    assert result.verdict is not None
    (allowance,) = load_run(tmp_path).allowances
    assert (allowance.budget, allowance.evaluations) == ("100s", int(100 / 0.42))
