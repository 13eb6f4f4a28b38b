"""The pairs that choose and the pairs that measure share no prompt where there are prompts enough."""

import dataclasses

import numpy as np
import pytest

from stg_tune.search.driver import run_search, snapshot
from stg_tune.search.holdout import FEW_PROMPTS, Holdout, holdout_of, prompts_of
from stg_tune.search.plan import load_run, split_pairs
from stg_tune.search.session import divide_plan
from stg_tune.search.statistics import paired_interval


def plan_with(make_plan, landscape, prompts, *, budget="small", holdout=1200, **changes):
    search, held = split_pairs([f"prompt {i}" for i in range(prompts)], seed=0, search=24, holdout=holdout)
    return make_plan(landscape(), budget=budget, search_pairs=search, holdout_pairs=held, **changes)


def divided(plan, evaluations):
    division = divide_plan(plan, [evaluations])
    return division, holdout_of(plan, division).first(division.confirm)


@pytest.mark.parametrize("evaluations", [150, 600, 1500, 5000])
@pytest.mark.parametrize("prompts", [6, 48, 240])
def test_no_prompt_chooses_and_measures(make_plan, landscape, prompts, evaluations):
    division, held = divided(plan_with(make_plan, landscape, prompts), evaluations)
    chosen, measured = set(prompts_of(held.select)), set(prompts_of(held.confirm))
    assert not chosen & measured
    assert len(chosen) <= max(len(chosen | measured) / 2, 1)
    assert len(held.confirm) == division.confirm
    assert len(held.select) >= division.select // 3


@pytest.mark.parametrize(("evaluations", "chosen", "measured"), [(600, 18, 100), (1500, 45, 171), (5000, 72, 144)])
def test_embedded_models_have_prompts_enough_for_every_budget(make_plan, landscape, evaluations, chosen, measured):
    """240 captions, of which 216 are held out."""
    division, held = divided(plan_with(make_plan, landscape, 240), evaluations)
    assert len(prompts_of(held.select)) == chosen
    assert len(prompts_of(held.confirm)) == measured
    assert division.total == evaluations
    assert not held.warning


def test_few_prompts_are_told_to_the_user(make_plan, landscape):
    assert not divided(plan_with(make_plan, landscape, 48), 5000)[1].warning
    few = divided(plan_with(make_plan, landscape, 16), 600)[1]
    assert len(prompts_of(few.confirm)) < FEW_PROMPTS
    assert f"{len(prompts_of(few.confirm))} prompts in the confirmation are few" in few.warning
    one = divided(plan_with(make_plan, landscape, 1), 600)[1]
    assert "the result holds for these 1 only" in one.warning
    old = divided(plan_with(make_plan, landscape, 48, rules=1), 5000)[1]
    assert "36 prompts of the confirmation have chosen the winner too" in old.warning
    assert set(old.select).isdisjoint(old.confirm)


def test_an_extended_run_keeps_its_choice_and_adds_to_its_confirmation(make_plan, landscape):
    plan = plan_with(make_plan, landscape, 48)
    first, last = (divide_plan(plan, budgets) for budgets in ([600], [600, 5000]))
    one, two = (holdout_of(plan, item).first(item.confirm) for item in (first, last))
    assert one.select == two.select
    assert two.confirm[: len(one.confirm)] == one.confirm
    assert len(two.confirm) > len(one.confirm)


@pytest.mark.parametrize(("best_cfg", "rules", "arms"), [(3.5, 2, 2), (3.5, 1, 3), (2.2, 2, 3)])
def test_the_search_gets_what_a_third_setting_would_have_cost(make_plan, landscape, tmp_path, best_cfg, rules, arms):
    """Only where no CFG-only setting beats the default, and never more than the budget."""
    scene = landscape(name="d1", cfg_height=3.0 if best_cfg == 3.5 else 0.6, noise=0.2, best_cfg=best_cfg)
    plan = make_plan(scene, budget="240", prompts=200, rules=rules)
    none = dataclasses.replace(plan.space.rescale, low=0.0, high=0.0)
    plan = dataclasses.replace(plan, space=dataclasses.replace(plan.space, rescale=none))
    result = run_search(plan, scene, directory=tmp_path)
    assert (result.cfg_line.best == plan.baseline) == (best_cfg == 3.5)
    end = 240 - result.division.select - arms * result.division.confirm
    searched = {(item.measurement.config, row.pair.key) for item in result.trials for row in item.measurement.rows}
    fixed = result.division.search_pairs + result.division.cfg + result.division.screen
    assert end - fixed - 10 <= len(searched) <= end - result.division.search_pairs
    assert result.spent <= 240


def test_a_choice_on_prompts_that_measure_would_flatter_the_winner():
    """Two seeds each of 36 prompts, five settings without a gain that differ by prompt: 2.5 % may be claimed."""
    rng = np.random.default_rng(4)
    prompts, runs, claims = 36, 600, {"shared": 0, "apart": 0}
    for _ in range(runs):
        taste = rng.normal(0.0, 0.7, (5, prompts))
        choosing = taste + rng.normal(0.0, 0.7, (5, prompts))
        measuring = taste.repeat(2, axis=1) + rng.normal(0.0, 0.7, (5, 2 * prompts))
        ids = np.arange(prompts).repeat(2)
        for name, use, keep in (("shared", slice(None), ids >= 0), ("apart", slice(0, 12), ids >= 12)):
            winner = int(choosing[:, use].mean(1).argmax())
            claims[name] += paired_interval(measuring[winner, keep], ids[keep]).low > 0
    assert claims["shared"] / runs > 0.06
    assert claims["apart"] / runs < 0.045


def test_a_finished_run_of_before_is_shown_and_resumed_as_it_was(make_plan, landscape, tmp_path):
    scene = landscape(name="d1", noise=0.4)
    plan = dataclasses.replace(make_plan(scene, budget="240", prompts=24), rules=1)
    done = run_search(plan, scene, directory=tmp_path)
    assert load_run(tmp_path).plan.rules == 1
    calls = len(scene.calls)
    assert snapshot(tmp_path).verdict == done.verdict
    assert "have chosen the winner too" in done.verdict.warning
    longer = run_search(dataclasses.replace(load_run(tmp_path).plan, budget="300"), scene, directory=tmp_path)
    assert len(scene.calls) > calls
    assert longer.verdict.gain.level == pytest.approx(0.975)


def test_a_holdout_of_nothing_has_its_warning():
    assert "0 prompts" in Holdout(select=(), confirm=()).warning
