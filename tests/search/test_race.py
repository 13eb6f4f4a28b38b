import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.bench import Bench
from stg_tune.search.executor import InlineExecutor
from stg_tune.search.ledger import Ledger
from stg_tune.search.race import Finalist, Track, looks_at, round_size, run_race
from stg_tune.search.storage import EvaluationTable


def test_rounds_fit_their_budget():
    for finalists in range(2, 9):
        size, alive, used = round_size(finalists, 100), finalists, 0
        while alive > 1:
            used += size * (alive + 1)
            alive = (alive + 1) // 2
        assert used <= 100
    assert round_size(1, 100) == 0


@pytest.mark.parametrize(("pairs", "looks"), [(100, [100]), (60, [60]), (172, [129, 172]), (400, [200, 300, 400])])
def test_early_looks_begin_at_a_hundred_pairs(pairs, looks):
    assert looks_at(pairs) == looks


@pytest.fixture
def race(tmp_path, make_plan, landscape, one_term):
    """Race settings with given true gains; returns (race, who was evaluated on which pairs, announcements)."""

    def run(gains, *, confirm=60, noise=0.3, cfg_gain=0.1, select=24, motion=None, slow=(), prompts=200, **rules):
        scene = landscape(height=0.0, cfg_height=0.0)
        plan = make_plan(scene)
        specs = {name: one_term(layer=i) for i, name in enumerate(gains)}
        cfg = GuidanceSpec(cfg_scale=2.0)
        truth = {specs[name].hash(): gain for name, gain in gains.items()} | {cfg.hash(): cfg_gain}
        still = {specs[name].hash() for name in motion or ()}
        seen = {}

        def evaluate(spec, pair):
            seen.setdefault(spec.hash(), []).append(pair)
            done = landscape(height=0.0, cfg_height=0.0, noise=noise)(spec, pair)
            gain = truth.get(spec.hash(), 0.0)
            signs = {"aesthetic": 1, "imaging_quality": 1, "alignment": 1, "temporal_lpips": -1}
            scores = {name: value + signs.get(name, 0) * gain for name, value in done.scores.items()}
            if spec.hash() in still:
                scores["motion"] = 0.5
            if spec.hash() in {specs[name].hash() for name in slow} and pair.seed >= 10_020:
                scores["motion"] *= 0.9
            return Evaluation(config=done.config, pair=pair, scores=scores)

        table = EvaluationTable(f"sqlite:///{tmp_path / 'r.db'}", "m")
        ledger = Ledger(table, InlineExecutor(evaluate), versions={}, on_evaluation=lambda row, new: None)
        bench = Bench.calibrate(ledger, plan.baseline, plan.search_pairs[:8], plan.space.objective, plan.kinds)
        finalists = [
            Finalist(name=name, origin="search", in_sample=bench.measure([spec], plan.search_pairs[:8])[0])
            for name, spec in specs.items()
        ]
        finalists.append(
            Finalist(name="best CFG", origin="cfg", in_sample=bench.measure([cfg], plan.search_pairs[:8])[0])
        )
        held = [Pair(prompt=f"held {i % prompts}", seed=10_000 + i) for i in range(20 + confirm)]
        track = Track(select=tuple(held[:20]), select_budget=select * 5, confirm=tuple(held[20:]), **rules)
        told = []
        result = run_race(
            bench,
            plan.baseline,
            cfg,
            finalists,
            track,
            announce=lambda name, gain: told.append(name),
            on_confirm=lambda: told.append("--"),
        )
        return result, {name: seen[spec.hash()] for name, spec in specs.items()}, told, track

    return run


def test_the_best_wins_and_is_measured_on_pairs_that_chose_nothing(race):
    result, seen, told, track = race({"a": 0.0, "b": 1.0, "c": -1.0})
    assert result.winner.name == "b"
    assert [set(heat.pairs) & set(track.confirm) for heat in result.heats] == [set()] * len(result.heats)
    assert set(seen["b"]) >= set(track.confirm)
    assert not set(seen["c"]) & set(track.confirm)
    assert result.verdict.gain.pairs == 60
    weighted = [item for item in result.verdict.scorers if item.weight]
    true = sum(1.0 / item.spread for item in weighted) / len(weighted)
    assert result.verdict.gain.low < true < result.verdict.gain.high
    assert told[-2:] == ["--", "b"]


def test_losers_leave_after_the_first_round(race):
    result, seen, *_ = race({"a": 0.9, "b": 1.0, "c": -1.0, "d": -1.1})
    assert {"c", "d"} <= set(result.heats[0].dropped)
    assert len(seen["d"]) == 8 + len(result.heats[0].pairs)


def test_gains_of_cfg_and_stg_are_reported_apart(race):
    verdict = race({"a": 1.0}, cfg_gain=0.5)[0].verdict
    assert verdict.improved
    assert verdict.gain.mean == pytest.approx(verdict.stg_gain.mean + verdict.cfg_gain.mean)
    assert verdict.cfg_gain.low > 0
    assert verdict.stg_gain.low > 0


def test_when_cfg_alone_wins_the_best_stg_setting_is_still_measured(race):
    result = race({"a": 0.2, "b": 0.1}, cfg_gain=1.5)[0]
    assert result.winner.name == "best CFG"
    assert result.verdict.improved
    assert result.verdict.stg_gain.high < 0
    assert result.verdict.winner == result.verdict.best_cfg
    assert "retuned CFG alone" in result.verdict.reason


