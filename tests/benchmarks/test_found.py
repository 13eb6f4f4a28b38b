"""Winners on the emulator are measured and added to its table, once each."""

import csv
import json
from pathlib import Path

import pytest

from benchmarks import found
from benchmarks.emulator import Landscape
from benchmarks.landscape import PAIRS
from benchmarks.noise import crossed_pairs
from stg_tune.preset import load
from stg_tune.records import Evaluation, GuidanceSpec

PRESETS = Path(__file__).parents[2] / "results" / "presets"
DEFAULT = GuidanceSpec(cfg_scale=7.0)
WINNERS = [GuidanceSpec(cfg_scale=2.0), GuidanceSpec(cfg_scale=3.0)]


@pytest.fixture
def runs(tmp_path):
    path = tmp_path / "runs.json"
    ends = {
        str(seed): {"trail": [[1, 0.5]], "final": spec.to_dict()} for seed, spec in enumerate([*WINNERS, WINNERS[0]])
    }
    path.write_text(json.dumps({"runs": {"process": {"ours": ends}, "trees": {"ours": ends}}}), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "landscape.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["design", "setting", "pairs", "aesthetic", "aesthetic_error"])
        writer.writerow(["default", json.dumps(DEFAULT.to_dict()), 48, 0.0, 0.0])
        writer.writerow(["cfg", json.dumps(WINNERS[1].to_dict()), 8, 9.0, 0.1])
    return path


def test_every_winner_counts_once_and_the_order_is_fixed(runs):
    specs = found.finals([runs, runs])
    assert sorted(spec.cfg_scale for spec in specs) == [2.0, 3.0]
    assert specs == found.finals([runs])


def test_a_preset_gives_its_setting_and_its_best_cfg_alone():
    file = PRESETS / "svd-tiny-seed0.json"
    kept = load(file)
    assert found.of_presets([file]) == [kept.spec, kept.evidence.best_cfg]
    assert [bool(spec.segments) for spec in (kept.spec, kept.evidence.best_cfg)] == [True, False]


def test_only_measured_settings_that_are_not_in_the_table_are_added_with_their_gain(table):
    pairs = crossed_pairs(PAIRS, 1)

    def row(spec, at, value):
        return Evaluation(config=spec.hash(), pair=pairs[at], scores={"aesthetic": value})

    base = [row(DEFAULT, at, at % 4) for at in range(PAIRS)]
    rows = base + [row(spec, at, at % 4 + 1.0) for spec in WINNERS for at in range(found.EACH)]
    unseen = GuidanceSpec(cfg_scale=5.0)
    assert found.append([*WINNERS, unseen], DEFAULT, rows, table) == 1
    assert found.append([*WINNERS, unseen], DEFAULT, rows, table) == 0
    read = Landscape.read(table)
    assert read.designs == ("default", "cfg", "found")
    assert read.specs[-1] == WINNERS[0]
    spread = (sum((at % 4 - 1.5) ** 2 for at in range(PAIRS)) / (PAIRS - 1)) ** 0.5
    assert read.gains["aesthetic"][-1] == pytest.approx(1 / spread, abs=1e-3)
