import json
import stat
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stg_tune import preset
from stg_tune.errors import StgTuneError
from stg_tune.models.base import GenerationDefaults
from stg_tune.preset import Evidence, GainInterval, GuardValue, Preset, ScorerGain, VoteCount
from stg_tune.preset.file import MAX_BYTES
from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm

GENERATION = GenerationDefaults(height=64, width=64, num_frames=17, num_inference_steps=10, cfg_scale=3.5, fps=8)
VOTES = VoteCount(
    question="quality", wins=3, losses=1, ties=1, voters=2, pairs=5, rate=0.7, low=0.3, high=0.93, level=0.95
)
GAIN = GainInterval(mean=0.5, low=0.3, high=0.7, level=0.95, pairs=100, clusters=50)


def spec(layers=(3, 5), stg_scale=0.3, start=0.0, stop=1.0):
    spatial = SkipTerm(name="spatial", skip_layers={"spatial": layers}, skip_op="attention", stg_scale=stg_scale)
    temporal = SkipTerm(name="temporal", skip_layers={"temporal": (1,)}, skip_op="residual", stg_scale=0.1)
    segment = Segment(start=start, stop=stop, terms=(spatial, temporal), combination="orthogonal", rescale=0.35)
    return GuidanceSpec(cfg_scale=2.5, segments=(segment,))


GUARD = GuardValue(
    name="motion at_least_fraction 0.95",
    rule="at_least_fraction",
    limit=0.95,
    value=GainInterval(mean=0.99, low=0.97, high=1.01, level=0.9, pairs=60, clusters=60),
    holds=True,
)


def test_guards_are_kept_with_estimate_and_interval_and_presets_of_before_have_none():
    data = make().to_dict()
    assert data["evidence"]["guard_values"][0]["value"]["low"] == 0.97
    assert preset.parse(json.dumps(data)) == make()
    del data["evidence"]["guard_values"], data["evidence"]["warning"]
    old = preset.parse(json.dumps(data))
    assert (old.evidence.guard_values, old.evidence.warning) == ((), "")
    assert preset.parse(json.dumps(old.to_dict())).to_dict() == data


def evidence(**changes):
    scorer = ScorerGain(
        name="aesthetic",
        direction="maximize",
        unit="points",
        weights="0123456789abcdef",
        weight=1.0,
        baseline=0.5,
        value=0.6,
        spread=0.2,
        gain=GAIN,
        unscored=0,
    )
    fields = {
        "improved": True,
        "reason": "better",
        "baseline": GuidanceSpec(cfg_scale=3.5),
        "best_cfg": GuidanceSpec(cfg_scale=2.0),
        "gain": GAIN,
        "stg_gain": GainInterval(mean=0.2, low=None, high=None, level=0.95, pairs=1, clusters=1),
        "cfg_gain": None,
        "scorers": (scorer,),
        "guards": {"motion at_least_fraction 0.95": -0.02},
        "relative_cost": 1.21,
        "evaluations": 600,
        "budget": "small",
        "looks": 1,
        "seed": 0,
        "versions": {"torch": "2.8"},
        "date": "2026-01-02",
        "guard_values": (GUARD,),
        "warning": "12 prompts are few",
    }
    return Evidence(**{**fields, **changes})


def make(**changes):
    fields = {
        "name": "mine",
        "family": "open-sora",
        "model": "open-sora-tiny",
        "checkpoint": "embedded",
        "revision": "abc",
        "stacks": {"spatial": 8, "temporal": 8},
        "spec": spec(),
        "generation": GENERATION,
        "evidence": evidence(),
    }
    return Preset(**{**fields, **changes})


@pytest.fixture
def write(tmp_path):
    """Write a changed copy of a good preset; ``change`` gets its dictionary."""

    def write(change=None, text=None):
        path = tmp_path / "preset.json"
        data = make().to_dict()
        if change:
            change(data)
        path.write_text(json.dumps(data) if text is None else text)
        return path

    return write