def test_a_bad_cfg_setting_is_not_what_stg_must_beat(race):
    verdict = race({"a": 0.5}, cfg_gain=-0.2)[0].verdict
    assert verdict.best_cfg == GuidanceSpec(cfg_scale=3.5)
    assert verdict.cfg_gain is None
    assert verdict.stg_gain == verdict.gain


@pytest.mark.parametrize(("hasty", "cfg_scale"), [(False, 2.0), (True, 3.5)])
def test_a_cfg_setting_that_only_looks_bad_is_what_stg_must_beat(race, hasty, cfg_scale):
    """Else skip guidance gets what CFG has gained; here the mean of the CFG setting is below 0, but not clearly."""
    verdict = race({"a": 0.5}, cfg_gain=-0.09, hasty_default=hasty)[0].verdict
    assert verdict.best_cfg == GuidanceSpec(cfg_scale=cfg_scale)
    assert verdict.stg_proved


def test_a_broken_guard_is_no_improvement(race):
    still = race({"a": 1.0}, motion=["a"], cfg_gain=-0.05)[0]
    assert still.winner.name == "best CFG"  # the guard is seen on the search pairs already
    assert not still.verdict.improved


def test_a_guard_that_the_choice_could_not_see_is_seen_in_the_verdict(race):
    """Motion is a tenth less on held-out pairs only: a clear gain, and no improvement all the same."""
    slow = race({"a": 1.0}, slow=["a"])[0].verdict
    assert slow.gain.low > 0
    assert not slow.improved
    assert slow.violations["motion at_least_fraction 0.95"] > 0.04
    guard = next(item for item in slow.guards if item.scorer == "motion")
    assert (guard.holds, guard.broken) == (False, True)
    assert guard.value.high < 0.95
    assert "breaks the guard 'motion at_least_fraction 0.95'" in slow.reason
    assert not slow.stg_proved


def test_every_guard_has_an_interval_and_skip_guidance_its_own_claim(race):
    verdict = race({"a": 1.0}, cfg_gain=0.5)[0].verdict
    assert [guard.scorer for guard in verdict.guards] == ["motion", "saturation", "alignment"]
    assert all(guard.holds and guard.value.low <= guard.value.mean <= guard.value.high for guard in verdict.guards)
    assert verdict.guards[2].value.low < verdict.guards[2].value.high  # motion and saturation vary for nobody here
    assert (verdict.conclusion, verdict.stg_conclusion, verdict.stg_proved) == ("better", "better", True)


def test_what_is_equal_is_called_equivalent(race):
    none = race({"a": 0.0}, cfg_gain=-1.0, noise=0.1)[0].verdict
    assert (none.conclusion, none.improved, none.stg_proved) == ("equivalent", False, False)
    assert "equivalent" in none.reason


def test_the_pairs_behind_the_verdict_are_on_record(race):
    result, _, _, track = race({"a": -1.0}, confirm=400, cfg_gain=-1.1)
    assert result.confirm == track.confirm[:200]
    assert result.verdict.gain.pairs == 200


def test_evidence_of_each_scorer_is_in_its_own_unit(race):
    verdict = race({"a": 1.0})[0].verdict
    by_name = {item.name: item for item in verdict.scorers}
    assert set(by_name) == {"aesthetic", "imaging_quality", "temporal_lpips", "alignment", "motion", "saturation"}
    lpips = by_name["temporal_lpips"]
    assert lpips.gain.mean == pytest.approx(lpips.baseline - lpips.value)
    assert lpips.gain.mean == pytest.approx(1.0, abs=0.2)
    assert by_name["motion"].weight == 0.0


def test_a_race_without_hope_stops_early(race):
    lost = race({"a": -1.0}, confirm=400, cfg_gain=-1.1)[0].verdict
    assert (lost.look, lost.looks, lost.gain.pairs, lost.gain.level) == (1, 3, 200, 0.999)
    assert "stopped early" in lost.reason


def test_a_race_whose_winner_breaks_a_guard_stops_early(race):
    slow = race({"a": 1.0}, confirm=400, cfg_gain=0.0, slow=["a"])[0].verdict
    assert (slow.look, slow.gain.low > 0, slow.hopeless) == (1, True, True)


def test_a_clear_gain_is_measured_to_the_end(race):
    won = race({"a": 1.0}, confirm=400, cfg_gain=0.0)[0].verdict
    assert (won.look, won.gain.pairs, won.clear, won.hopeless) == (3, 400, True, False)
    assert won.gain.level == pytest.approx(0.952)
    assert "stopped early" not in won.reason


def test_a_run_of_before_still_stops_when_its_gain_is_clear(race):
    verdict = race({"a": 1.0}, confirm=400, cfg_gain=0.0, until_clear=True)[0].verdict
    assert (verdict.look, verdict.looks, verdict.gain.pairs, verdict.gain.level) == (1, 3, 200, 0.999)


def test_a_warning_about_the_prompts_is_part_of_the_verdict(race):
    assert race({"a": 1.0}, warning="5 prompts are few")[0].verdict.warning == "5 prompts are few"


def test_nobody_raced(race):
    result = race({}, confirm=60)[0]
    assert result.winner.name == "best CFG"
    assert result.verdict.stg_gain is None
