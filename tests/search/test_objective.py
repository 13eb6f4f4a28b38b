import math
import pickle
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, Pair, ScoreKind
from stg_tune.search.objective import Guard, Judge, Objective, parse_objective

PAIRS = [Pair(prompt=f"p{i}", seed=i) for i in range(4)]


def kind(name, direction="maximize"):
    return ScoreKind(name=name, direction=direction, low=-math.inf, high=math.inf, unit="u")


KINDS = {"good": kind("good"), "bad": kind("bad", "minimize"), "motion": kind("motion")}


def row(index, good, bad, motion=1.0, error="", gone=()):
    scores = {"good": good, "bad": bad, "motion": motion}
    return Evaluation(
        config="c",
        pair=PAIRS[index],
        scores={name: value for name, value in scores.items() if name not in gone and not error},
        unscored=dict.fromkeys(gone, "black"),
        error=error,
    )


BASELINE = [row(i, good, bad) for i, (good, bad) in enumerate([(1.0, 10.0), (2.0, 30.0), (3.0, 20.0), (4.0, 40.0)])]


def worked(done, forwards):
    return replace(done, forwards=forwards)


def priced(price=0.1):
    objective = Objective(weights={"good": 1.0, "bad": 3.0}, price=price)
    return Judge.calibrate(objective, KINDS, [worked(item, 20.0) for item in BASELINE])


def judge(weights=None, guards=(), penalty=3.0):
    objective = Objective(weights=weights or {"good": 1.0, "bad": 3.0}, guards=guards, penalty=penalty)
    return Judge.calibrate(objective, KINDS, BASELINE)


def test_deltas_are_paired_in_baseline_deviations_and_positive_is_better():
    sd_good, sd_bad = 1.2909944487, 12.909944487
    parts = judge().parts(row(1, 2.0 + sd_good, 30.0 - 2 * sd_bad))
    assert parts == pytest.approx({"good": 1.0, "bad": 2.0})
    assert judge().delta(row(1, 2.0 + sd_good, 30.0 - 2 * sd_bad)) == pytest.approx((1 * 1.0 + 3 * 2.0) / 4)
    assert judge().delta(BASELINE[2]) == 0.0


def test_what_each_pair_adds_to_a_violation_makes_up_the_whole():
    drop = Guard(scorer="good", rule="drop_at_most_sd", value=0.5)
    less, more = (Guard(scorer="motion", rule=f"at_{side}_fraction", value=0.9) for side in ("least", "most"))
    values = [(1.5, 0.9), (2.0, 1.1), (3.7, 0.8), (4.1, 1.0)]
    rows = [row(i, good, 10.0, motion) for i, (good, motion) in enumerate(values)]
    found = judge(guards=(drop, less, more))
    parts, whole, start = found.breaches(rows), found.violations(rows), found.violations(BASELINE)
    for guard in (drop, less, more):
        assert fmean(parts[guard.name].values()) == pytest.approx(whole[guard.name] - start[guard.name])
    assert list(parts[drop.name].values()) == pytest.approx([-0.5, 0.0, -0.7, -0.1])
    assert found.breaches([row(0, 1, 1, error="nan: x")])[drop.name] == {}


def test_could_not_score_is_a_penalty_and_never_zero():
    unscored = row(0, 1.0, 10.0, gone=["bad"])
    assert judge().delta(unscored) == pytest.approx((1 * 0.0 + 3 * -3.0) / 4)
    assert judge().delta(row(0, 1.0, 10.0, error="nan: all of it")) == pytest.approx(-3.0)


def test_a_pair_on_which_the_baseline_has_no_score_is_left_out():
    blind = judge().with_baseline([row(0, 0, 0, error="oom: x")])
    assert blind.delta(row(0, 5.0, 5.0)) is None
    half = judge().with_baseline([row(0, 1.0, 10.0, gone=["bad"])])
    assert half.parts(row(0, 1.0, 999.0)) == {"good": 0.0}


def test_guards():
    guards = (
        Guard(scorer="motion", rule="at_least_fraction", value=0.95),
        Guard(scorer="bad", rule="at_most_fraction", value=1.5),
        Guard(scorer="good", rule="drop_at_most_sd", value=0.5),
    )
    subject = judge(guards=guards)
    fine = subject.violations([row(0, 1.0, 10.0, 0.96), row(1, 2.0, 30.0, 0.96)])
    assert all(value <= 0 for value in fine.values())
    broken = subject.violations([row(0, 0.0, 20.0, 0.9), row(1, 1.0, 60.0, 0.9)])
    assert broken["motion at_least_fraction 0.95"] == pytest.approx(0.05)
    assert broken["bad at_most_fraction 1.5"] == pytest.approx(0.5)
    assert broken["good drop_at_most_sd 0.5"] == pytest.approx(1.0 - 0.5 * 1.2909944487)


