"""What is compared, and that no search has seen the pairs."""

import json
import shutil
from pathlib import Path

import pytest

from stg_tune import models
from stg_tune.compare import new_pairs
from stg_tune.compare.plan import check_folder, contender
from stg_tune.errors import StgTuneError
from stg_tune.evaluate.plan import pairs_of
from stg_tune.preset import from_result, save
from stg_tune.records import GuidanceSpec
from stg_tune.search import load_run, snapshot, split_pairs

CAPTIONS = [f"a {colour} {digit}" for colour in ("red", "blue", "green") for digit in range(10)]


def test_no_noise_of_a_search_or_an_evaluation_comes_back() -> None:
    mine = {pair.seed for seed in range(3) for pair in new_pairs(CAPTIONS, (), count=300, seed=seed)}
    assert len(mine) == 900
    searches = (split_pairs(CAPTIONS, seed=seed, search=24, holdout=1200) for seed in range(3))
    theirs = {pair.seed for search, holdout in searches for pair in (*search, *holdout)}
    theirs |= {pair.seed for pair in pairs_of(CAPTIONS, samples=300, seeds=2, seed=0)}
    assert not mine & theirs


def test_pairs_go_round_the_captions_and_depend_on_the_seed_alone() -> None:
    short, long = (new_pairs(CAPTIONS, (), count=count, seed=1) for count in (30, 60))
    assert {pair.prompt for pair in short} == set(CAPTIONS)
    assert long[:30] == short
    assert new_pairs(CAPTIONS, (), count=30, seed=2) != short
    assert new_pairs([*CAPTIONS, *CAPTIONS], (), count=30, seed=1) == short


def test_where_every_caption_was_searched_others_are_asked_for() -> None:
    with pytest.raises(StgTuneError, match=r"all 30 captions have guided the search.*--prompts FILE"):
        new_pairs(CAPTIONS, set(CAPTIONS), count=30, seed=0)


@pytest.fixture
def earned(finished_run: Path, tmp_path: Path) -> Path:
    """The preset of a finished run, in the folder of the run."""
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    entry = models.entry("open-sora-tiny")
    preset = from_result(snapshot(run), family="open-sora", checkpoint="embedded", generation=entry.defaults)
    save(preset, run / "preset.json")
    return run / "preset.json"


def test_captions_that_guided_the_search_are_left_out(kit, earned: Path, tmp_path: Path) -> None:
    searched = {pair.prompt for pair in load_run(earned.parent).plan.search_pairs}
    assert len(searched) == 8
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(CAPTIONS))
    used = {pair.prompt for pair in kit.plan(str(earned), prompts=prompts).pairs}
    assert used == set(CAPTIONS) - searched


def test_a_preset_away_from_its_run_still_says_how_its_captions_were_split(kit, earned: Path, tmp_path: Path) -> None:
    beside = kit.plan(str(earned), prompts=_captions(tmp_path)).pairs
    alone = shutil.copy(earned, tmp_path / "alone.json")
    assert kit.plan(str(alone), prompts=_captions(tmp_path)).pairs == beside
    assert {pair.prompt for pair in kit.plan("cfg=3", prompts=_captions(tmp_path)).pairs} == set(CAPTIONS)


def _captions(folder: Path) -> Path:
    file = folder / "captions.txt"
    file.write_text("\n".join(CAPTIONS))
    return file


def test_cfg_is_the_default_or_the_scale_that_is_named(kit) -> None:
    assert contender("cfg", kit.entry, []).spec == GuidanceSpec(cfg_scale=kit.entry.defaults.cfg_scale)
    assert contender("cfg=2.5", kit.entry, []).spec == GuidanceSpec(cfg_scale=2.5)


@pytest.mark.parametrize(
    ("first", "more", "said"),
    [
        ("cfg=much", {}, "--preset cfg=much: the scale of CFG must be a number"),
        ("cfg=nan", {}, "must be a number"),
        ("published", {}, r"nothing is published for open-sora-tiny .* for other sizes of the family: none at all"),
        ("mochi/published", {}, r"the preset mochi/published is for mochi-1 .* its layers mean nothing there"),
        ("mochi/publisht", {}, "there is no preset 'mochi/publisht'.*mochi/published"),
        ("no.json", {}, "cannot read preset no.json"),
        ("cfg", {}, "are the same setting: there is nothing to compare"),
        ("cfg=3", {"pairs": 19}, "--pairs must be at least 20, got 19"),
        ("cfg=3", {"num_steps": 0}, "--steps must be at least 1, got 0"),
        ("cfg=3", {"space": "nosuch"}, "there is no search space 'nosuch'"),
    ],
)
def test_mistakes(kit, first: str, more: dict, said: str) -> None:
    with pytest.raises(StgTuneError, match=said):
        kit.plan(first, **more)


def test_a_folder_holds_one_comparison(kit, tmp_path: Path) -> None:
    plan, out = kit.plan("cfg=3"), tmp_path / "out"
    kit.run(plan, kit.evaluate)
    check_folder(plan, out)
    for changes, said in (
        ({"seed": 1}, "other pairs"),
        ({"num_steps": 3}, "other num_steps"),
        ({"pairs": 40}, "pairs"),
    ):
        with pytest.raises(StgTuneError, match=said):
            check_folder(kit.plan("cfg=3", **changes), out)
    with pytest.raises(StgTuneError, match="other settings"):
        check_folder(kit.plan("cfg=8"), out)
    held = json.loads((out / "comparison.json").read_text())
    (out / "comparison.json").write_text(json.dumps(held | {"versions": {"torch": "1.0"}}))
    with pytest.raises(StgTuneError, match="other versions"):
        check_folder(plan, out)


def test_what_a_setting_is_called_does_not_matter(kit, tmp_path: Path) -> None:
    kit.run(kit.plan(kit.preset("good")), kit.evaluate)
    again = kit.plan(kit.preset("renamed"))
    check_folder(again, tmp_path / "out")
    assert again.identity() == kit.plan(kit.preset("good")).identity()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "other"}', "[" * 100_000])
def test_a_folder_of_something_else_is_left_alone(kit, tmp_path: Path, content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "comparison.json").write_text(content)
    with pytest.raises(StgTuneError, match="give another folder with --out"):
        kit.run(kit.plan("cfg=3"), kit.evaluate)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{}")
    with pytest.raises(StgTuneError, match="is not empty and holds no comparison"):
        kit.run(kit.plan("cfg=3"), kit.evaluate, "other")
    assert [item.name for item in (tmp_path / "other").iterdir()] == ["run.json"]
