"""Files of other tools are not trusted: whatever they hold, they are read or refused in one line."""

import importlib.util
import json
import os
import random
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stg_tune.errors import StgTuneError
from stg_tune.export import export, import_, targets
from stg_tune.preset import find_published, parse

READERS = [item.name for item in targets() if item.read]
GOOD = {
    "diffusers": "wan/community",
    "diffusers-ltx2": "ltx2/published",
    "diffusers-ltx2-guider": "ltx2/published",
    "diffusers-community": "mochi/published",
    "ltx-video": "ltx/13b-dev",
    "comfyui-ltxvideo": "ltx/13b-dynamic",
    "comfyui-ltxvideo-node": "ltx/13b-dynamic",
    "comfyui-ltxvideo-multimodal": "ltx2/published",
    "comfyui-slg": "wan/community",
    "comfyui-slg-simple": "wan/slg-14b",
    "comfyui-sd3": "sd3/published",
    "comfyui-stg": "ltx2/published",
    "wanvideowrapper": "wan/slg-14b",
    "kjnodes": "wan/slg-14b",
    "hunyuanvideowrapper-slg": "hunyuan-video/slg",
    "hunyuanvideowrapper": "hunyuan-video/slg",
    "wan2gp": "wan/slg-14b",
    "ltx-2": "ltx2/published",
    "musubi-tuner": "wan/official",
    "stable-diffusion.cpp": "wan/community",
}
STG_NODE = json.dumps(
    {"1": {"class_type": "HyVideoSTG", "inputs": {"stg_mode": "STG-R", "stg_block_idx": 5, "stg_scale": 1.0}}}
)
LIKES = {name: find_published(preset) for name, preset in GOOD.items()}
TEXTS = {
    name: STG_NODE if name == "hunyuanvideowrapper" else export(like, name, lossy=True).text
    for name, like in LIKES.items()
}
_FILE = Path(__file__).parents[1] / "preset" / "hostile.py"
_spec = importlib.util.spec_from_file_location("stg_tune_tests_hostile", _FILE)
values = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(values)

