"""Every preset that was found here is written for every tool, or refused with the reason."""

from dataclasses import replace
from pathlib import Path

import pytest

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.export import export, target, target_names
from stg_tune.preset import Preset, load
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


FOUND = [load(file) for file in sorted(FOLDER.rglob("*.json"))] or [built()]


def attempt(preset, name, *, lossy):
    """What is written, or the reason why not."""
    try:
        return export(preset, name, lossy=lossy), ""
    except StgTuneError as error:
        return None, str(error)


@pytest.mark.parametrize("name", target_names())
@pytest.mark.parametrize("preset", FOUND, ids=lambda preset: preset.name)
def test_a_found_preset_is_written_or_refused_with_the_reason(kit, preset, name):
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
