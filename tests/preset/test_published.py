"""The published settings that ship: complete, loadable without a model, and as their sources have them."""

import json
from dataclasses import replace
from importlib import resources

import pytest

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.models.families import FAMILIES
from stg_tune.preset import (
    bare_spec,
    find_published,
    open_for,
    open_preset,
    prior_for,
    published,
    published_names,
    save,
)
from stg_tune.preset.file import remarks_on
from stg_tune.records import ALL_SKIP_OPS, BRANCHES

NAMES = published_names()
ALL = (0.0, 1.0)
EXPECTED = {
    "cogvideox/published": ({"blocks": (11,)}, "residual", 1.0, "cond", 6.0, 0.0, ALL),
    "cogvideox/published-5b": ({"blocks": (11,)}, "residual", 1.0, "cond", 6.0, 0.0, ALL),
    "cogvideox/attention-5b": ({"blocks": (30,)}, "attention_all", 4.0, "cond", 6.0, 0.7, ALL),
    "hunyuan-video/published": ({"double": (2,)}, "residual", 1.0, "cond", 1.0, 0.0, ALL),
    "hunyuan-video/scale-2": ({"double": (2,)}, "residual", 2.0, "cond", 1.0, 0.0, ALL),
    "hunyuan-video/slg": ({"single": (20,)}, "residual", 1.0, "uncond", 6.0, 0.0, (0.4, 0.8)),
    "ltx/published": ({"blocks": (19,)}, "attention", 1.0, "cond", 3.0, 0.7, ALL),
    "ltx/residual": ({"blocks": (19,)}, "residual", 1.0, "cond", 3.0, 0.0, ALL),
    "ltx/layer-14": ({"blocks": (14,)}, "attention", 1.0, "cond", 3.0, 0.25, ALL),
    "ltx/layers-14-19": ({"blocks": (14, 19)}, "attention", 1.0, "cond", 1.0, 0.7, ALL),
    "ltx/13b-dev-upscale": ({"blocks": (27,)}, "attention", 1.0, "cond", 1.0, 0.0, ALL),
    "ltx/13b-upscale": ({"blocks": (42,)}, "attention", 1.0, "cond", 1.0, 1.0, ALL),
    "ltx2/published": ({"blocks": (29,)}, "attention", 1.0, "cond", 3.0, 0.7, ALL),
    "ltx2/published-2-3": ({"blocks": (28,)}, "attention", 1.0, "cond", 3.0, 0.7, ALL),
    "ltx2/comfyui-2-3": ({"blocks": (28,)}, "attention", 1.0, "cond", 3.0, 0.9, ALL),
    "mochi/published": ({"blocks": (34,)}, "residual", 1.0, "cond", 4.5, 0.0, ALL),
    "mochi/layer-35": ({"blocks": (35,)}, "residual", 1.0, "cond", 4.5, 0.7, ALL),
    "mochi/layer-35-weaker": ({"blocks": (35,)}, "residual", 0.8, "cond", 4.5, 0.7, ALL),
    "ovi/published": ({"blocks": (11,)}, "residual", 1.0, "uncond", 4.0, 0.0, ALL),
    "sd3/published": ({"blocks": (7, 8, 9)}, "residual", 2.8, "cond", 7.0, 0.0, (0.01, 0.2)),
    "sd3/sd-cpp": ({"blocks": (7, 8, 9)}, "residual", 2.5, "cond", 4.5, 0.0, (0.01, 0.2)),
    "sd3/comfyui": ({"blocks": (7, 8, 9)}, "residual", 3.0, "cond", 4.5, 0.0, (0.01, 0.15)),
    "wan/official": ({"blocks": (2,)}, "residual", 2.0, "from_guided", 5.0, 0.0, ALL),
    "wan/community": ({"blocks": (8,)}, "residual", 1.0, "cond", 5.0, 0.0, ALL),
    "wan/slg-14b": ({"blocks": (9,)}, "residual", 1.0, "uncond", 5.0, 0.0, (0.1, 0.9)),
    "wan/slg-14b-layer-10": ({"blocks": (10,)}, "residual", 1.0, "uncond", 5.0, 0.0, (0.1, 1.0)),
    "wan/slg-14b-late": ({"blocks": (10,)}, "residual", 1.0, "uncond", 5.0, 0.0, (0.2, 1.0)),
    "wan/slg-1-3b": ({"blocks": (8,)}, "residual", 1.0, "uncond", 5.0, 0.0, ALL),
    "wan/slg-5b": ({"blocks": (7, 8, 9)}, "residual", 1.0, "uncond", 5.0, 0.0, (0.1, 0.7)),
    "wan/musubi": ({"blocks": (9, 10)}, "residual", 3.0, "crossed", 5.0, 0.0, (0.0, 0.3)),
}
"""Layers, operation, scale, branch, CFG, rescale, window of every setting with one term, as its source has them."""
COMFYUI_SIGMAS = (1.0, 0.9933, 0.9850, 0.9767, 0.9008, 0.6180)
SCHEDULES = {
    "ltx/13b-dynamic": (
        (1, 6, 8, 6, 1, 1),
        (0, 4, 4, 4, 2, 1),
        (0, 0.5, 0.5, 1, 1, 1),
        ((), (22, 35, 39), (28,), (28,), (28,), (28,)),
    ),
    "ltx/13b-balanced": (
        (1, 6, 8, 6, 1, 1),
        (0, 4, 4, 4, 2, 1),
        (0, 0.5, 0.5, 1, 1, 1),
        ((), (12,), (5,), (5,), (28,), (29,)),
    ),
    "ltx/2b-schedule": ((4, 4, 4, 4, 1, 1), (2, 2, 2, 2, 1, 0), (1, 1, 1, 1, 1, 0), (*((14,),) * 5, ())),
}
"""CFG, scale, rescale, layers of each entry; 0 and () where nothing is skipped and CFG is 1."""
WITHOUT_SKIPS = {"ltx/distilled": 1.0, "ltx/distilled-2b": 1.0, "ltx2/hq-2-3": 3.0}
ELSEWHERE = {"ltx/13b-dev", "svd/published"}
"""Tested by name."""


