"""Hostile preset files are refused in one printable line, or they are presets; nothing else can happen."""

import json
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stg_tune.errors import StgTuneError
from stg_tune.preset import Evidence, GainInterval, ScorerGain, diff, find_published, parse
from stg_tune.records import GuidanceSpec

BATCH = 20
"""Cases that are drawn at a time: most of what a drawing costs does not depend on its size."""
QUICK, FULL = 160 // BATCH, 10_000 // BATCH
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
    preset = find_published("ltx/published").to_dict()
    return {**preset, "evidence": json.loads(json.dumps(_plain(evidence)))}


def _plain(evidence):
    from stg_tune.preset.record import _evidence_to_dict

    return _evidence_to_dict(evidence)


def scheduled():
    """A published schedule, cut down to two of its segments and three steps."""
    preset = find_published("ltx/13b-dev")
    first, second = preset.spec.segments[1:3]
    segments = (replace(first, start=0.0, stop=0.5), replace(second, start=0.5, stop=1.0))
    generation = replace(preset.generation, num_inference_steps=3)
    spec = replace(preset.spec, segments=segments)
    return replace(preset, spec=spec, generation=generation, sigmas=preset.sigmas[:3]).to_dict()


SEEDS = [
    with_evidence(),
    scheduled(),
    *(find_published(name).to_dict() for name in ("svd/published", "wan/official")),
]
TEXTS = [json.dumps(seed) for seed in SEEDS]


def paths(data, at=()):
    yield at
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in children:
        yield from paths(value, (*at, key))


PLACES = [(number, path) for number, seed in enumerate(SEEDS) for path in paths(seed) if path]
RAW = (
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
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
MARK = "@ here @"
WAYS = ("replace", "replace", "replace", "replace", "replace", "remove", "double", "add")
PIECES = ("", "\x00", "}", "[", ",", "\\", "\u2028")


def changed_field(choice, drawn, name):
    """A good preset with one field replaced, doubled, added or removed, as the bytes of ``choice`` say.

    Args:
        choice: Six bytes: place, way, value.
        drawn: Values that were drawn; half of the time one of ``RAW`` is taken.
        name: Of an added field.
    """
    number, path = PLACES[(choice[0] << 8 | choice[1]) % len(PLACES)]
    data = json.loads(TEXTS[number])
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    how = WAYS[choice[2] % len(WAYS)]
    pool = RAW if choice[3] % 2 else drawn
    value = pool[choice[4] % len(pool)]
    if how == "remove":
        del holder[path[-1]]
        return json.dumps(data)
    if how == "add" and isinstance(holder, dict):
        holder[name] = MARK
    elif how == "double" and isinstance(holder, dict):
        twice = f'"{path[-1]}": {value}, "{path[-1]}"'
        holder[path[-1]] = MARK
        return json.dumps(data).replace(f'"{path[-1]}": "{MARK}"', f"{twice}: {value}")
    else:
        holder[path[-1]] = MARK
    return json.dumps(data).replace(f'"{MARK}"', value)


def damaged_text(choice):
    """A good preset with a piece of its text cut out, repeated or replaced, as the bytes of ``choice`` say."""
    text = TEXTS[choice[0] % len(TEXTS)]
    start = (choice[1] << 16 | choice[2] << 8 | choice[3]) % (len(text) + 1)
    stop = min(len(text), start + choice[4] % 41)
    pieces = (*PIECES, text[start:stop] * 2)
    return text[:start] + pieces[choice[5] % len(pieces)] + text[stop:]


CHOICES = st.binary(min_size=6, max_size=6)


@st.composite
def hostile(draw):
    """``BATCH`` texts: changed fields, damaged texts, anything."""
    changes, damages = (draw(st.lists(CHOICES, min_size=count, max_size=count)) for count in (8, 6))
    drawn = draw(st.lists(VALUES, min_size=3, max_size=3))
    name = draw(st.text(max_size=8))
    texts = draw(st.lists(st.text(max_size=60), min_size=6, max_size=6))
    return [
        *(changed_field(choice, drawn, name) for choice in changes),
        *(damaged_text(choice) for choice in damages),
        *texts,
    ]


ROUND_TRIPS = set()
"""What has been read, written and read again: equal presets need it once."""


def check(text):
    try:
        found = parse(text)
    except StgTuneError as error:
        message = str(error)
        assert message.startswith("preset")
        assert not [sign for sign in message if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]
        return
    shown = [found.name, found.model, found.family, found.checkpoint, found.source, *found.notes]
    assert not [sign for text in shown for sign in text if unicodedata.category(sign) == "Cc"]
    written = json.dumps(found.to_dict())
    if written in ROUND_TRIPS:
        return
    ROUND_TRIPS.add(written)
    again = parse(written)
    assert again == found
    assert again.hash() == found.hash()
    assert diff(again, found) == ()


@settings(settings.get_profile("quick fuzz"))
@given(hostile())
def test_hostile_presets(texts):
    for text in texts:
        check(text)


@pytest.mark.slow
@settings(settings.get_profile("full fuzz"))
@given(hostile())
def test_hostile_presets_at_length(texts):
    for text in texts:
        check(text)
