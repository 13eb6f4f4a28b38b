import json

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.preset import find_published, migrate, parse

CURRENT = "stg-tune/preset/3"
STEPS = {
    "stg-tune/preset/1": lambda data: {"b": data.pop("a"), **data},
    "stg-tune/preset/2": lambda data: {"c": data.pop("b") * 2, **data},
}


def test_a_current_preset_passes_untouched():
    data = find_published("mochi/published").to_dict()
    assert migrate(data) is data


@pytest.mark.parametrize(("version", "field"), [(1, {"a": 21}), (2, {"b": 21}), (3, {"c": 42})])
def test_every_older_version_becomes_the_current_one_step_by_step(version, field):
    old = {"schema": f"stg-tune/preset/{version}", **field}
    before = json.dumps(old)
    assert migrate(old, steps=STEPS, current=CURRENT) == {"schema": CURRENT, "c": 42}
    assert json.dumps(old) == before, "the file's own data must not be changed"


def test_a_newer_preset_says_what_to_do():
    text = json.dumps({**find_published("mochi/published").to_dict(), "schema": "stg-tune/preset/2"})
    with pytest.raises(
        StgTuneError, match=r"schema must be 'stg-tune/preset/1'.*newer stg-tune.*pip install -U stg-tune"
    ):
        parse(text)


@pytest.mark.parametrize(
    "data",
    [None, [], "x", {}, {"schema": None}, {"schema": ["stg-tune/preset/1"]}, {"schema": "somebody/else"}, {"schema": 1}]
    + [{"schema": f"stg-tune/preset/{word}"} for word in ("0", "-1", "x", "1 ", "٣", "9" * 30)],
)
def test_anything_else_is_no_preset(data):
    with pytest.raises(StgTuneError, match="this is not a preset"):
        migrate(data)


def test_a_step_that_names_no_newer_version_cannot_loop():
    stuck = {"stg-tune/preset/1": lambda data: {**data, "schema": "stg-tune/preset/1"}}
    with pytest.raises(StgTuneError, match="schema must be"):
        migrate({"schema": "stg-tune/preset/1"}, steps=stuck, current=CURRENT)
