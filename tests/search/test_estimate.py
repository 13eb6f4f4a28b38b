import pytest

from stg_tune.records import Evaluation
from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.estimate import Timing, estimate, probe


def test_the_default_is_timed_warm_and_so_is_a_skip(landscape, make_plan):
    plan = make_plan(landscape())
    now, seen = [0.0], []

    def evaluate(spec, pair):
        seen.append((spec, pair))
        now[0] += 10.0 if len(seen) == 1 else 2.0 + (not is_cfg_only(spec))
        return Evaluation(config=spec.hash(), pair=pair)

    timing = probe(evaluate, plan, clock=lambda: now[0])
    assert timing == Timing(first=10.0, plain=2.0, guided=3.0)
    assert [spec == plan.baseline for spec, _ in seen] == [True, True, False]
    assert {pair for _, pair in seen} <= set(plan.search_pairs)


def test_a_batch_is_timed_as_a_whole_and_its_share_counts(landscape, make_plan):
    plan, now, seen = make_plan(landscape()), [0.0], []

    class Evaluate:
        def __call__(self, spec, pair):
            raise AssertionError("one at a time")

        def many(self, spec, pairs):
            seen.append(len(pairs))
            now[0] += 8.0
            return [Evaluation(config=spec.hash(), pair=pair) for pair in pairs]

    assert probe(Evaluate(), plan, batch=4, clock=lambda: now[0]) == Timing(first=2.0, plain=2.0, guided=2.0)
    assert seen == [4, 4, 4]


def test_the_cost_is_the_sum_of_what_is_planned(landscape, make_plan):
    plan = make_plan(landscape())
    cost = estimate(plan, Timing(first=5.0, plain=1.0, guided=2.0), workers=1)
    stages = cost.division.stages()
    plain = stages["baseline"] + stages["cfg"] + 2 * cost.division.confirm
    assert cost.worker_seconds == plain + 2.0 * (600 - plain)
    assert cost.seconds == cost.worker_seconds + 5
    assert estimate(plan, cost.timing, workers=4).seconds == pytest.approx(cost.worker_seconds / 4 + 5)


def test_a_time_budget_costs_about_that_time(landscape, make_plan):
    plan = make_plan(landscape(), budget="2h")
    cost = estimate(plan, Timing(first=0.0, plain=10.0, guided=15.0), workers=2)
    assert cost.seconds == pytest.approx(7200, rel=0.1)