def test_no_published_preset_is_left_unchecked():
    assert {*EXPECTED, *SCHEDULES, *WITHOUT_SKIPS, *ELSEWHERE} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_published_preset_is_whole(name):
    preset = find_published(name)
    assert preset.name == name
    assert preset.family == name.rpartition("/")[0]
    assert preset.source
    assert preset.evidence is None
    assert remarks_on(preset)[0].startswith("it was published by others")
    assert remarks_on(preset)[1:] == (), "a published setting that does nothing needs another form"


def test_a_rescale_of_x0_is_remarked_on_where_nobody_can_follow_it():
    preset = find_published("ltx2/published")
    assert preset.combine_space == "sample"
    assert "rescales x0" not in " ".join(remarks_on(preset))
    assert "guided cannot see in the family cosmos: it refuses" in remarks_on(replace(preset, family="cosmos"))[1]
    assert "rescales x0" not in " ".join(remarks_on(replace(preset, family="cosmos", combine_space="velocity")))


@pytest.mark.parametrize("name", EXPECTED)
def test_numbers_are_those_of_the_source(name):
    preset = find_published(name)
    (segment,) = preset.spec.segments
    (term,) = segment.terms
    cfg = preset.spec.cfg_scale if segment.cfg_scale is None else segment.cfg_scale
    window = (segment.start, segment.stop)
    found = (dict(term.skip_layers), term.skip_op, term.stg_scale, term.branch, cfg, segment.rescale, window)
    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", WITHOUT_SKIPS)
def test_settings_of_makers_who_skip_nothing(name):
    preset = find_published(name)
    assert preset.spec.cfg_scale == WITHOUT_SKIPS[name]
    assert [term for segment in preset.spec.segments for term in segment.terms] == []
    assert preset.notes


def test_the_setting_of_svd_has_two_terms():
    preset = find_published("svd/published")
    (segment,) = preset.spec.segments
    found = [(dict(term.skip_layers), term.skip_op, term.stg_scale, term.branch) for term in segment.terms]
    assert found == [
        ({"spatial": (7,)}, "attention", 2.0, "cond"),
        ({"temporal": (7,)}, "attention", 0.5, "cond"),
    ]
    assert (segment.rescale, preset.spec.cfg_source, preset.generation.num_inference_steps) == (0.7, "pipeline", 25)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_of_comfyui_lies_on_the_right_steps(name):
    """stg_advanced_presets.json looks up the least entry that is not below the sigma."""
    preset = find_published(name)
    for step, sigma in enumerate(preset.sigmas):
        place = max(place for place, entry in enumerate(COMFYUI_SIGMAS) if entry >= sigma)
        segment = next(part for part in preset.spec.segments if part.start - 1e-6 <= step / 30 < part.stop - 1e-6)
        cfg = preset.spec.cfg_scale if segment.cfg_scale is None else segment.cfg_scale
        scale = sum(term.stg_scale for term in segment.terms)
        layers = tuple(index for term in segment.terms for index in term.skip_layers["blocks"])
        assert (cfg, scale, segment.rescale, layers) == tuple(column[place] for column in SCHEDULES[name]), step
        assert {(term.skip_op, term.branch) for term in segment.terms} <= {("attention", "cond")}


@pytest.mark.parametrize("name", NAMES)
def test_another_branch_than_the_paper_s_is_warned_of(name):
    preset = find_published(name)
    branches = {term.branch for segment in preset.spec.segments for term in segment.terms} - {"cond"}
    if branches:
        assert any("negative pr" in note for note in preset.notes)


