"""Hostile preset files are refused in one printable line, or they are presets; nothing else can happen."""

import json
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stg_tune.errors import StgTuneError
from stg_tune.preset import Evidence, GainInterval, ScorerGain, diff, find_published, parse
from stg_tune.records import GuidanceSpec

QUICK, FULL = 150, 10_000
LOOSE = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("quick fuzz", max_examples=QUICK, **LOOSE)
settings.register_profile("full fuzz", max_examples=FULL, **LOOSE)


def with_evidence():
    gain = GainInterval(mean=0.5, low=None, high=0.7, level=0.95, pairs=100, clusters=50)
    scorer = ScorerGain(
        name="aesthetic",
        direction="maximize",
        unit="points",
        weights="none",
        weight=1.0,
        baseline=0.5,
        value=0.6,
        spread=0.2,
        gain=gain,
        unscored=0,
    )
    evidence = Evidence(
        improved=True,
        reason="better",
        baseline=GuidanceSpec(cfg_scale=3.5),
        best_cfg=GuidanceSpec(cfg_scale=2.0),
        gain=gain,
        stg_gain=gain,
        cfg_gain=None,
        scorers=(scorer,),
        guards={"motion": -0.02},
        relative_cost=1.2,
        evaluations=600,
        budget="small",
        looks=1,
        seed=0,
        versions={"torch": "2.8"},
        date="2026-01-02",
    )
    preset = find_published("mochi/published").to_dict()
    return {**preset, "evidence": json.loads(json.dumps(_plain(evidence)))}


def _plain(evidence):
    from stg_tune.preset.record import _evidence_to_dict

    return _evidence_to_dict(evidence)


SEEDS = [
    with_evidence(),
    *(find_published(name).to_dict() for name in ("ltx/13b-dev", "svd/published", "wan/official")),
]


def paths(data, at=()):
    yield at
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in children:
        yield from paths(value, (*at, key))


PLACES = [(number, path) for number, seed in enumerate(SEEDS) for path in paths(seed) if path]
RAW = st.sampled_from(
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e308",
        "1e-400",
        "9" * 400,
        "-0",
        "0.1e1",
        "true",
        "null",
        '""',
        "[" * 30 + "]" * 30,
        '{"a":' * 30 + "1" + "}" * 30,
        '"\\u0000"',
        '"\\u001b[31m"',
        '"\\u202e"',
        '"\\ud800"',
        '"../../../etc/passwd"',
        '"file:///etc/passwd"',
        '"__class__"',
        '{"__proto__": 1}',
        '{"a": 1, "a": 2}',
        "[0, 0]",
        "[-1]",
        "[1.5]",
        "[" + "1," * 2000 + "1]",
        '"' + "x" * 5000 + '"',
    ]
)
VALUES = RAW | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
MARK = "@ here @"


@st.composite
def changed_fields(draw):
    """A good preset with one field replaced, doubled, added or removed."""
    number, path = draw(st.sampled_from(PLACES))
    data = json.loads(json.dumps(SEEDS[number]))
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    how = draw(st.sampled_from(["replace", "remove", "double", "add"]))
    value = draw(VALUES)
    if how == "remove":
        del holder[path[-1]]
        return json.dumps(data)
    if how == "add" and isinstance(holder, dict):
        holder[draw(st.text(max_size=8))] = MARK
    elif how == "double" and isinstance(holder, dict):
        twice = f'"{path[-1]}": {value}, "{path[-1]}"'
        holder[path[-1]] = MARK
        return json.dumps(data).replace(f'"{path[-1]}": "{MARK}"', f"{twice}: {value}")
    else:
        holder[path[-1]] = MARK
    return json.dumps(data).replace(f'"{MARK}"', value)


@st.composite
def damaged_texts(draw):
    """A good preset with a piece of its text cut out, repeated or replaced."""
    text = json.dumps(draw(st.sampled_from(SEEDS)))
    start = draw(st.integers(0, len(text)))
    stop = min(len(text), start + draw(st.integers(0, 40)))
    return (
        text[:start]
        + draw(st.sampled_from(["", text[start:stop] * 2, "\x00", "}", "[", ",", "\\", "\u2028"]))
        + text[stop:]
    )


def check(text):
    try:
        found = parse(text)
    except StgTuneError as error:
        message = str(error)
        assert message.startswith("preset")
        assert not [sign for sign in message if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]
        return
    again = parse(json.dumps(found.to_dict()))
    assert again == found
    assert again.hash() == found.hash()
    assert diff(again, found) == ()
    shown = [found.name, found.model, found.family, found.checkpoint, found.source, *found.notes]
    assert not [sign for text in shown for sign in text if unicodedata.category(sign) == "Cc"]


@settings(settings.get_profile("quick fuzz"))
@given(changed_fields() | damaged_texts() | st.text(max_size=60))
def test_hostile_presets(text):
    check(text)


@pytest.mark.slow
@settings(settings.get_profile("full fuzz"))
@given(changed_fields() | damaged_texts() | st.text(max_size=60))
def test_hostile_presets_at_length(text):
    check(text)
