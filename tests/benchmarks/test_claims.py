"""A reduced version of the studies, and the machinery around them."""

import dataclasses
import json

import pytest

from benchmarks.claims import STUDIES, Study, read_lines, run_one, run_studies, world_of
from benchmarks.claims_table import STUDY_BARS, bias, share, summarise, write_table
from benchmarks.memory import search_in_memory
from benchmarks.simulated import NOISE, Noise, Simulator, Terrain, plan_for
from stg_tune.records import GuidanceSpec, Segment, SkipTerm
from stg_tune.search import run_search

NOISES = Noise.read(NOISE)


def test_searches_without_a_disk_are_the_searches_with_one(tmp_path):
    simulator = Simulator(noise=NOISES, terrain=Terrain(stg=0.4, harm=0.3, seed=3), seed=3)
    plan = plan_for(simulator, budget="150", seed=3)
    disk = run_search(plan, simulator, directory=tmp_path)
    memory = search_in_memory(plan, simulator)
    assert memory.verdict == disk.verdict
    assert [trial.measurement.config for trial in memory.trials] == [t.measurement.config for t in disk.trials]


@pytest.mark.slow
def test_reduced_studies():
    """Nothing to gain: at most one of eight claims; a gain of 0.5: all three find and claim it, intervals hold."""
    null = [run_one(Study(budget="150"), NOISES, seed) for seed in range(8)]
    assert sum(line["improved"] for line in null) <= 1
    gain = [run_one(STUDIES["gain"], NOISES, seed) for seed in range(3)]
    assert all(line["improved"] and line["gain"]["true"] > 0.25 for line in gain)
    covered = sum(line["gain"]["low"] <= line["gain"]["true"] <= line["gain"]["high"] for line in null + gain)
    assert covered >= 8  # of 11 at 95 %: fewer happens once in a thousand times
    naive = bias([line["in_sample"] for line in null])
    assert naive["mean"] > 0.05  # what the search pairs would have claimed


def test_gains_bought_with_motion_are_not_claimed():
    clear = run_one(dataclasses.replace(STUDIES["trap"], budget="150", motion=0.9), NOISES, 0)
    assert clear["conclusion"] == "nothing raced"
    close = run_one(dataclasses.replace(STUDIES["trap"], budget="150"), NOISES, 1)
    assert close["gain"]["mean"] > 0
    assert not any(line["improved"] or line["guards_held"] for line in (clear, close))
    found = summarise([{"world": "w", "seed": 0, **clear}])
    assert (found["claims"]["rate"], found["true_gain_found"]) == (0.0, 0.0)


def term(layers, scale=0.3, stack="spatial"):
    skip = SkipTerm(name=stack, skip_layers={stack: layers}, skip_op="residual", stg_scale=scale)
    return GuidanceSpec(cfg_scale=2.0, segments=(Segment(terms=(skip,)),))


def test_the_terrain_reaches_its_height_and_no_more():
    terrain = Terrain(stg=0.4, cfg=0.1, harm=0.3, seed=5)
    good = tuple(sorted(index for stack, index in terrain.good if stack == "spatial"))
    bad = tuple(index for index in range(8) if index not in good)
    assert terrain.gain(GuidanceSpec(cfg_scale=2.0)) == pytest.approx(0.0)
    assert terrain.gain(GuidanceSpec(cfg_scale=3.0)) == pytest.approx(0.1)
    assert terrain.gain(term(good)) == pytest.approx(0.4)
    assert terrain.gain(term(good, scale=0.6)) < 0.4
    assert terrain.gain(term(bad[:2])) < 0


def test_rates_have_exact_intervals():
    none, all_ = share(0, 20), share(20, 20)
    assert (none["low"], none["high"]) == pytest.approx((0.0, 0.1684), abs=1e-4)  # Clopper and Pearson's own table
    assert (all_["low"], all_["high"]) == pytest.approx((0.8316, 1.0), abs=1e-4)


def line(seed, *, world="w", improved=True, mean=0.5, true=0.45, motion=1.0):
    part = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "true": true}
    return {
        "world": world, "seed": seed, "seconds": 1.0, "improved": improved, "stg_proved": improved, "gain": part,
        "cfg": None, "stg": part, "in_sample": {"mean": mean + 0.2, "true": true}, "kept_motion": motion,
        "look": [1, 2], "spent": 600,
    }  # fmt: skip


def test_a_claim_is_false_without_a_true_gain_or_with_a_broken_guard():
    lines = [line(0), line(1, true=-0.1), line(2, motion=0.94), line(3, improved=False, true=-0.1)]
    found = summarise(lines)
    assert (found["claims"]["hits"], found["false_claims"]["hits"]) == (3, 2)
    assert found["coverage"]["gain"]["rate"] == 0.5
    assert "cfg" not in found["coverage"]
    assert found["stopped_early"]["rate"] == 1.0
    assert found["in_sample_bias"]["mean"] == pytest.approx(found["bias"]["gain"]["mean"] + 0.2)


def test_studies_go_on_where_they_were_and_drop_what_is_not_theirs(tmp_path):
    world = world_of(STUDIES["null"], NOISES)
    path = tmp_path / "null.jsonl"
    known = [line(0, world=world), line(1, world=world), line(2, world="another")]
    path.write_text("".join(json.dumps(item) + "\n" for item in known) + '{"cut o')
    assert [item["seed"] for item in run_studies(["null"], 2, NOISES, tmp_path)["null"]] == [0, 1]
    assert read_lines(path, world) == known[:2]
    assert len(path.read_text().splitlines()) == 2


def test_the_table_is_written(tmp_path):
    studies = {"null": [line(i) for i in range(3)]}
    write_table(tmp_path, studies, {"null": dataclasses.asdict(STUDIES["null"])}, "made up")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["studies"]["null"]["claims"]["rate"] == 1.0
    assert {"date", "processor", "python", "optuna"} <= set(summary["machine"])
    text = (tmp_path / "README.md").read_text()
    assert "| null | 0, 0, 1, small | claims at most 5 % | 3 | 100.0 % [29.2, 100.0] |" in text
    assert STUDY_BARS.keys() == STUDIES.keys()
