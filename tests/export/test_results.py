"""Every preset that was found here is written for every tool, or refused with the reason."""

from dataclasses import replace
from pathlib import Path

import pytest

from stg_tune import models
from stg_tune.cli.main import main
from stg_tune.errors import StgTuneError
from stg_tune.export import export, target, target_names
from stg_tune.preset import Preset, load, save
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

FOLDER = Path(__file__).parents[2] / "results" / "presets"


def built():
    """As a search over spatial and temporal blocks finds them."""
    entry = models.entry("open-sora-tiny")
    terms = tuple(
        SkipTerm(name=stack, skip_layers={stack: layers}, skip_op=op, stg_scale=scale)
        for stack, layers, op, scale in (("spatial", (3, 5), "attention", 0.4), ("temporal", (6,), "residual", 0.2))
    )
    segment = Segment(start=0.0, stop=0.8, terms=terms, combination="orthogonal", rescale=0.3)
    return Preset(
        name="open-sora-tiny built",
        family=entry.architecture.family,
        model=entry.name,
        checkpoint="embedded",
        revision="",
        stacks=entry.depths,
        spec=GuidanceSpec(cfg_scale=2.0, segments=(segment,)),
        generation=entry.defaults,
    )


def found_in(folder):
    """Every file below is a preset: one that is not must not pass unseen."""
    return {str(file.relative_to(folder)): load(file) for file in sorted(folder.rglob("*")) if file.suffix == ".json"}


FOUND = {"built": built(), **found_in(FOLDER)}


def attempt(preset, name, *, lossy):
    """What is written, or the reason why not."""
    try:
        return export(preset, name, lossy=lossy), ""
    except StgTuneError as error:
        return None, str(error)


@pytest.mark.parametrize("name", target_names())
@pytest.mark.parametrize("file", FOUND)
def test_a_found_preset_is_written_or_refused_with_the_reason(kit, file, name):
    preset = FOUND[file]
    made, reason = attempt(preset, name, lossy=False)
    if made is not None:
        assert preset.family in target(name).families
        found = kit.tools[name](made.text, preset)
        later = list(zip(found, kit.meaning(preset), strict=True))[name == "diffusers" :]  # its step 0 never skips
        assert [(a, b) for a, b in later if not a.near(b)] == []
        return
    assert reason.startswith((f"{preset.name} cannot be written for {name}: ", f"writing {preset.name} for {name} "))
    assert "\n" not in reason
    if preset.family not in target(name).families:
        assert preset.family in reason
        assert attempt(preset, name, lossy=True) == (None, reason), "no loss makes another model of it"
    if "--lossy" in reason:
        again, _ = attempt(preset, name, lossy=True)
        assert again.losses
        assert all(loss in reason for loss in again.losses)


def test_the_same_setting_of_a_model_that_tools_know_is_written(kit):
    """So that the suite above cannot pass by refusing everything."""
    term = SkipTerm(name="blocks", skip_layers={"blocks": (3, 5)}, skip_op="residual", stg_scale=0.4)
    spec = GuidanceSpec(cfg_scale=2.0, segments=(Segment(terms=(term,)),))
    mochi = replace(built(), name="mochi built", family="mochi", stacks={"blocks": 48}, spec=spec)
    writing = [name for name in target_names() if attempt(mochi, name, lossy=False)[0] is not None]
    assert writing == ["diffusers", "diffusers-python", "diffusers-community", "comfyui-slg"]


@pytest.mark.parametrize("name", target_names())
def test_the_command_does_the_same_for_every_file(name, tmp_path, capsys):
    """``stg-tune export FILE --to X -o OUT``: the file, or one line and exit code 1; nothing between."""
    for number, (file, preset) in enumerate(FOUND.items()):
        path, out = FOLDER / file, tmp_path / f"{number}{target(name).suffix}"
        if file == "built":
            path = tmp_path / "built.json"
            save(preset, path)
        made, reason = attempt(preset, name, lossy=False)
        assert main(["export", str(path), "--to", name, "-o", str(out)]) == (made is None)
        said = capsys.readouterr()
        if made is None:
            assert not out.exists()
            assert said.err.count("\n") == 1
            assert reason in said.err
        else:
            assert out.read_text() == made.text
            assert said.err.splitlines() == [f"stg-tune: note: {note}" for note in made.notes]


def found_as(family, **stacks):
    """What a search over a family's stacks writes: one term a stack, two windows, CFG and rescale of their own."""

    def part(start, stop, op, scale, cfg):
        terms = tuple(
            SkipTerm(name=stack, skip_layers={stack: layers}, skip_op=op, stg_scale=scale)
            for stack, layers in stacks.items()
        )
        combination = "orthogonal" if len(terms) > 1 else "independent"
        return Segment(start=start, stop=stop, cfg_scale=cfg, terms=terms, combination=combination, rescale=0.35)

    segments = (part(0.1, 0.6, "attention", 1.3, 5.5), part(0.6, 0.9, "residual", 0.4, 3.0))
    depths = dict.fromkeys(stacks, 48)
    spec = GuidanceSpec(cfg_scale=4.0, segments=segments)
    return replace(built(), name=f"{family} found", family=family, stacks=depths, spec=spec)


@pytest.mark.parametrize(
    "preset",
    [
        *(found_as(family, blocks=(3, 11)) for family in ("mochi", "wan", "ltx", "ltx2", "cogvideox", "sd3")),
        found_as("hunyuan-video", double=(2, 5), single=(7,)),
        found_as("latte", spatial=(2,), temporal=(3,)),
    ],
    ids=lambda preset: preset.family,
)
@pytest.mark.parametrize("name", target_names())
def test_a_rich_setting_loses_nothing_in_silence(kit, preset, name):
    """Two windows with two operations: what a tool cannot say is in the list of losses, or the reason of a refusal."""
    made, reason = attempt(preset, name, lossy=False)
    if made is not None:
        pairs = zip(kit.tools[name](made.text, preset), kit.meaning(preset), strict=True)
        assert [(a, b) for a, b in pairs if not a.near(b)] == []
        return
    assert "\n" not in reason
    if "--lossy" not in reason:
        return
    again, still = attempt(preset, name, lossy=True)
    assert again.losses, still
    assert any("is left out" in loss for loss in again.losses), "one window with one term cannot hold two"


def test_a_folder_with_something_else_in_it_is_not_passed_over(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "notes.json").write_text("{}")
    with pytest.raises(StgTuneError, match="this is not a preset"):
        found_in(tmp_path)
    (tmp_path / "deep" / "notes.json").unlink()
    save(built(), tmp_path / "deep" / "mine.json")
    assert found_in(tmp_path) == {"deep/mine.json": built()}
