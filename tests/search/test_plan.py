import dataclasses
import json
import math
import pickle

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search.plan import Allowance, RunFile, SearchPlan, load_run, split_pairs


def test_search_and_held_out_pairs_share_no_prompt_and_no_noise():
    search, holdout = split_pairs([f"p{i}" for i in range(40)], seed=3, search=12, holdout=100)
    assert (len(search), len(holdout)) == (12, 100)
    assert not {pair.prompt for pair in search} & {pair.prompt for pair in holdout}
    assert len({pair.seed for pair in (*search, *holdout)}) == 112
    assert len({pair.prompt for pair in holdout}) == 30
    counts = [sum(pair.prompt == prompt for pair in holdout) for prompt in {pair.prompt for pair in holdout}]
    assert max(counts) - min(counts) <= 1


def test_pairs_depend_on_the_seed_only():
    prompts = [f"p{i}" for i in range(40)]
    assert split_pairs(prompts, seed=1, search=8, holdout=30) == split_pairs(prompts, seed=1, search=8, holdout=30)
    assert split_pairs(prompts, seed=1, search=8, holdout=30) != split_pairs(prompts, seed=2, search=8, holdout=30)


def test_few_prompts_are_shared_and_none_is_refused():
    search, holdout = split_pairs(["only one", " ", "only one "], seed=0, search=6, holdout=20)
    assert {pair.prompt for pair in (*search, *holdout)} == {"only one"}
    with pytest.raises(StgTuneError, match="there is no prompt"):
        split_pairs(["", "  "], seed=0, search=6, holdout=20)


def test_a_plan_survives_the_run_file(tmp_path, make_plan, landscape, one_term):
    plan = make_plan(landscape(), published={"paper": one_term()}, versions={"torch": "2.8"})
    run = RunFile(plan=plan, storage="sqlite:///x.db", allowances=(Allowance(budget="small", evaluations=600),))
    run.save(tmp_path)
    assert load_run(tmp_path) == run
    assert json.loads((tmp_path / "run.json").read_text())["plan"]["scorers"][0]["name"] == "aesthetic"
    assert load_run(tmp_path).plan.scorers[0].high == math.inf
    assert pickle.loads(pickle.dumps(plan.space)) == plan.space


def test_a_plan_of_before_keeps_its_rules_and_its_fingerprint(make_plan, landscape):
    plan = make_plan(landscape())
    old = dataclasses.replace(plan, rules=1)
    assert "rules" not in old.to_dict()
    assert SearchPlan.from_dict(old.to_dict()) == old
    assert SearchPlan.from_dict(plan.to_dict()) == plan
    assert old.fingerprint() != plan.fingerprint()
    with pytest.raises(StgTuneError, match="begun by a later stg-tune"):
        SearchPlan.from_dict({**plan.to_dict(), "rules": 9})


def test_what_changes_the_numbers_changes_the_fingerprint(make_plan, landscape):
    plan = make_plan(landscape())
    same = dataclasses.replace(plan, budget="large", versions={"torch": "3"})
    assert same.fingerprint() == plan.fingerprint()
    for change in ({"seed": 1}, {"num_steps": 11}, {"baseline": GuidanceSpec(cfg_scale=2.0)}):
        assert dataclasses.replace(plan, **change).fingerprint() != plan.fingerprint()


def test_plans_that_cannot_work_are_refused_before_anything_is_spent(make_plan, landscape, one_term):
    plan = make_plan(landscape())
    with pytest.raises(StgTuneError, match="too few"):
        dataclasses.replace(plan, search_pairs=plan.search_pairs[:5])
    with pytest.raises(StgTuneError, match="listed twice"):
        dataclasses.replace(plan, holdout_pairs=(*plan.holdout_pairs, plan.search_pairs[0]))
    with pytest.raises(StgTuneError, match="layer 12 of stack 'spatial' does not exist; allowed: 0 to 7"):
        dataclasses.replace(plan, published={"far": one_term(layer=12)})
    with pytest.raises(StgTuneError, match="names the scorer 'temporal_lpips'"):
        dataclasses.replace(plan, scorers=plan.scorers[:2])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "stg-tune/run/9"}', '{"schema": "stg-tune/run/1"}'])
def test_damaged_run_files(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(StgTuneError, match=r"damaged|schema"):
        load_run(tmp_path)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(StgTuneError, match=r"no run\.json"):
        load_run(tmp_path)


def test_pair_type():
    assert isinstance(split_pairs(["a"], seed=0, search=6, holdout=20)[0][0], Pair)
    assert SearchPlan.__dataclass_params__.frozen
