"""A reduced version of the studies, and the machinery around them."""

import dataclasses
import json
import math

import pytest

from benchmarks.claims import (
    SOURCES,
    STUDIES,
    Study,
    code_digest,
    path_of,
    read_lines,
    run_one,
    run_studies,
    world_of,
)
from benchmarks.claims_table import STUDY_BARS, bias, coverage, share, summarise, write_table
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
    """The bars of the studies, each as far as so few searches can tell: by an exact one-sided bound at 97.5 %."""
    null = [run_one(Study(budget="150"), NOISES, seed) for seed in range(8)]
    assert summarise(null)["claims"]["low"] <= 0.05
    gain = [run_one(STUDIES["gain"], NOISES, seed) for seed in range(6)]
    assert summarise(gain, 0.5)["found_and_claimed"]["high"] >= 0.9
    assert coverage([line["gain"] for line in null + gain])["high"] >= 0.95
    found = bias([line["gain"] for line in null + gain])
    assert abs(found["errors"]) < 3
    naive = bias([line["in_sample"] for line in null])
    assert naive["mean"] > 0.05  # what the search pairs would have claimed


def test_gains_bought_with_motion_are_not_claimed():
    clear = run_one(dataclasses.replace(STUDIES["trap"], budget="150", motion=0.6), NOISES, 0)
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


@pytest.mark.parametrize(("hits", "count", "enough"), [(3, 6, False), (4, 6, True), (17, 24, False), (19, 24, True)])
def test_a_bar_is_missed_when_the_exact_bound_says_so(hits, count, enough):
    """Of a power of 90 %: 3 of 6 and 17 of 24 would happen in less than 2.5 % of all cases."""
    assert (share(hits, count)["high"] >= 0.9) == enough
    chance = sum(math.comb(count, k) * 0.9**k * 0.1 ** (count - k) for k in range(hits + 1))
    assert (chance > 0.025) == enough


def test_rates_have_exact_intervals():
    none, all_ = share(0, 20), share(20, 20)
    assert (none["low"], none["high"]) == pytest.approx((0.0, 0.1684), abs=1e-4)  # Clopper and Pearson's own table
    assert (all_["low"], all_["high"]) == pytest.approx((0.8316, 1.0), abs=1e-4)


def line(seed, *, world="w", improved=True, mean=0.5, true=0.45, motion=1.0):
    part = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "true": true}
    return {
        "world": world, "seed": seed, "seconds": 1.0, "improved": improved, "stg_proved": improved, "gain": part,
        "cfg": None, "stg": part, "in_sample": {"mean": mean + 0.2, "true": true}, "kept_motion": motion,
        "look": [1, 2], "level": 0.999, "spent": 600,
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


def test_fewer_runs_destroy_nothing(tmp_path):
    world = world_of(STUDIES["few prompts"], NOISES)
    path = path_of("few prompts", tmp_path)
    assert path.name == "few-prompts.jsonl"
    path.write_text("".join(json.dumps(line(seed, world=world)) + "\n" for seed in (0, 1, 7)))
    before = path.read_text()
    assert len(run_studies(["few prompts"], 2, NOISES, tmp_path)["few prompts"]) == 3
    assert path.read_text() == before


def test_searches_of_other_code_are_of_another_world(tmp_path):
    for pattern in SOURCES:
        file = tmp_path / pattern.replace("*", "one")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a = 1\n")
    seen = []
    for pattern in SOURCES:
        (tmp_path / pattern.replace("*", "one")).write_text("a = 2\n")
        code_digest.cache_clear()
        seen.append(code_digest(tmp_path))
    assert len(set(seen)) == len(SOURCES)
    (tmp_path / SOURCES[1]).unlink()
    code_digest.cache_clear()
    with pytest.raises(FileNotFoundError, match="run from a checkout"):
        code_digest(tmp_path)


def test_a_search_has_found_what_is_worth_half_of_what_can_be_had():
    lines = [line(0, true=0.25), line(1, true=0.24), line(2, true=0.4, improved=False), {**line(3), "gain": None}]
    found = summarise(lines[:3], 0.5)
    assert (found["claims"]["hits"], found["found"]["hits"], found["found_and_claimed"]["hits"]) == (2, 2, 1)
    assert summarise(lines[:3])["found"]["hits"] == 0


def test_races_that_stopped_early_are_counted_apart():
    lines = [line(0), line(1), {**line(2, mean=0.9), "look": [2, 2]}, {**line(3, mean=0.4), "look": [2, 2]}]
    found = summarise(lines, 0.5)
    assert (found["whole"]["searches"], found["early"]["searches"]) == (2, 2)
    assert found["whole"]["bias"]["mean"] == pytest.approx(0.2)
    assert found["early"]["bias"]["mean"] == pytest.approx(0.05)
    assert found["whole"]["coverage"]["hits"] == 1


def test_the_table_is_written(tmp_path):
    studies = {"null": [line(i) for i in range(3)]}
    write_table(tmp_path, studies, {"null": dataclasses.asdict(STUDIES["null"])}, "made up")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["studies"]["null"]["claims"]["rate"] == 1.0
    assert {"date", "processor", "python", "optuna"} <= set(summary["machine"])
    text = (tmp_path / "README.md").read_text()
    assert "| null | 0, 0, 1, small | claims at most 5 % | 3 | 100.0 % [29.2, 100.0] | - | - |" in text
    assert STUDY_BARS.keys() == STUDIES.keys()
