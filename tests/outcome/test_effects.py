"""Effects over the steps: windows decide which step a number belongs to; a damaged file is one message."""

import json
from pathlib import Path

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.outcome.effects import active_steps, read_effects, write_effects
from stg_tune.records import GuidanceSpec, Segment, SkipTerm


def _term(name: str, scale: float = 0.5) -> SkipTerm:
    return SkipTerm(name=name, skip_layers={"x": (1,)}, skip_op="residual", stg_scale=scale)


SPEC = GuidanceSpec(
    cfg_scale=3.0,
    segments=(
        Segment(start=0.2, stop=0.6, terms=(_term("a"), _term("off", 0))),
        Segment(start=0.8, stop=1.0, terms=(_term("a"), _term("b"))),
    ),
)


def test_windows_are_half_open_and_terms_that_are_off_have_no_step() -> None:
    assert active_steps(SPEC, 5) == {"a": [1, 2, 4], "b": [4]}


def test_the_mean_over_videos_is_kept_at_its_step(tmp_path: Path) -> None:
    videos = [{"a": (0.1, 0.2, 0.3), "b": (1.0,)}, {"a": (0.3, 0.4, 0.5), "b": (3.0,)}, {"a": (9.0,)}]
    write_effects(tmp_path / "effects.json", SPEC, 5, videos)
    found = read_effects(tmp_path / "effects.json", SPEC)
    assert found["a"] == (None, pytest.approx(0.2), pytest.approx(0.3), None, pytest.approx(0.4))
    assert found["b"] == (None, None, None, None, 2.0)


def test_nothing_is_written_when_nothing_was_measured(tmp_path: Path) -> None:
    write_effects(tmp_path / "effects.json", SPEC, 5, [{}])
    write_effects(tmp_path / "effects.json", GuidanceSpec(cfg_scale=1.0), 5, [{"a": (1.0,)}])
    assert read_effects(tmp_path / "effects.json", SPEC) == {}


def test_the_effects_of_another_setting_are_not_shown(tmp_path: Path) -> None:
    write_effects(tmp_path / "effects.json", SPEC, 5, [{"b": (1.0,)}])
    assert read_effects(tmp_path / "effects.json", GuidanceSpec(cfg_scale=1.0)) == {}


@pytest.mark.parametrize("terms", [{"a": ["<b>"]}, {"a": 3}, [1], None])
def test_a_damaged_file_is_one_message(tmp_path: Path, terms: object) -> None:
    (tmp_path / "effects.json").write_text(json.dumps({"config": SPEC.hash(), "terms": terms}))
    with pytest.raises(StgTuneError, match=r"effects\.json is damaged"):
        read_effects(tmp_path / "effects.json", SPEC)