def test_a_failed_pair_makes_a_configuration_infeasible():
    assert judge().violations([row(0, 1, 1), row(1, 0, 0, error="nan: x")])["failed pairs"] == 0.5


def test_a_guard_that_nothing_could_be_scored_for_is_broken():
    guard = Guard(scorer="motion", rule="at_least_fraction", value=0.95)
    assert judge(guards=(guard,)).violations([row(0, 1, 1, gone=["motion"])])[guard.name] == 1.0


def test_a_fraction_of_nothing_is_refused():
    still = [row(i, good, 10.0 * good, 0.0) for i, good in enumerate([1.0, 2.0, 3.0, 4.0])]
    objective = Objective(weights={"good": 1}, guards=(Guard(scorer="motion", rule="at_least_fraction", value=0.9),))
    with pytest.raises(StgTuneError, match="drop_at_most_sd"):
        Judge.calibrate(objective, KINDS, still).violations([row(0, 1, 1, 0.0)])


def test_a_scorer_that_never_varies_cannot_be_an_objective():
    with pytest.raises(StgTuneError, match="'motion' gave the baseline 4 usable scores with standard deviation 0"):
        judge(weights={"motion": 1.0})


def test_unknown_scorers_and_useless_weights():
    with pytest.raises(StgTuneError, match=r"names the scorer 'beauty'.*bad, good, motion"):
        judge(weights={"beauty": 1.0})
    with pytest.raises(StgTuneError, match=r"no scorer a weight above 0"):
        Objective(weights={"good": 0.0})
    with pytest.raises(StgTuneError, match=r"objective\.weights\.good"):
        Objective(weights={"good": math.nan, "bad": 1.0})


def test_a_failing_baseline_stops_everything():
    rows = [row(i, 0, 0, error="oom: out of memory") for i in range(3)] + [BASELINE[3]]
    with pytest.raises(StgTuneError, match=r"fails on 3 of 4 pairs.*oom: out of memory"):
        Judge.calibrate(Objective(weights={"good": 1}), KINDS, rows)


def test_objective_survives_json_and_pickle():
    objective = Objective(weights={"good": 2.0}, guards=(Guard(scorer="motion", rule="at_least_fraction", value=0.9),))
    assert Objective.from_dict(objective.to_dict()) == objective
    assert pickle.loads(pickle.dumps(objective)) == objective


def test_a_price_takes_off_what_is_spent_beyond_the_default_and_pays_back_what_is_saved():
    same = row(1, 2.0 + 1.2909944487, 30.0)
    assert priced().delta(worked(same, 20.0)) == pytest.approx(0.25)
    assert priced().delta(worked(same, 60.0)) == pytest.approx(0.25 - 0.2)
    assert priced().delta(worked(same, 10.0)) == pytest.approx(0.25 + 0.05)
    assert priced(0.0).delta(worked(same, 60.0)) == pytest.approx(0.25)
    assert priced().delta(worked(BASELINE[0], 20.0)) == 0.0


def test_a_pair_that_failed_is_paid_nothing_back():
    assert priced(50.0).delta(row(0, 0, 0, error="nan: all of it")) == pytest.approx(-3.0)


def test_a_price_for_work_that_nobody_counts_is_refused():
    with pytest.raises(StgTuneError, match=r"price of 0\.1 .*Evaluation\.forwards is 0.*use the objective quality"):
        Judge.calibrate(Objective(weights={"good": 1.0}, price=0.1), KINDS, BASELINE)


def test_only_a_price_is_written_down():
    plain, dear = Objective(weights={"good": 2.0}), Objective(weights={"good": 2.0}, price=0.25)
    assert "price" not in plain.to_dict()
    assert dear.to_dict()["price"] == 0.25
    assert Objective.from_dict(dear.to_dict()) == dear
    assert pickle.loads(pickle.dumps(dear)) == dear


@given(st.floats(min_value=1e-6, max_value=100.0))
def test_a_price_can_be_typed(price):
    assert parse_objective(f"cost={price!r}") == price


@pytest.mark.parametrize(
    "text", ["", "cost", "cost=", "cost=0", "cost=-1", "cost=nan", "cost=1e9", "speed=1", "quality=1"]
)
def test_objectives_that_mean_nothing(text):
    with pytest.raises(StgTuneError, match=r"is not understood; give quality, or cost=0\.1"):
        parse_objective(text)


def test_objectives_in_words():
    assert (parse_objective(" Quality "), parse_objective("COST=0.1")) == (0.0, 0.1)


@pytest.mark.parametrize("price", [-0.1, math.nan, math.inf, 101.0])
def test_prices_that_cannot_be(price):
    with pytest.raises(StgTuneError, match=r"objective\.price must be"):
        Objective(weights={"good": 1.0}, price=price)
