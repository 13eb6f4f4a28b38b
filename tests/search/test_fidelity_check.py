"""Cheaper evaluations where they rank settings alike, and only there; what is held out is always full."""

import dataclasses
import json

import numpy as np
import pytest

from stg_tune.cli.main import main
from stg_tune.errors import StgTuneError
from stg_tune.outcome import findings_of
from stg_tune.outcome.provenance import provenance
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search.bench import Measurement
from stg_tune.search.driver import outlook, preview, run_search, snapshot
from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.executor import BatchingExecutor, InlineExecutor, Task, attempt
from stg_tune.search.fidelity import FULL, HALF, MOST_COST, counts_as, steps_at
from stg_tune.search.fidelity_check import LEAST_CORRELATION, check_cost, compare, pointless, rank_correlation
from stg_tune.search.ledger import Ledger
from stg_tune.search.plan import SearchPlan, load_run
from stg_tune.search.storage import EvaluationTable
from stg_tune.search.stored import find_row, rows_of

BUDGET = "900"
PAIRS = [Pair(prompt=f"p{i}", seed=i) for i in range(6)]


class TwoSpeeds:
    """A landscape that can be looked at cheaply: through ``cheap``, another landscape, in ``share`` of the time."""

    def __init__(self, scene, cheap=None, share=0.5, stop_after=10**9):
        self.scene, self.cheap, self.share = scene, cheap or scene, share
        self.calls, self.stop_after = [], stop_after

    def __call__(self, spec, pair):
        return self._note(self.scene, spec, pair, FULL, 1.0)

    def at(self, fidelity):
        return lambda spec, pair: self._note(self.cheap, spec, pair, fidelity, self.share)

    def _note(self, scene, spec, pair, fidelity, share):
        if len(self.calls) >= self.stop_after:
            raise CrashError
        self.calls.append((spec.hash(), pair.key, fidelity))
        done = scene(spec, pair)
        return dataclasses.replace(done, seconds=share * done.seconds, forwards=share * done.forwards)


class CrashError(Exception):
    """Stands for a killed process."""


def small_space(space):
    """One stack, so that a run takes little time here."""
    return dataclasses.replace(space, stacks={"spatial": space.stacks["spatial"]})


@pytest.fixture(scope="module")
def faithful(landscape, make_plan, tmp_path_factory):
    """One run whose cheaper videos show the same: (evaluator, plan, result, events, folder)."""
    scene = landscape(name="d1", noise=0.3)
    plan = make_plan(scene, budget=BUDGET, prompts=200, fidelity="auto")
    plan = dataclasses.replace(plan, space=small_space(plan.space))
    evaluate, events = TwoSpeeds(scene, dataclasses.replace(scene, noise=0.35)), []
    folder = tmp_path_factory.mktemp("faithful") / "run"
    return evaluate, plan, run_search(plan, evaluate, directory=folder, progress=events.append), events, folder


def test_half_of_the_steps_and_what_they_count():
    assert [steps_at(HALF, steps) for steps in (1, 2, 5, 30)] == [1, 1, 3, 15]
    assert steps_at(FULL, 7) == 7
    assert (counts_as(FULL), counts_as(HALF)) == (1.0, MOST_COST)


def test_where_ranks_agree_screen_and_trials_are_cheaper(faithful):
    evaluate, _, result, _, folder = faithful
    assert result.check.fidelity == HALF
    assert result.check.low > LEAST_CORRELATION
    assert (result.check.cost, result.check.settings, result.check.pairs) == (0.5, 10, 5)
    rows = rows_of(folder)
    assert {row.fidelity for row in rows if row.role == "holdout"} == {FULL}
    cheap = {(row.evaluation.config, row.evaluation.pair.key) for row in rows if row.fidelity == HALF}
    for trial in result.trials:
        assert {(row.config, row.pair.key) for row in trial.measurement.rows} <= cheap
    assert result.verdict.improved
    assert evaluate.scene.quality(result.verdict.winner) > 0.5