def test_a_schedule_by_sigma_lies_on_the_right_steps():
    """ltxv-13b-0.9.8-dev.yaml looks up the first entry that is not above the sigma."""
    preset = find_published("ltx/13b-dev")
    times = [1.0, 0.996, 0.9933, 0.9850, 0.9767, 0.9008, 0.6180]
    cfg, stg = [1, 1, 6, 8, 6, 1, 1], [0, 0, 4, 4, 4, 2, 1]
    layers = [[], [], [22, 35, 39], [28], [28], [28], [28]]
    for step, sigma in enumerate(preset.sigmas):
        place = next((i for i, time in enumerate(times) if time <= round(sigma, 6)), len(times) - 1)
        here = step / 30
        held = [part for part in preset.spec.segments if part.start - 1e-6 <= here < part.stop - 1e-6]
        scales = [part.cfg_scale for part in held if part.cfg_scale is not None] or [preset.spec.cfg_scale]
        terms = [term for part in held for term in part.terms]
        assert scales == [cfg[place]], step
        assert sum(term.stg_scale for term in terms) == stg[place], step
        assert [list(term.skip_layers["blocks"]) for term in terms] == ([layers[place]] if stg[place] else []), step


def test_names_of_families_and_stacks_are_the_runtime_s():
    known = {record.family: {stack.name for stack in record.stacks} for record in FAMILIES}
    strangers = {preset.family for preset in published()} - set(known)
    assert strangers == {"ovi", "sd3"}
    for preset in published():
        assert set(preset.stacks) == known.get(preset.family, {"blocks"}), preset.name


def test_published_by_family():
    assert {preset.family for preset in published("wan")} == {"wan"}
    assert len(published()) == len(NAMES) >= 30
    assert published("nothing known") == []
    assert published_names("mochi") == ["mochi/layer-35", "mochi/layer-35-weaker", "mochi/published"]


def test_wan_official_warns_of_its_formula():
    assert any("effective CFG is 15" in note for note in find_published("wan/official").notes)


def test_open_preset_takes_names_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_preset("mochi/published") == find_published("mochi/published")
    save(find_published("wan/community"), tmp_path / "mine.json")
    assert open_preset("mine.json").name == "wan/community"
    (tmp_path / "mochi").mkdir()
    save(find_published("wan/community"), tmp_path / "mochi" / "published")
    assert open_preset("mochi/published").name == "wan/community", "a file wins"


def entry_of(family, **stacks):
    entry = models.entry("open-sora-tiny")
    architecture = replace(entry.architecture, family=family)
    return replace(entry, name=f"some {family}", architecture=architecture, depths=stacks)


def test_a_preset_must_fit_the_blocks_of_the_model():
    assert open_for("wan/slg-14b", entry_of("wan", blocks=40)) == find_published("wan/slg-14b")
    for other in (entry_of("wan", blocks=30), entry_of("mochi", blocks=40)):
        with pytest.raises(StgTuneError, match=r"the preset wan/slg-14b is for .* its layers mean nothing there"):
            open_for("wan/slg-14b", other)


def test_the_published_setting_of_a_model_is_found_by_its_blocks():
    assert prior_for(entry_of("mochi", blocks=48)).name == "mochi/published"
    assert prior_for(entry_of("cogvideox", blocks=30)).name == "cogvideox/published"
    with pytest.raises(
        StgTuneError, match="type one of wan/musubi, wan/slg-14b, wan/slg-14b-late, wan/slg-14b-layer-10"
    ):
        prior_for(entry_of("wan", blocks=40))
    with pytest.raises(StgTuneError, match=r"nothing is published for some mochi .* of the family: mochi/layer-35, "):
        prior_for(entry_of("mochi", blocks=12))


@pytest.mark.parametrize(
    "name",
    ["mochi/publshed", "mochi", "../published/mochi.published", "/etc/passwd/x", "mochi.published", "x" * 9000, "\0"],
)
def test_other_names_are_refused_and_lead_nowhere(name):
    with pytest.raises(StgTuneError, match="there is no published preset"):
        find_published(name)


def test_close_names_are_offered():
    with pytest.raises(StgTuneError, match="mochi/published"):
        open_preset("mochi/publshed")
    with pytest.raises(StgTuneError, match="cannot read preset"):
        open_preset("none.json")


def test_the_schema_knows_every_word_of_the_records():
    schema = json.loads(resources.files("stg_tune.preset").joinpath("preset.schema.json").read_text())
    term = schema["$defs"]["term"]["properties"]
    assert term["skip_op"]["enum"] == list(ALL_SKIP_OPS)
    assert term["branch"]["enum"] == list(BRANCHES)


def test_the_schema_knows_every_field_of_the_records():
    from dataclasses import fields

    from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm

    schema = json.loads(resources.files("stg_tune.preset").joinpath("preset.schema.json").read_text())["$defs"]
    for record, part in ((SkipTerm, schema["term"]), (Segment, schema["segment"]), (GuidanceSpec, schema["guidance"])):
        assert {item.name for item in fields(record)} == set(part["properties"]), record
    assert {item.name for item in fields(Restart)} == set(schema["guidance"]["properties"]["restart"]["properties"])


def test_a_specification_stands_for_a_preset_only_where_it_says_all():
    plain = find_published("mochi/layer-35")
    assert bare_spec(plain) == plain.spec
    clean = find_published("ltx2/published")
    with pytest.raises(StgTuneError, match=r"ltx2/published rescales x0 .*set its rescale to 0"):
        bare_spec(clean)
    without = tuple(replace(segment, rescale=0.0) for segment in clean.spec.segments)
    assert bare_spec(replace(clean, spec=replace(clean.spec, segments=without))).segments == without
