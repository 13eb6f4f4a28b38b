"""What the tables of the embedded models are made of; their numbers are in ``test_results.py``."""

import argparse

import pytest

from stg_tune.embedded.layers_table import STRENGTHS, arms, strength


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
