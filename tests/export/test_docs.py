"""The files that the documentation shows are those that the program writes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from stg_tune.export import export, target_names, targets
from stg_tune.preset import find_published
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

TEXT = (Path(__file__).parents[2] / "docs" / "exports.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `([^`]+)`\n(.*?)(?=^### |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL))
COMMAND = re.compile(r"`stg-tune export (\S+) --to (\S+) -o \S+`")


def example(name):
    found = COMMAND.search(SECTIONS[name])
    if found:
        assert found[2] == name
        return find_published(found[1])
    term = SkipTerm(name="single", skip_layers={"single": (20,)}, skip_op="residual", stg_scale=1.0)
    spec = GuidanceSpec(cfg_scale=1.0, segments=(Segment(terms=(term,)),))
    return replace(find_published("hunyuan-video/published"), name="single-20", spec=spec)


def test_every_target_has_its_section_in_order():
    assert list(SECTIONS) == target_names()


@pytest.mark.parametrize("item", targets(), ids=lambda item: item.name)
def test_the_file_shown_is_the_file_written(item):
    section = SECTIONS[item.name]
    shown = re.search(r"^```\w+\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert shown[1] == export(example(item.name), item.name).text
    assert item.says in section
    assert item.paste in section
    assert item.url in section
    assert ", ".join(item.families) in section
