"""What the tables of the embedded models are made of; their numbers are in ``test_results.py``."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest

from stg_tune import models
from stg_tune.embedded.judge import Judge, JudgeNetwork
from stg_tune.embedded.layers_table import STRENGTHS, Table, arms, strength
from stg_tune.embedded.truth import Judged, truth_pairs
from stg_tune.records import GuidanceSpec, Segment, SkipTerm


def test_every_single_layer_is_an_arm_once_with_both_operations_at_each_strength():
    found = list(arms({"spatial": 2, "temporal": 3}, STRENGTHS))
    assert len(found) == len({spec.hash() for _, spec in found}) == 5 * 2 * len(STRENGTHS)
    assert {name for name, _ in found} >= {"spatial.1.attention", "temporal.2.residual"}
    assert {spec.cfg_scale for _, spec in found} == {cfg for cfg, _ in STRENGTHS}


def test_a_strength_is_two_numbers():
    assert strength("3:0.5") == (3.0, 0.5)
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--at", type=strength)
    with pytest.raises(argparse.ArgumentError):
        parser.parse_args(["--at", "3"])


def test_a_row_says_how_strongly_is_skipped_and_0_for_cfg_with_rescale(tmp_path, monkeypatch):
    monkeypatch.setattr("stg_tune.embedded.layers_table.load_joint", lambda: None)
    monkeypatch.setattr("stg_tune.embedded.layers_table.joint_gain", lambda *_: (1.0, 0.5, 1.5))
    judge = Judge(JudgeNetwork(), np.zeros(4), np.eye(4))
    pairs = truth_pairs(12)
    table = Table(SimpleNamespace(entry=models.entry("mochi-tiny")), judge, pairs, tmp_path)
    seen = Judged(features=np.random.default_rng(0).normal(size=(12, 4)), answers=np.zeros((12, 3), dtype=np.int64))
    monkeypatch.setattr(table, "look", lambda spec, videos: seen)
    monkeypatch.setattr(table, "distance", lambda judged: 7.0)
    default = GuidanceSpec(cfg_scale=4.5)
    rescaled = GuidanceSpec(cfg_scale=5.0, segments=(Segment(rescale=0.8),))
    term = SkipTerm(name="blocks", skip_layers={"blocks": (2,)}, skip_op="residual", stg_scale=1.5)
    late = GuidanceSpec(cfg_scale=5.0, segments=(Segment(stop=0.5, rescale=0.8), Segment(start=0.5, terms=(term,))))
    scales = [table.add("arm", spec, default, 12).stg_scale for spec in (default, rescaled, late)]
    assert scales == [0.0, 0.0, 1.5]
