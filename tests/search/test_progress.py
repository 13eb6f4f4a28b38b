import json

import pytest

from stg_tune.records import Evaluation, Pair
from stg_tune.search.progress import Tracker
from stg_tune.search.statistics import paired_interval

ROW = Evaluation(config="c", pair=Pair(prompt="p", seed=0))


@pytest.fixture
def scene(tmp_path):
    time = [100.0]
    events = []
    return Tracker(events.append, tmp_path, clock=lambda: time[0]), time, events, tmp_path / "state.json"


def test_the_estimate_counts_new_evaluations_only(scene):
    tracker, time, events, _ = scene
    tracker.begin("baseline", 8, 20)
    for _ in range(4):
        tracker.evaluated(ROW, is_new=False)
    assert events[-1].seconds_left is None
    for _ in range(3):
        time[0] += 2.0
        tracker.evaluated(ROW, is_new=True)
    assert (events[-1].done, events[-1].stage_done, events[-1].total) == (7, 7, 20)
    assert events[-1].seconds_left == pytest.approx(2.0 * 13)
    tracker.begin("cfg", 10, 20)
    assert (events[-1].stage, events[-1].done, events[-1].stage_done) == ("cfg", 7, 0)


def test_state_is_written_now_and_then_and_at_the_end(scene):
    tracker, time, _, path = scene
    tracker.begin("baseline", 8, 20)
    assert json.loads(path.read_text())["done"] == 0
    tracker.evaluated(ROW, is_new=True)
    assert json.loads(path.read_text())["done"] == 0
    time[0] += 2.5
    tracker.evaluated(ROW, is_new=True)
    state = json.loads(path.read_text())
    assert (state["status"], state["done"], state["best"]) == ("running", 2, None)
    tracker.leader("trial 3", paired_interval([0.5], ["p"]), held_out=False)
    tracker.leader("nobody", None, held_out=True)
    tracker.finish("interrupted", "stopped")
    state = json.loads(path.read_text())
    assert (state["status"], state["message"]) == ("interrupted", "stopped")
    assert state["best"]["name"] == "trial 3"
    assert state["best"]["gain"]["low"] is None