def test_finalists_are_measured_again_and_everything_stays_in_the_budget(faithful):
    evaluate, _, result, events, _ = faithful
    finalists = [item for item in result.race.finalists if item.origin == "search"]
    assert finalists
    for item in finalists:
        assert {row.forwards for row in item.in_sample.rows} == {20.0}
        assert len(item.in_sample.rows) == result.division.search_pairs
    assert len(evaluate.calls) == len(set(evaluate.calls))
    full = sum(fidelity == FULL for *_, fidelity in evaluate.calls)
    cheap = len(evaluate.calls) - full
    assert result.spent == -(-(10 * full + 7 * cheap) // 10) <= int(BUDGET) < len(evaluate.calls)
    assert events[-1].done == result.spent
    assert all(event.stage_done <= event.stage_total for event in events)
    assert "fidelity" in {event.stage for event in events}


def test_windows_of_trials_are_whole_steps_of_the_cheaper_videos(faithful):
    _, plan, result, _, _ = faithful
    ends = {end for t in result.trials for seg in t.measurement.spec.segments for end in (seg.start, seg.stop)}
    assert len(ends) > 3
    steps = steps_at(HALF, plan.num_steps)
    assert all(abs(end * steps - round(end * steps)) < 1e-9 for end in ends)


def test_the_report_says_so_and_compares_like_with_like(faithful):
    _, _, result, _, folder = faithful
    text = provenance(result)["fidelity of screen and trials"]
    assert text.startswith("steps/2: 10 settings on 5 pairs have a rank correlation of ")
    page = findings_of(result, rows=rows_of(folder))
    assert {trial.cost for trial in page.trials} == {1.0}
    assert all(layer.cost == 1.0 for layer in page.layers)
    assert all(abs(trial.motion - 1) < 0.2 for trial in page.trials)
    assert result.check.to_dict()["least_correlation"] == LEAST_CORRELATION


def test_show_says_what_was_measured_and_decided(faithful, capsys):
    _, _, result, _, folder = faithful
    assert main(["show", str(folder)]) == 0
    assert "fidelity of screen and trials: steps/2; 10 settings on 5 pairs have a rank" in capsys.readouterr().out
    assert main(["show", "--json", str(folder)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["fidelity"] == result.check.to_dict()
    assert shown["price"] == 0.0


def test_a_stored_row_is_found_at_the_fidelity_it_was_made_with(faithful):
    _, _, result, _, folder = faithful
    again = {item.in_sample.config for item in result.race.finalists}
    numbers = {
        t.measurement.config not in again: t.number for t in result.trials if not is_cfg_only(t.measurement.spec)
    }
    assert find_row(folder, str(numbers[True]), "0").task.fidelity == HALF
    assert find_row(folder, str(numbers[False]), "0").task.fidelity == FULL


def test_a_run_that_is_stopped_anywhere_decides_the_same(faithful, tmp_path):
    evaluate, plan, result, _, _ = faithful
    fresh = TwoSpeeds(evaluate.scene, evaluate.cheap)
    for stop in (60, 120, 190, 260, 330):
        fresh.stop_after = stop
        with pytest.raises(CrashError):
            run_search(plan, fresh, directory=tmp_path)
        partial = snapshot(tmp_path)
        assert partial.check == (result.check if stop > 120 else None)
    assert len(fresh.calls) == len(set(fresh.calls))
    assert fresh.calls == evaluate.calls[: len(fresh.calls)]
    assert partial.trials
    assert [t.measurement for t in partial.trials] == [t.measurement for t in result.trials[: len(partial.trials)]]
    assert load_run(tmp_path).plan.fidelity == "auto"


@pytest.mark.parametrize(
    ("cheap", "share", "says"),
    [("another", 0.5, "a rank correlation of"), (None, 0.8, "at 0.80 of the time")],
)
def test_where_they_do_not_everything_is_full(landscape, make_plan, tmp_path, cheap, share, says):
    scene = landscape(name="d1", noise=0.3)
    plan = make_plan(scene, budget=BUDGET, prompts=200, fidelity="auto")
    plan = dataclasses.replace(plan, space=small_space(plan.space))
    other = landscape(name=cheap, noise=0.3, best_cfg=4.9) if cheap else scene
    evaluate = TwoSpeeds(scene, other, share, stop_after=320)
    with pytest.raises(CrashError):
        run_search(plan, evaluate, directory=tmp_path)
    result = snapshot(tmp_path)
    assert result.check.fidelity == FULL
    assert says in result.check.reason
    assert result.trials
    trials = {(row.config, row.pair.key, FULL) for trial in result.trials for row in trial.measurement.rows}
    assert trials <= set(evaluate.calls)
    assert sum(fidelity == HALF for *_, fidelity in evaluate.calls) == 10 + 10 * 5


def test_a_check_that_cannot_pay_for_itself_is_not_made(landscape, make_plan, tmp_path):
    scene = landscape(name="d1")
    plan = make_plan(scene, budget="150", fidelity="auto")
    evaluate = TwoSpeeds(scene)
    result = run_search(plan, evaluate, directory=tmp_path)
    assert {fidelity for *_, fidelity in evaluate.calls} == {FULL}
    assert (result.check.fidelity, result.check.correlation) == (FULL, None)
    assert "a run that begins with a larger budget has room for it" in result.check.reason
    evaluate.stop_after = len(evaluate.calls) + 20
    with pytest.raises(CrashError):  # what was decided once stays
        run_search(dataclasses.replace(plan, budget="large"), evaluate, directory=tmp_path)
    assert {fidelity for *_, fidelity in evaluate.calls} == {FULL}
    assert snapshot(tmp_path).check == result.check
    one_step = dataclasses.replace(plan, num_steps=1)
    assert pointless(one_step, preview(one_step), 24) == "1 denoising steps cannot be fewer"
    large = dataclasses.replace(plan, budget="large")
    assert pointless(large, preview(large), 72) == ""
    assert check_cost(24) == 173
    assert outlook(plan, preview(plan)) == f"everything at full fidelity: {result.check.reason}"
    assert outlook(large, preview(large)).startswith("up to 173 evaluations")
    assert outlook(dataclasses.replace(large, fidelity="full"), preview(large)) == ""


def test_a_default_that_fails_with_fewer_steps_is_a_reason(landscape, make_plan, tmp_path):
    scene = landscape(name="d1")
    plan = make_plan(scene, budget="900", prompts=200, fidelity="auto")

    def black(spec, pair):
        raise FloatingPointError("black video")

    evaluate = TwoSpeeds(scene, stop_after=150)
    evaluate.at = lambda fidelity: black
    with pytest.raises(CrashError):
        run_search(plan, evaluate, directory=tmp_path)
    assert "the default cannot be compared at steps/2: the model's own" in snapshot(tmp_path).check.reason


def test_the_plan_says_it_only_when_it_is_asked_for(make_plan, landscape):
    plan = make_plan(landscape())
    auto = dataclasses.replace(plan, fidelity="auto")
    assert "fidelity" not in plan.to_dict()
    assert SearchPlan.from_dict(auto.to_dict()) == auto
    assert auto.fingerprint() != plan.fingerprint()
    with pytest.raises(StgTuneError, match="fidelity of a search must be one of full, auto, got 'half'"):
        dataclasses.replace(plan, fidelity="half")


def test_the_same_pair_at_two_fidelities_is_two_rows(landscape, tmp_path):
    spec = GuidanceSpec(cfg_scale=2.0)
    evaluate = TwoSpeeds(landscape())
    tasks = [Task(spec=spec, pair=pair, role="search", fidelity=name) for name in (FULL, HALF) for pair in PAIRS[:2]]

    def ledger():
        table = EvaluationTable(f"sqlite:///{tmp_path / 'x.db'}", "m")
        executor = BatchingExecutor(InlineExecutor(evaluate), 4)
        return Ledger(table, executor, versions={}, on_evaluation=lambda row, new: None)

    first = ledger()
    assert first.missing(tasks) == 4  # 2 + 2 x 0.7, rounded up
    rows = list(first.run(tasks))
    assert [row.forwards for row in rows] == [20.0, 20.0, 10.0, 10.0]
    assert (first.spent, first.missing(tasks)) == (4, 0)
    assert list(ledger().run(tasks)) == rows
    assert len(evaluate.calls) == 4


def test_an_evaluator_of_one_fidelity_says_what_it_lacks(landscape):
    task = Task(spec=GuidanceSpec(cfg_scale=2.0), pair=PAIRS[0], role="search", fidelity=HALF)
    with pytest.raises(StgTuneError, match=r"cannot make videos at the fidelity 'steps/2': give it a method at\("):
        attempt(landscape(), task)


def gains(rng, settings, pairs, *, shared, own):
    """(full, cheap): what settings do at both, and noise."""
    both = rng.normal(size=(settings, 1)) * shared
    return tuple(both + own * rng.normal(size=(settings, pairs)) for _ in range(2))


def test_equal_ranks_and_no_ranks():
    rng = np.random.default_rng(0)
    same, _ = gains(rng, 10, 6, shared=1.0, own=0.2)
    estimate, low = rank_correlation(same, 3 * same + 1, seed=1)
    assert (estimate, low) == (pytest.approx(1.0), pytest.approx(1.0))
    assert rank_correlation(same, -same, seed=1)[0] == pytest.approx(-1.0)
    assert rank_correlation(same, np.zeros_like(same), seed=1) == (0.0, 0.0)
    assert rank_correlation(same, 3 * same + 1, seed=1) == rank_correlation(same, 3 * same + 1, seed=1)


def test_settings_that_have_nothing_in_common_rarely_pass():
    """Of 120 checks without any agreement, and of as many with a weak one, few have a bound above the threshold."""
    rng = np.random.default_rng(2)
    passed = {}
    for name, shared, own in (("none", 0.0, 1.0), ("weak", 0.3, 1.0), ("strong", 1.0, 0.3)):
        drawn = (gains(rng, 10, 4, shared=shared, own=own) for _ in range(120))
        passed[name] = sum(rank_correlation(*both, seed=3, resamples=300)[1] > LEAST_CORRELATION for both in drawn)
    assert passed["none"] <= 1
    assert passed["weak"] <= 6
    assert passed["strong"] >= 100


def test_too_little_to_compare_is_full():
    def measured(index, pairs):
        deltas = {pair.key: float(index) for pair in pairs}
        return Measurement(spec=GuidanceSpec(cfg_scale=1.0 + index), rows=(), deltas=deltas, violations={})

    few = [measured(index, PAIRS) for index in range(5)]
    assert compare(few, few, seed=0).reason == "too little could be compared"
    many = [measured(index, PAIRS[:1]) for index in range(10)]
    assert (compare(many, many, seed=0).fidelity, compare([], [], seed=0).settings) == (FULL, 0)
    untimed = compare(*[[measured(index, PAIRS) for index in range(10)]] * 2, seed=0)
    assert (untimed.fidelity, untimed.correlation) == (FULL, pytest.approx(1.0))
