import json
from pathlib import Path

import pytest

from stg_tune.export import windows

GOLDEN = Path(__file__).parents[1] / "golden" / "diffusers_slg" / "guider.json"
COUNTS = (1, 2, 3, 7, 20, 33)


def every_window(count, first=0):
    return [(a, b) for a in range(first, count) for b in range(a, count)]


@pytest.mark.parametrize("rule", ["inclusive", "floored", "counted"])
@pytest.mark.parametrize("count", COUNTS)
def test_every_window_comes_back(rule, count):
    to, back = (getattr(windows, f"{way}_{rule}") for way in ("to", "from"))
    for steps in every_window(count):
        bounds = to(*steps, count)
        assert 0 <= bounds[0] <= bounds[1] <= 1
        assert back(*bounds, count) == steps


@pytest.mark.parametrize("count", COUNTS)
def test_the_strict_rule_knows_every_window_but_step_0(count):
    for first, last in every_window(count):
        bounds = windows.to_strict(first, last, count)
        assert 0 <= bounds[0] <= bounds[1] <= 1
        found = windows.from_strict(*bounds, count)
        assert found == (None if last == 0 else (max(first, 1), last))


@pytest.mark.parametrize("count", [4, 10, 20, 25, 50])
def test_whole_percents_where_they_reach(count):
    for steps in every_window(count):
        found = windows.to_percent(*steps, count)
        assert found is not None
        assert windows.from_percent(*found, count) == steps


def test_whole_percents_miss_where_the_tool_rounds_down():
    missed = [step for step in range(100) if windows.to_percent(step, 99, 100) is None]
    assert missed == [29, 58], "int(0.29 * 100) is 28"


def test_whole_percents_cannot_meet_every_step_of_many():
    missed = [step for step in range(400) if windows.to_percent(step, 399, 400) is None]
    assert len(missed) > 250


@pytest.mark.parametrize("rule", ["inclusive", "strict", "floored", "counted"])
def test_bounds_beyond_all_reason(rule):
    """A file may hold any finite number; times the number of steps it may be infinite."""
    read = getattr(windows, f"from_{rule}")
    assert read(-1e308, 1e308, 10) == read(-1.0, 2.0, 10) == (0, 9)
    assert read(1e308, 1e308, 10) is None


def test_empty_windows():
    assert windows.from_inclusive(0.51, 0.52, 10) is None
    assert windows.from_floored(0.5, 0.5, 10) is None
    assert windows.from_strict(0.0, 0.1, 10) is None


def test_the_strict_rule_is_that_of_recorded_guiders():
    """Which steps ``SkipLayerGuidance`` of diffusers 0.42.1 skipped in."""
    recorded = json.loads(GOLDEN.read_text())["active_steps"]
    assert len(recorded) == 16
    for setting, active in recorded.items():
        count, start, stop = (float(part.split("=")[1]) for part in setting.split(","))
        found = windows.from_strict(start, stop, int(count))
        assert ([] if found is None else list(range(found[0], found[1] + 1))) == active, setting