def refused(path):
    with pytest.raises(StgTuneError) as error:
        preset.load(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "subject",
    [make(), make(evidence=None, revision="", combine_space="epsilon"), make(evidence=evidence(votes=(VOTES,)))],
)
def test_what_is_saved_is_loaded(tmp_path, subject):
    path = tmp_path / "new" / "preset.json"
    preset.save(subject, path)
    assert preset.load(path) == subject
    assert preset.load(str(path)).spec.hash() == subject.spec.hash()
    assert [item.name for item in path.parent.iterdir()] == ["preset.json"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444


def test_everything_a_specification_can_say_is_kept(tmp_path):
    drawn = SkipTerm(
        name="s2",
        skip_layers={"spatial": (1, 2, 3)},
        skip_op="attention_input",
        stg_scale=1.0,
        branch="crossed",
        draw=2,
        seed=7,
    )
    weak = SkipTerm(name="weak", skip_layers={}, skip_op="weak_model", stg_scale=0.5)
    full = GuidanceSpec(
        cfg_scale=2.0,
        segments=(Segment(terms=(drawn, weak)),),
        cfg_source="pipeline",
        restart=Restart(start=0.2, stop=0.5, count=3),
    )
    subject = make(spec=full, sigmas=tuple(1 - step / 10 for step in range(10)), source="somewhere", notes=("a", "b"))
    preset.save(subject, tmp_path / "p.json")
    assert preset.load(tmp_path / "p.json") == subject


@pytest.mark.parametrize("sigmas", [(1.0, 0.5), (0.5, 0.5, *range(8)), tuple(-step for step in range(10))])
def test_sigmas_are_one_a_step_and_descend(sigmas):
    with pytest.raises(StgTuneError, match="sigmas"):
        make(sigmas=sigmas)


@pytest.mark.parametrize("sign", ["\x00", "\x1b[2J", "\n", "\x85", "\u2028", "\u202e", "\u2066"])
def test_signs_that_act_on_a_terminal_are_refused(sign):
    data = make(notes=("a",), source="b").to_dict()
    for change in ({"name": f"a{sign}"}, {"origin": {"source": "", "notes": [f"a{sign}"]}}, {f"a{sign}": 1}):
        with pytest.raises(StgTuneError, match="control character"):
            preset.parse(json.dumps({**data, **change}))


def test_the_file_states_all_of_its_meaning(tmp_path):
    preset.save(make(), tmp_path / "p.json")
    data = json.loads((tmp_path / "p.json").read_text())
    assert data["schema"] == "stg-tune/preset/1"
    assert data["meaning"] == {
        "branch": "cond",
        "combine_space": "velocity",
        "rescale_std": "per_sample",
        "window": "start <= step / num_steps < stop",
    }
    assert data["model"]["stacks"] == {"spatial": 8, "temporal": 8}
    assert data["evidence"]["gain"]["low"] == 0.3
    assert data["evidence"]["scorers"][0]["weights"] == "0123456789abcdef"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("rate", 1.5, "evidence.votes[0].rate: 1.5 is too large"),
        ("wins", -1, "evidence.votes[0].wins: -1 is too small"),
        ("voters", 0, "evidence.votes[0].voters: 0 is too small"),
        ("pairs", True, "evidence.votes[0].pairs: True must be of type integer"),
        ("who", "Ada", "evidence.votes[0]: unknown field 'who'"),
    ],
)
def test_votes_that_cannot_be_are_refused(write, field, value, says):
    def change(data):
        data["evidence"]["votes"] = [{**asdict(VOTES), field: value}]

    assert says in refused(write(change))


def test_unknown_fields_are_refused_by_name(write):
    assert "unknown field 'exec'" in refused(write(lambda data: data.update(exec="rm -rf /")))
    assert "guidance.segments[0].terms[0]: unknown field 'scale'" in refused(
        write(lambda data: data["guidance"]["segments"][0]["terms"][0].update(scale=1))
    )


def test_missing_fields_are_named(write):
    assert "model: missing field 'revision'" in refused(write(lambda data: data["model"].pop("revision")))


