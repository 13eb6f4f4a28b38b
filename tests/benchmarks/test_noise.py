"""The simulator makes the noise it is told to, and the measurement finds it again."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.noise import Sample, crossed_pairs, main, measure, prompt_share, read_sample
from benchmarks.simulated import Noise, Simulator, Terrain, plan_for
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search.plan import Allowance, RunFile
from stg_tune.search.storage import EvaluationTable, Row

PAIRS = [Pair(prompt=f"prompt {i // 5}", seed=i) for i in range(300)]


@pytest.fixture(scope="module")
def noise():
    return dataclasses.replace(Noise.read(), shared=0.3, tails=8.0)


def test_the_simulated_gain_is_the_true_one(noise):
    simulator = Simulator(noise=noise, terrain=Terrain(cfg=0.5), seed=1)
    best, default = GuidanceSpec(cfg_scale=3.0), GuidanceSpec(cfg_scale=2.0)
    spread = noise.scorers["temporal_lpips"].spread
    scores = [[simulator(spec, pair).scores["temporal_lpips"] for pair in PAIRS] for spec in (default, best)]
    gains = (np.array(scores[0]) - np.array(scores[1])) / spread
    assert gains.mean() == pytest.approx(0.5, abs=4 * gains.std() / 60**0.5)
    assert simulator(best, PAIRS[0]) == Simulator(noise=noise, terrain=Terrain(cfg=0.5), seed=1)(best, PAIRS[0])


def test_the_measurement_finds_what_was_put_in(noise):
    simulator = Simulator(noise=noise, terrain=Terrain(), seed=2)
    settings = [GuidanceSpec(cfg_scale=scale) for scale in (2.0, 2.5, 3.0, 3.5)]
    default, *others = ({pair.key: simulator(spec, pair) for pair in PAIRS} for spec in settings)
    found = measure([Sample(default=default, settings=tuple(others))], "simulated")
    assert found.shared == pytest.approx(0.3, abs=0.1)
    for name, item in noise.scorers.items():
        measured = found.scorers[name]
        assert measured.spread == pytest.approx(item.spread, rel=0.15)
        assert measured.prompt == pytest.approx(item.prompt, abs=0.25)
        assert measured.noise == pytest.approx(item.noise, rel=0.15)
        assert measured.interaction == pytest.approx(item.interaction, abs=0.2)
        assert measured.slope == pytest.approx(item.slope, abs=0.12)


def test_prompts_seen_once_tell_nothing_about_prompts():
    assert prompt_share(np.arange(20.0), [str(i) for i in range(20)]) is None
    assert prompt_share(np.repeat(np.arange(10.0), 2), [str(i // 2) for i in range(20)]) == pytest.approx(1.0)


def test_every_prompt_gets_every_seed_once():
    pairs = crossed_pairs(3, 4)
    assert len({pair.seed for pair in pairs}) == 12
    assert len({pair.prompt for pair in pairs}) == 3


def test_a_run_folder_gives_a_noise_file(noise, tmp_path):
    simulator = Simulator(noise=noise, terrain=Terrain(), seed=4)
    plan = plan_for(simulator, budget="150", seed=4)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    (tmp_path / "run").mkdir()
    RunFile(plan=plan, storage=url, allowances=(Allowance(budget="150", evaluations=150),)).save(tmp_path / "run")
    table = EvaluationTable(url, plan.model)
    for spec, count in ((plan.baseline, 24), (GuidanceSpec(cfg_scale=3.0), 20), (GuidanceSpec(cfg_scale=4.0), 4)):
        for pair in plan.search_pairs[:count]:
            found = simulator(spec, pair)
            table.add(Row(spec=spec, evaluation=found, role="search", fidelity="full", worker="w", versions={}))
    table.close()
    sample = read_sample(tmp_path / "run")
    assert (len(sample.default), [len(rows) for rows in sample.settings]) == (24, [20])
    main(["--folder", str(tmp_path / "run"), "--out", str(tmp_path / "noise.json")])
    assert json.loads((tmp_path / "noise.json").read_text())["schema"] == "stg-tune/noise/1"
    assert Noise.read(tmp_path / "noise.json").scorers.keys() == noise.scorers.keys()
