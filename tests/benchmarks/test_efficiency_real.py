"""Settings that the methods end with are made by the model itself, once, and stand beside what the emulator said."""

import csv
import json

import pytest

from benchmarks import efficiency_real
from stg_tune.records import GuidanceSpec

TUNED = GuidanceSpec(cfg_scale=2.0)
OTHER = GuidanceSpec(cfg_scale=1.0)


def run(spec: GuidanceSpec, told: float) -> dict:
    return {"final": spec.to_dict(), "trail": [[10, 0.0], [20, told]]}


@pytest.fixture
def runs(tmp_path):
    path = tmp_path / "efficiency.json"
    found = {"stg-tune": {"0": run(TUNED, 0.8), "1": run(OTHER, 0.6)}, "random": {"0": run(OTHER, 0.4)}}
    path.write_text(json.dumps({"runs": {"process": found}}))
    return path


def test_finals_are_those_of_the_methods_and_seeds_asked_for(runs):
    assert efficiency_real.finals(runs, [], 1) == {
        ("process", "stg-tune", 0): (TUNED, 0.8),
        ("process", "random", 0): (OTHER, 0.4),
    }
    assert list(efficiency_real.finals(runs, ["stg-tune"], 9)) == [("process", "stg-tune", n) for n in (0, 1)]


def test_each_setting_is_made_once_and_a_second_run_makes_nothing(runs, tmp_path, monkeypatch):
    words = [
        "--runs",
        str(runs),
        "--pairs",
        "4",
        "--folder",
        str(tmp_path / "made"),
        "--out",
        str(tmp_path / "real.csv"),
    ]
    efficiency_real.main(words)
    with (tmp_path / "real.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("stg-tune", "0"),
        ("stg-tune", "1"),
        ("random", "0"),
        ("stg-tune", "mean"),
        ("random", "mean"),
    ]
    one, two, third, mean, _ = rows
    assert two["gain"] == third["gain"], "the same setting"
    assert one["gain"] != two["gain"]
    assert float(mean["gain"]) == pytest.approx((float(one["gain"]) + float(two["gain"])) / 2, abs=1e-4)
    assert float(mean["emulated_gain"]) == 0.7
    assert {row["guards"] for row in rows[:3]} <= {"kept", "broken"}
    assert GuidanceSpec.from_dict(json.loads(one["setting"])) == TUNED
    before = (tmp_path / "real.csv").read_bytes()

    def never(*_, **__):
        raise AssertionError("a video was made again")

    monkeypatch.setattr("stg_tune.studio.Studio.evaluate", never)
    efficiency_real.main(words)
    assert (tmp_path / "real.csv").read_bytes() == before