def test_layers_are_checked_against_the_depth(write):
    def far(data):
        data["guidance"]["segments"][0]["terms"][0]["skip_layers"]["spatial"] = [3, 8]

    def elsewhere(data):
        data["guidance"]["segments"][0]["terms"][0]["skip_layers"] = {"joint": [1]}

    assert "skip_layers.spatial: there is no layer 8; allowed: 0 to 7" in refused(write(far))
    assert "names the stack 'joint'; the model has spatial, temporal" in refused(write(elsewhere))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"cfg_scale": 2.5', '"cfg_scale": NaN', "NaN is not a number here"),
        ('"cfg_scale": 2.5', '"cfg_scale": -Infinity', "-Infinity is not a number here"),
        ('"cfg_scale": 2.5', '"cfg_scale": 1e999', "1e999 is too large"),
        ('"cfg_scale": 2.5', '"cfg_scale": ' + "9" * 5000, "too large for a whole number"),
        ('"cfg_scale": 2.5', '"cfg_scale": true', "must be of type number"),
        ('"cfg_scale": 2.5', '"cfg_scale": "2.5"', "guidance.cfg_scale: '2.5' must be of type number"),
        ('"cfg_scale": 2.5', '"cfg_scale": 2.5, "cfg_scale": 3', "the field 'cfg_scale' is given twice"),
        ('"skip_op": "attention"', '"skip_op": "dropout"', "'dropout' is not allowed; allowed: attention, residual"),
        ('"branch": "cond"', '"branch": "uncond"', "must be 'cond'"),
        ('"start": 0.0', '"start": -0.1', "too small; it must be at least 0"),
        ('"stop": 1.0', '"stop": 1.5', "too large; it must be at most 1"),
        ('"schema": "stg-tune/preset/1"', '"schema": "stg-tune/preset/2"', "schema must be 'stg-tune/preset/1'"),
        ("[3, 5]", "[3, 3]", "has an entry twice"),
        ('"name": "mine"', '"name": "\\ud800"', "half a surrogate pair"),
        ('"date": "2026-01-02"', '"date": "today"', "does not match the pattern"),
    ],
)
def test_bad_values_are_refused(write, old, new, says):
    good = json.dumps(make().to_dict())
    assert old in good
    assert says in refused(write(text=good.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ('{"schema":\n x}', "line 2: not valid JSON"),
        ("[" * 100_000, "nested more than"),
        ('{"schema": ' + "[" * 40 + "]" * 40 + "}", "nested more than"),
        ("[]", "this is not a preset"),
        ('{"guider": 1}', "this is not a preset"),
        (" " * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_files_that_are_no_presets(write, text, says):
    assert says in refused(write(text=text))


def test_files_that_cannot_be_read(tmp_path):
    assert "cannot read preset" in refused(tmp_path / "none.json")
    assert "cannot read preset" in refused(tmp_path)
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused(tmp_path / "x.json")


def test_a_preset_that_could_not_be_read_back_is_not_written(tmp_path):
    path = tmp_path / "p.json"
    preset.save(make(), path)
    with pytest.raises(StgTuneError, match="NaN"):
        preset.save(make(evidence=evidence(relative_cost=float("nan"))), path)
    assert preset.load(path) == make()
    with pytest.raises(StgTuneError, match="there is no layer 9"):
        make(spec=spec(layers=(9,)))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StgTuneError, match="cannot write"):
        preset.save(make(), tmp_path / "file" / "p.json")


def test_remarks_of_validate(tmp_path):
    path = tmp_path / "p.json"
    preset.save(make(), path)
    assert preset.validate(path) == ()
    idle = spec(stg_scale=0.0, start=0.51, stop=0.55)
    preset.save(make(evidence=None, spec=idle), path)
    first, second, third = preset.validate(path)
    assert "no evidence" in first
    assert "'spatial' has stg_scale 0" in second
    assert "covers none of the 10 steps" in third
    preset.save(make(evidence=evidence(improved=False, reason="noise")), path)
    assert preset.validate(path) == ("its evidence shows no improvement: noise",)


def test_from_result_needs_an_improvement():
    unfinished = SimpleNamespace(verdict=None)
    nothing = SimpleNamespace(verdict=SimpleNamespace(improved=False, reason="it is noise"))
    with pytest.raises(StgTuneError, match="no verdict yet"):
        preset.from_result(unfinished, family="f", checkpoint="c", generation=GENERATION)
    with pytest.raises(StgTuneError, match="it is noise"):
        preset.from_result(nothing, family="f", checkpoint="c", generation=GENERATION)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def paths(data, at=()):
    yield at
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in children:
        yield from paths(value, (*at, key))


PATHS = [path for path in paths(make().to_dict()) if path]
FREE_NAMES = {"stacks", "guards", "versions"}
"""Mappings whose keys are names that a run or a model chooses."""


def message_or_none(text):
    try:
        preset.parse(text)
    except StgTuneError as error:
        return str(error)
    return None


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(("guidance", "segments", 0, "terms", 0, "skip_layers", "spatial"), [], "add")  # a stack without layers
@given(st.sampled_from(PATHS), JSON, st.sampled_from(["replace", "add", "remove"]))
def test_any_change_of_any_field_is_refused_with_one_message_or_harmless(path, value, how):
    data = make().to_dict()
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    if how == "remove":
        del holder[path[-1]]
    elif how == "add" and isinstance(holder, dict):
        holder["surprise"] = value
    else:
        holder[path[-1]] = value
    text = json.dumps(data)
    message = message_or_none(text)
    if message is None:
        found = preset.parse(text)
        assert "surprise" not in holder or path[-2] in FREE_NAMES
        assert preset.parse(json.dumps(found.to_dict())) == found
    else:
        assert message.startswith("preset")
        assert "\n" not in message


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(data)
    with pytest.raises(StgTuneError):
        preset.load(path)
