import json

import numpy as np
import pytest

from benchmarks.memory import search_in_memory
from benchmarks.repeatability import layers_of, repeat, standard_error, summarise, write
from benchmarks.simulated import Noise, Simulator, Terrain, plan_for
from stg_tune.records import GuidanceSpec, Segment, SkipTerm
from stg_tune.search.statistics import paired_interval


def line(seed, layers, gain=0.5, improved=True):
    winner = GuidanceSpec(cfg_scale=2.0)
    if layers:
        term = SkipTerm(name="spatial", skip_layers={"spatial": layers}, skip_op="residual", stg_scale=0.3)
        winner = GuidanceSpec(cfg_scale=2.0, segments=(Segment(terms=(term,)),))
    interval = {"mean": gain, "low": gain - 0.1, "high": gain + 0.1, "level": 0.95, "pairs": 100, "clusters": 100}
    return {
        "seed": seed, "improved": improved, "stg_proved": improved, "winner": winner.to_dict(), "gain": interval,
        "stg_gain": interval if layers else None,
    }  # fmt: skip


def test_overlap_and_spread():
    found = summarise([line(0, (1, 2)), line(1, (1, 2), 0.6), line(2, (1, 3), 0.4), line(3, (), 0.1, improved=False)])
    assert found["most_frequent_set"] == {"layers": ["spatial.1", "spatial.2"], "times": 2}
    assert found["layers"] == {"spatial.1": 3, "spatial.2": 2, "spatial.3": 1}
    assert found["mean_overlap"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3, abs=1e-4)
    assert found["operations"] == {"residual": 3, "CFG alone": 1}
    assert found["gain_range"] == [0.1, 0.6]
    assert found["gain_spread"] == pytest.approx(0.2160, abs=1e-4)
    assert found["expected_spread"] == pytest.approx(0.1 / 1.9842, abs=1e-4)  # t of 99, 97.5 %: from a table
    assert (found["improved"], found["with_skip_guidance"]) == (3, 3)


def test_an_interval_of_any_level_gives_the_same_standard_error():
    rng = np.random.default_rng(0)
    values = rng.normal(0.4, 1.0, 40)
    for level in (0.9, 0.95, 0.999):
        interval = paired_interval(values, range(40), level=level).to_dict()
        assert standard_error(interval) == pytest.approx(values.std(ddof=1) / 40**0.5)


def test_every_seed_has_its_folder_and_the_first_may_run_twice(tmp_path):
    begun = []
    simulator = Simulator(noise=Noise.read(), terrain=Terrain(stg=0.4, harm=0.3, seed=1))

    def plan_of(seed):
        return plan_for(simulator, budget="150", seed=seed)

    def search(plan, directory):
        begun.append(directory.name)
        return search_in_memory(plan, simulator)

    lines, same = repeat(plan_of, search, [4], tmp_path, twice=True)
    assert (begun, same) == (["seed-4", "seed-4-again"], True)
    assert repeat(plan_of, search, [4], tmp_path, twice=False) == (lines, None)
    write(lines, same, tmp_path / "out", "made up", "python -m this --model m")
    data = json.loads((tmp_path / "out" / "repeatability.json").read_text())
    assert data["same_seed_same_preset"] is True
    assert "The same seed once more gave the same preset" in (tmp_path / "out" / "README.md").read_text()
    assert "Repeat with `python -m this --model m`" in (tmp_path / "out" / "README.md").read_text()
    assert layers_of(lines[0]["winner"]) == layers_of(data["runs"][0]["winner"])
