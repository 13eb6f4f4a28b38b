"""Hostile preset files are refused in one printable line, or they are presets; nothing else can happen."""

import importlib.util
import json
import os
import random
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stg_tune.errors import StgTuneError
from stg_tune.preset import Evidence, GainInterval, GuardValue, ScorerGain, VoteCount, diff, find_published, parse, save
from stg_tune.records import GuidanceSpec

_FILE = Path(__file__).with_name("hostile.py")
_spec = importlib.util.spec_from_file_location("stg_tune_tests_hostile", _FILE)
values = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(values)

OTHERS = ("drawn value", "added field", "removed field", "damaged text", "any text")
PLAN = (*values.EVERY_KIND * 2, *OTHERS, "damaged text")
"""What is drawn at a time: most of what a drawing costs does not depend on its size."""
CASES = int(os.environ.get("STG_TUNE_FUZZ_CASES", "10000"))
QUICK, FULL = 8, -(-CASES // len(PLAN))
LOOSE = {"phases": [Phase.generate], "deadline": None, "suppress_health_check": list(HealthCheck)}
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
    votes = VoteCount(
        question="quality", wins=3, losses=1, ties=1, voters=2, pairs=5, rate=0.7, low=0.3, high=0.9, level=0.95
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
        votes=(votes,),
        guard_values=(GuardValue(name="motion", rule="at_least_fraction", limit=0.9, value=gain, holds=True),),
        warning="few prompts",
    )
    preset = find_published("ltx/published").to_dict()
    return {**preset, "evidence": json.loads(json.dumps(_plain(evidence)))}


def _plain(evidence):
    from stg_tune.preset.evidence import evidence_to_dict

    return evidence_to_dict(evidence)


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
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
MARK = "@ here @"
PIECES = ("", "\x00", "}", "[", ",", "\\", "\u2028")


def changed_field(kind, choice, drawn, name):
    """A good preset with one field replaced, doubled, added or removed.

    Args:
        kind: Of the change, an entry of ``PLAN``.
        choice: Six bytes: place and value.
        drawn: Values that were drawn.
        name: Of an added field.
    """
    number, path = PLACES[(choice[0] << 8 | choice[1]) % len(PLACES)]
    data = json.loads(TEXTS[number])
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    value = values.at(values.KINDS.get(kind, drawn), choice[4])
    if kind == "removed field":
        del holder[path[-1]]
        return json.dumps(data)
    if kind == values.DUPLICATE:
        holder = holder if isinstance(holder, dict) else data
        key = path[-1] if holder is not data else "name"
        holder[key] = MARK
        return json.dumps(data).replace(f'"{key}": "{MARK}"', f'"{key}": {value}, "{key}": {value}')
    holder = data if kind == "added field" and not isinstance(holder, dict) else holder
    holder[name if kind == "added field" else path[-1]] = MARK
    return json.dumps(data).replace(f'"{MARK}"', value)


def damaged_text(choice):
    """A good preset with a piece of its text cut out, repeated or replaced, as the bytes of ``choice`` say."""
    text = TEXTS[choice[0] % len(TEXTS)]
    start = (choice[1] << 16 | choice[2] << 8 | choice[3]) % (len(text) + 1)
    stop = min(len(text), start + choice[4] % 41)
    pieces = (*PIECES, text[start:stop] * 2)
    return text[:start] + pieces[choice[5] % len(pieces)] + text[stop:]


@st.composite
def hostile(draw):
    """A text of every entry of ``PLAN``, with its kind.

    Places come from a generator seeded with all that was drawn: drawn themselves, half of the texts would be repeats.
    """
    drawn = draw(st.lists(VALUES, min_size=3, max_size=3))
    name, free = draw(st.text(max_size=8)), draw(st.text(max_size=60))
    places = random.Random(f"{draw(st.integers(0, 2**63))} {drawn} {name} {free}")
    texts = []
    for kind in PLAN:
        choice = places.randbytes(6)
        if kind == "any text":
            texts.append((kind, free))
        elif kind == "damaged text":
            texts.append((kind, damaged_text(choice)))
        else:
            texts.append((kind, changed_field(kind, choice, drawn, name)))
    return texts


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
def test_hostile_presets(cases):
    for _, text in cases:
        check(text)


@pytest.mark.slow
def test_hostile_presets_at_length():
    """10,000 cases, or as many as ``STG_TUNE_FUZZ_CASES`` says, with every kind among them."""
    tried, different = Counter(), set()

    @settings(settings.get_profile("full fuzz"))
    @given(hostile())
    def run(cases):
        for kind, text in cases:
            tried[kind] += 1
            different.add(hash(text))
            check(text)

    run()
    assert tried.total() >= CASES
    assert set(tried) == {*values.EVERY_KIND, *OTHERS}
    assert min(tried[kind] for kind in values.EVERY_KIND) >= CASES // len(PLAN)
    assert len(different) > 0.6 * CASES


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[1]])
def test_what_is_made_worse_is_good_at_first(text):
    assert parse(text)


@pytest.mark.parametrize("kind", ["deep nesting", "not a number", "control character"])
def test_a_kind_that_no_field_may_hold_is_refused_wherever_it_stands(kind):
    words = ('"nan"', '"inf"', "[" * 12 + "]" * 12)  # texts and lists like others, where a text or a list may stand
    for value in set(values.KINDS[kind]) - set(words):
        with pytest.raises(StgTuneError):
            parse(TEXTS[0].replace('"name": "ltx/published"', f'"name": {value}'))


@pytest.mark.parametrize("value", values.KINDS["path trick"])
def test_a_path_in_a_preset_is_a_text_and_leads_nowhere(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for field in ("name", "checkpoint", "revision"):
        data = json.loads(TEXTS[2])
        holder = data if field == "name" else data["model"]
        holder[field] = MARK
        text = json.dumps(data).replace(f'"{MARK}"', value)
        if value.startswith("{"):
            with pytest.raises(StgTuneError):
                parse(text)
            continue
        found = parse(text)
        assert (found.name if field == "name" else getattr(found, field)) == json.loads(value)
        save(found, tmp_path / "kept.json")
    assert {item.name for item in tmp_path.iterdir()} <= {"kept.json"}
