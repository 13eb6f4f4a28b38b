"""Do the proxies know the truth: what is kept, what is made anew, what the table says."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stg_tune import models
from stg_tune.embedded.proxies_table import Bench, write
from stg_tune.embedded.truth import truth_pairs
from stg_tune.records import GuidanceSpec, Score, ScoreKind
from stg_tune.search.objective import Judge, Objective

KIND = ScoreKind(name="light", direction="maximize", low=0.0, high=1.0, unit="share")
ENTRY = models.entry("open-sora-tiny")


class Generator:
    """Videos as light as their setting's CFG scale says, a little different from pair to pair."""

    def __init__(self):
        self.made = []

    def many(self, spec, pairs):
        self.made += [pair.seed for pair in pairs]
        light = [spec.cfg_scale / 10 + pair.seed % 7 / 100 for pair in pairs]
        return [SimpleNamespace(video=SimpleNamespace(frames=torch.full((2, 3, 4, 4), value))) for value in light]


class Eye:
    """A judge that sees how light a video is."""

    def look(self, pixels):
        mean = pixels.numpy().mean((1, 2, 3, 4))
        return np.stack([mean, mean**2], 1), np.zeros((len(mean), 3), dtype=np.int64)


def light(videos, prompts):
    return [{"light": Score(kind=KIND, value=float(video.mean()))} for video in videos]


light.kinds = (KIND,)


def bench(pairs, folder):
    found = Bench(Generator(), Eye(), truth_pairs(pairs), folder)
    found.scorers = light
    return found


def test_a_kept_setting_gets_only_the_pairs_that_it_lacks(tmp_path):
    spec = GuidanceSpec(cfg_scale=3.0)
    first = bench(16, tmp_path)
    before = first.measure(spec)
    assert first.generator.made == [pair.seed for pair in truth_pairs(16)]

    longer = bench(40, tmp_path)
    after = longer.measure(spec)
    assert longer.generator.made == [pair.seed for pair in truth_pairs(40)[16:]]
    np.testing.assert_array_equal(after.seen.features[:16], before.seen.features)
    assert after.rows[:16] == before.rows
    assert len(after.rows) == len(after.seen.answers) == 40

    again = bench(16, tmp_path)
    assert again.measure(spec).rows == before.rows
    assert again.generator.made == []
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_a_stop_in_between_leaves_no_half_written_setting(tmp_path, monkeypatch):
    spec = GuidanceSpec(cfg_scale=3.0)
    before = bench(16, tmp_path).measure(spec)

    def full(file, **columns):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        bench(24, tmp_path).measure(spec)
    monkeypatch.undo()
    assert bench(16, tmp_path).measure(spec).rows == before.rows


def test_the_table_has_a_line_a_setting_and_its_rank_correlations(tmp_path, monkeypatch):
    class Reference:
        """The lighter, the nearer."""

        def distance(self, features, asked):
            return 1 - features[:, 0].mean()

    monkeypatch.setattr("stg_tune.embedded.proxies_table.load_joint", Reference)
    monkeypatch.setattr("stg_tune.embedded.proxies_table.load_judge", lambda: None)
    monkeypatch.setattr("stg_tune.embedded.proxies_table.distance", lambda judge, seen: 7.0)
    kept = bench(16, tmp_path / "kept")
    measured = [kept.measure(GuidanceSpec(cfg_scale=scale)) for scale in (1.0, 2.0, 3.0, 4.0, 5.0)]
    proxies = Judge.calibrate(Objective(weights={"light": 1.0}), {"light": KIND}, measured[2].rows)
    write(tmp_path / "out", measured, proxies, kept.pairs, ENTRY)
    with (tmp_path / "out" / "proxies.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [json.loads(line["setting"])["cfg_scale"] for line in lines] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert float(lines[2]["objective"]) == 0.0
    assert float(lines[4]["objective"]) > 0 > float(lines[0]["objective"])
    told = json.loads((tmp_path / "out" / "proxies.json").read_text())
    assert told["settings"] == 5
    assert told["videos"] == 16
    assert told["spearman"] == {"objective": pytest.approx(1.0), "light": pytest.approx(1.0)}