PLAN = (*values.EVERY_KIND, "damaged text", "damaged text", "any text")
"""What is drawn at a time: most of what a drawing costs does not depend on its size."""
EACH = -(-int(os.environ.get("STG_TUNE_FUZZ_CASES", "500")) // len(PLAN))
"""Drawings a reader: 10,000 cases over all of them, or so many as the variable says for each."""
ARGUMENTS = ("ltx-2", "musubi-tuner", "stable-diffusion.cpp")
YAML = ("ltx-video",)
_PLACES = {
    "json": re.compile(r'(?<=: )("[^"\n]*"|-?[\d.]+(?:e-?\d+)?|true|false|null|\[[^\]{}]*\])'),
    "yaml": re.compile(r"(?<=: )([^\n]+)"),
    "arguments": re.compile(r"(?<= )((?!--)\S+)"),
}
_KEYS = {
    "json": re.compile(r'("[^"\n]*"): '),
    "yaml": re.compile(r"^( *[a-z_]+): ", flags=re.MULTILINE),
    "arguments": re.compile(r"(--[a-z0-9_-]+)"),
}
PIECES = (
    *(
        "NaN",
        "-1",
        "9" * 30,
        "null",
        "[]",
        "{}",
        "[-1]",
        '"\\u001b"',
        "",
        "\x00",
        "}",
        "[",
        ",",
        ": ",
        "--",
        "&a ",
        "*a",
    ),
    "!!python/object:os.system ",
)
LOOSE = {"phases": [Phase.generate], "deadline": None, "suppress_health_check": list(HealthCheck)}
ROUND_TRIPS = set()
"""What has been read, written and read again: equal presets need it once."""


def form_of(name):
    return "arguments" if name in ARGUMENTS else "yaml" if name in YAML else "json"


def written(form, value):
    """A JSON text as the form writes it: a word of a command line has no quotes of JSON."""
    return value.strip('"') if form == "arguments" else value


def changed(name, kind, places):
    """The good file with one value replaced, or one key given twice."""
    text, form = TEXTS[name], form_of(name)
    pool = values.KINDS[places.choice(tuple(values.KINDS)) if kind == values.DUPLICATE else kind]
    value = written(form, places.choice(pool))
    if kind != values.DUPLICATE:
        start, stop = places.choice([found.span(1) for found in _PLACES[form].finditer(text)])
        return text[:start] + value + text[stop:]
    found = places.choice(list(_KEYS[form].finditer(text)))
    between, after = {"json": (": ", ", "), "yaml": (": ", "\n"), "arguments": (" ", " ")}[form]
    return text[: found.start(1)] + found[1] + between + value + after + text[found.start(1) :]


def damaged(text, places):
    """Up to three pieces cut out, repeated or replaced."""
    for _ in range(places.randint(1, 3)):
        start = places.randint(0, len(text))
        stop = min(len(text), start + places.randint(0, 12))
        text = text[:start] + places.choice((*PIECES, text[start:stop] * 2)) + text[stop:]
    return text


def cases_of(name, seed, free):
    """A text of every entry of ``PLAN``, with its kind; both arguments are drawn."""
    places = random.Random(f"{name} {seed} {free}")
    for kind in PLAN:
        if kind == "any text":
            yield kind, free
        elif kind == "damaged text":
            yield kind, damaged(TEXTS[name], places)
        else:
            yield kind, changed(name, kind, places)


DRAWN = {"seed": st.integers(0, 2**63), "free": st.text(max_size=40)}


def check_message(message):
    assert "cannot be read as" in message
    assert not [sign for sign in message if unicodedata.category(sign) in ("Cc", "Cs")]


def check(name, text):
    try:
        made = import_(text, name, LIKES[name], lossy=True)
    except StgTuneError as error:
        check_message(str(error))
        return
    assert made.preset.stacks == LIKES[name].stacks
    found = json.dumps(made.preset.to_dict())
    if found not in ROUND_TRIPS:
        ROUND_TRIPS.add(found)
        assert parse(found) == made.preset


def test_every_reader_is_tried():
    assert set(GOOD) == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_the_good_file_is_read(name):
    assert import_(TEXTS[name], name, LIKES[name], lossy=True).preset.spec.segments


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_hostile_files_at_length(name):
    """Every kind of ``hostile.py`` in the file of every tool; STG_TUNE_FUZZ_CASES=10000 for so many of each tool."""
    tried, different = Counter(), set()

    @settings(max_examples=EACH, **LOOSE)
    @given(**DRAWN)
    def run(seed, free):
        for kind, text in cases_of(name, seed, free):
            tried[kind] += 1
            different.add(text)
            check(name, text)

    run()
    assert min(tried[kind] for kind in PLAN) >= EACH
    assert len(different) > len(READERS), "the same few texts are tried again and again"


@pytest.mark.parametrize("name", READERS)
def test_a_key_given_twice_is_refused(name):
    """Which of the two a tool takes is chance."""
    for number in range(5):
        with pytest.raises(StgTuneError, match="cannot be read as"):
            import_(changed(name, values.DUPLICATE, random.Random(number)), name, LIKES[name], lossy=True)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "x: &a [*a]", "[" * 5000, "{" * 5000, '{"a": ' * 40, "--", "'", "? [a]\n: b"]
)
def test_files_that_are_nothing_of_the_kind(name, text):
    try:
        made = import_(text, name, LIKES[name], lossy=True)
    except StgTuneError as error:
        check_message(str(error))
    else:  # command lines and configurations may be empty: then nothing is skipped
        assert made.preset.spec.segments == ()


def test_a_whole_number_too_large_for_a_float_is_refused():
    """JSON has a limit of its own, YAML has none."""
    text = TEXTS["ltx-video"].replace(
        "num_inference_steps", "skip_final_inference_steps: " + "9" * 400 + "\n  num_inference_steps"
    )
    with pytest.raises(StgTuneError, match="must be a finite number"):
        import_(text, "ltx-video", LIKES["ltx-video"], lossy=True)


def test_yaml_builds_no_objects():
    for text in ("a: !!python/object/apply:os.system [id]", "a: &b {c: 1}\nd: *b", "a: 1\na: 2", "{[1]: 2}: 3", "1: 2"):
        with pytest.raises(StgTuneError):
            import_(text, "ltx-video", LIKES["ltx-video"])


def test_the_snippet_holds_no_code_of_the_preset():
    from dataclasses import replace

    evil = replace(LIKES["diffusers"], name='"""\nimport os\nos.system("x")\n"""\\')
    import ast

    text = export(evil, "diffusers-python").text
    tree = ast.parse(text)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == set()
    assert "os.system(" not in text
