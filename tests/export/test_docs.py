"""The files that the documentation shows are those that the program writes."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from stg_tune.export import export, import_, target_names, targets
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


def shown(name):
    """The file that a section shows."""
    return re.search(r"^```\w+\n(.*?)^```", SECTIONS[name], flags=re.MULTILINE | re.DOTALL)[1]


def test_every_target_has_its_section_in_order():
    assert list(SECTIONS) == target_names()


@pytest.mark.parametrize("item", targets(), ids=lambda item: item.name)
def test_the_file_shown_is_the_file_written(item):
    section = SECTIONS[item.name]
    assert shown(item.name) == export(example(item.name), item.name).text
    assert f"It can say: {item.says}." in section
    assert f"It loses: {item.loses}." in section
    assert item.paste in section
    assert item.url in section
    assert ", ".join(item.families) in section


@pytest.mark.parametrize("item", targets(), ids=lambda item: item.name)
def test_the_file_shown_does_what_its_preset_says(kit, item):
    """Read as its tool reads it."""
    preset = example(item.name)
    wanted = kit.meaning(preset)
    if preset.name == "wan/official":  # 13 is the CFG scale of the same formula without the detour
        wanted = [kit.step(13.0, 0.0, ({"blocks": (2,)}, "residual", "crossed", 2.0))] * len(wanted)
    found = kit.tools[item.name](shown(item.name), preset)
    unequal = [place for place, pair in enumerate(zip(found, wanted, strict=True)) if not pair[0].near(pair[1])]
    assert unequal == ([0] if item.name == "diffusers" else [])


@pytest.mark.parametrize("item", [item for item in targets() if item.read], ids=lambda item: item.name)
def test_the_file_shown_is_read_back(kit, item):
    preset = example(item.name)
    back = import_(shown(item.name), item.name, preset)
    pairs = list(zip(kit.meaning(back.preset), kit.tools[item.name](shown(item.name), preset), strict=True))
    assert [(a, b) for a, b in pairs if not a.near(b)] == []


def test_the_snippet_shown_runs():
    """As Python, with the installed diffusers."""
    pytest.importorskip("diffusers")
    namespace = {}
    exec(compile(shown("diffusers-python"), "snippet.py", "exec"), namespace)
    pipe = SimpleNamespace(transformer=None, guider=None)
    namespace["attach"](pipe)
    assert pipe.guider is namespace["guider"]
    assert pipe.guider.skip_layer_guidance_start == -1.0


@pytest.mark.parametrize(("name", "scale"), [("diffusers", 4.5), ("diffusers-ltx2-guider", 3.0)])
def test_the_configuration_shown_is_loaded(tmp_path, name, scale):
    diffusers = pytest.importorskip("diffusers")
    (tmp_path / "guider_config.json").write_text(shown(name))
    kind = re.search(r'"_class_name": "(\w+)"', shown(name))[1]
    assert f"{kind}.from_pretrained(folder)" in SECTIONS[name]
    assert getattr(diffusers, kind).from_pretrained(tmp_path).guidance_scale == scale


def test_the_names_in_the_table_are_those_in_the_files():
    """A name of a tool that no file on the page has would be a mistake of the table."""
    table = TEXT[TEXT.index("| here |") : TEXT.index("## The same number")]
    files = "\n".join(re.findall(r"^```(?:json|yaml|python|text)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL))
    assert len(files) > 5000
    heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    assert {len(row) for row in rows} == {len(heads)}
    names = {name for row in rows for cell in row[1:] for name in re.findall(r"`([^`]+)`", cell)}
    unknown = {name.lstrip(".") for name in names if name.lstrip(".") not in files}
    assert unknown <= {"AutoGuidance", "perturbed_guidance_scale", "alt_scale"}, "of other settings than those shown"


def _table(text, first):
    """The cells of the table whose first head is ``first``, line by line."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_the_readme_has_the_same_names_tool_by_tool():
    here, *lines = _table(TEXT, "here")
    readme = _table((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8"), "tool")
    assert readme[0][1:] == [name for name, *_ in lines]
    assert readme[1:] == [list(column) for column in zip(here[1:], *(line[1:] for line in lines), strict=True)]
