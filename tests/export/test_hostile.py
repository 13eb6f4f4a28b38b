"""Files of other tools are not trusted: whatever they hold, they are read or refused in one line."""

import json
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
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
VALUES = (
    "NaN",
    "1e999",
    "-1",
    "9" * 30,
    "true",
    "null",
    '"x"',
    "[]",
    "[[[]]]",
    "{}",
    "[-1]",
    "[1e9]",
    '"\\u001b"',
    "[99999]",
)
PIECES = (*VALUES, "", "\x00", "}", "[", ",", ": ", "--", "&a ", "*a", "!!python/object:os.system ")
EDIT, EDITS = 5, 3
"""Bytes of one edit, and how many there may be."""
BATCH = 10
"""Cases that are drawn at a time: most of what a drawing costs does not depend on its size."""
CHANGES = st.binary(min_size=2 + EDITS * EDIT, max_size=2 + EDITS * EDIT)
LOOSE = {"deadline": None, "suppress_health_check": list(HealthCheck)}
ROUND_TRIPS = set()
"""What has been read, written and read again: equal presets need it once."""


def damaged(text, change):
    """Pieces cut out, repeated or replaced by values of other types, as the bytes of ``change`` say."""
    for number in range(1 + change[1] % EDITS):
        first, second, third, length, piece = change[2 + number * EDIT :][:EDIT]
        start = (first << 16 | second << 8 | third) % (len(text) + 1)
        stop = min(len(text), start + length % 13)
        choices = (*PIECES, text[start:stop] * 2)
        text = text[:start] + choices[piece % len(choices)] + text[stop:]
    return text


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
    written = json.dumps(made.preset.to_dict())
    if written not in ROUND_TRIPS:
        ROUND_TRIPS.add(written)
        assert parse(written) == made.preset


def test_every_reader_is_tried():
    assert set(GOOD) == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_the_good_file_is_read(name):
    assert import_(TEXTS[name], name, LIKES[name], lossy=True).preset.spec.segments


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=15, **LOOSE)
@given(change=CHANGES)
def test_damaged_files(name, change):
    check(name, damaged(TEXTS[name], change))


@pytest.mark.slow
@settings(max_examples=10_000 // BATCH, **LOOSE)
@given(
    changes=st.lists(CHANGES, min_size=BATCH // 2, max_size=BATCH // 2),
    texts=st.lists(st.text(max_size=40), min_size=BATCH // 2, max_size=BATCH // 2),
)
def test_damaged_files_at_length(changes, texts):
    for change, text in zip(changes, texts, strict=True):
        name = READERS[change[0] % len(READERS)]
        check(name, damaged(TEXTS[name], change))
        check(name, text)


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
