import json

import pytest

from benchmarks.scorers import BAR, MODES, MOST_DIFFERENCE, SAME_WORK, conclude, figures, gap, main
from benchmarks.vbench_way import DIMENSIONS, LPIPS
from stg_tune.records import Score
from stg_tune.score.motion import Motion

THEIRS = {name: 8.0 if name == LPIPS else 4.0 for name in DIMENSIONS}


def judged(gaps, default=4.0):
    ours = {name: default if name == "default" else 12.0 for name in MODES}
    return figures(THEIRS, ours, dict.fromkeys(MODES, 2.0), gaps)


@pytest.mark.slow
def test_a_tiny_video_goes_all_the_way(tmp_path, capsys):
    size = ["--frames", "2", "--height", "64", "--width", "96", "--clip", "vit-b-32"]
    assert main([*size, "--out", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found == json.loads(capsys.readouterr().out)
    assert found["scores_equal"]
    assert found["largest_difference_of_a_score"] < MOST_DIFFERENCE
    assert {"processor", "cores", "torch", "date", "threads", "load"} <= found["machine"].keys()
    assert set(found["vbench_seconds"]) == {*DIMENSIONS, "total", "total_without_lpips"}
    assert set(found["times_faster"]) == set(found["times_faster_without_lpips"]) == set(found["modes"]) == set(MODES)
    assert all(found["our_seconds"][name] > found["our_seconds_of_lpips"][name] > 0 for name in MODES)


def test_ratios_with_and_without_what_vbench_does_not_have():
    found = judged([1e-6])
    assert (found["vbench_seconds"]["total"], found["vbench_seconds"]["total_without_lpips"]) == (24.0, 16.0)
    assert (found["times_faster"]["default"], found["times_faster_without_lpips"]["default"]) == (6.0, 8.0)
    assert found["same_work"] == {"mode": SAME_WORK, "times_faster": 2.0, "times_faster_without_lpips": 1.6}
    assert found["bar"]["met"]
    assert "not the same work" in found["bar"]["what"]
    assert not judged([1e-6], default=24 / BAR + 0.1)["bar"]["met"]


@pytest.mark.parametrize("worst", [2 * MOST_DIFFERENCE, float("inf")])
def test_scores_that_differ_meet_no_bar(worst):
    found = judged([0.0, worst])
    assert not found["scores_equal"]
    assert not found["bar"]["met"]
    json.dumps(found, allow_nan=False)


def test_a_score_that_is_missing_is_no_difference_of_zero():
    assert gap(Score(kind=Motion.kind, value=None, reason="why"), 0.0) == float("inf")
    assert gap(Score(kind=Motion.kind, value=0.5), float("nan")) == float("inf")


def test_scores_that_differ_end_with_exit_code_1(tmp_path, capsys):
    assert conclude(judged([1.0]), tmp_path / "new" / "out.json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "new" / "out.json").read_text()) == judged([1.0])
    assert "differ by 1.0 from VBench's way; allowed is 0.0001" in captured.err
