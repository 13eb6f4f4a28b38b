"""The committed tables of the embedded models: the bars they were made for, and that README quotes them as they are."""

import csv
import json
from pathlib import Path

import pytest

from stg_tune import models, preset
from stg_tune.embedded import WEIGHTS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
EMBEDDED = [name for name in models.names() if models.entry(name).embedded and (WEIGHTS / name / "README.md").exists()]
"""Models with weights and a card; each must have its tables."""

pytestmark = pytest.mark.parametrize("model", EMBEDDED)


def _rows(model, table):
    with (RESULTS / "embedded" / model / table).open(encoding="utf-8", newline="") as file:
        return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text


def _final(model):
    """The rows that were judged on the most videos: plain CFG and the best single layers."""
    rows = _rows(model, "layers.csv")
    most = max(row["videos"] for row in rows)
    return [row for row in rows if row["videos"] == most]


def _best_cfg(model):
    return min((row for row in _final(model) if row["arm"] == "cfg"), key=lambda row: row["joint"])


def _skips(model):
    """Skip guidance against the best plain CFG: single layers, and presets where that is the default."""
    single = [row for row in _final(model) if row["arm"] != "cfg"]
    if models.entry(model).defaults.cfg_scale != _best_cfg(model)["cfg_scale"]:
        return single
    return single + [row for row in _rows(model, "presets.csv") if row["arm"].endswith(": tuned")]


def test_plain_cfg_follows_its_captions(model):
    plain = [row for row in _final(model) if row["arm"] == "cfg"]
    best = max(plain, key=lambda row: row["digit"])
    assert best["digit"] >= 0.80
    assert best["colour"] >= 0.90
    if not models.entry(model).image_source:  # a picture does not say where to go: test_continuations.py
        assert best["direction"] >= 0.90


def test_there_is_something_to_gain_beyond_the_best_cfg_and_something_to_lose(model):
    assert _best_cfg(model)["videos"] >= 1000
    beyond = [row for row in _skips(model) if row["gain_low"] > 0]
    assert any(row["videos"] >= 1000 for row in beyond), "some skip beats the best plain CFG beyond noise"
    assert any(row["gain_high"] < 0 for row in _rows(model, "layers.csv") if row["arm"] != "cfg"), "others hurt"


def test_every_single_layer_is_in_the_table_with_both_operations(model):
    entry = models.entry(model)
    arms = {row["arm"] for row in _rows(model, "layers.csv")} - {"cfg"}
    assert arms == {
        f"{stack}.{index}.{op}"
        for stack, depth in entry.depths.items()
        for index in range(depth)
        for op in ("attention", "residual")
    }


def test_the_proxies_know_the_truth(model):
    found = json.loads((RESULTS / "embedded" / model / "proxies.json").read_text(encoding="utf-8"))
    assert found["settings"] >= 60
    assert found["spearman"]["objective"] >= 0.7


def test_tuned_presets_improve_the_truth_and_not_the_proxies_alone(model):
    rows = {row["arm"]: row for row in _rows(model, "presets.csv")}
    default = rows["default"]
    tuned = [row for arm, row in rows.items() if arm.endswith(": tuned")]
    assert len(tuned) >= 3
    for row in tuned:
        assert row["frechet"] < default["frechet"] or row["digit"] > default["digit"], row["arm"]


def test_committed_presets_are_valid_and_beat_the_default_on_held_out_pairs(model):
    files = sorted((RESULTS / "presets").glob(f"{model}-seed*.json"))
    assert len(files) >= 3
    for file in files:
        evidence = preset.load(file).evidence
        assert evidence.improved
        assert evidence.gain.low > 0
