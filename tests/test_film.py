"""Clips for a vote: what the run has filmed is used, what is missing is made with the run's own model."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from stg_tune import models, preset
from stg_tune.errors import StgTuneError
from stg_tune.film import ballot_of
from stg_tune.preset import Preset
from stg_tune.records import GuidanceSpec
from stg_tune.search import load_run, snapshot
from stg_tune.video import read_video


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """With the default's clip of the last held-out pair."""
    folder = shutil.copytree(finished_run, tmp_path / "run")
    pair = load_run(folder).plan.holdout_pairs[-1]
    shutil.rmtree(folder / "videos", ignore_errors=True)
    (folder / "videos").mkdir()
    (folder / "videos" / f"{pair.key}-default.mp4").write_bytes(b"filmed before")
    return folder


@pytest.fixture
def found(run: Path, tmp_path: Path) -> Path:
    """The winner of the run as a preset file."""
    entry = models.entry("open-sora-tiny")
    made = Preset(
        name="found",
        family=entry.architecture.family,
        model=entry.name,
        checkpoint="embedded",
        revision="",
        stacks=entry.depths,
        spec=snapshot(run).verdict.winner,
        generation=entry.defaults,
    )
    preset.save(made, tmp_path / "found.json")
    preset.save(replace(made, spec=GuidanceSpec(cfg_scale=2.0)), tmp_path / "plain.json")
    return tmp_path


def test_only_what_is_missing_is_filmed(run: Path, found: Path) -> None:
    told: list[str] = []
    ballot = ballot_of(run, pairs=1, tell=told.append)
    (item,) = ballot.items
    assert item.pair == load_run(run).plan.holdout_pairs[-1]
    assert item.a.read_bytes() == b"filmed before"
    assert read_video(item.b).frames.shape == (17, 64, 64, 3)
    assert told == ["filming 1 clips with open-sora-tiny", "1 of 1 clips"]
    assert sorted(file.name for file in item.b.parent.iterdir()) == sorted([item.a.name, item.b.name])
    told.clear()
    named = ballot_of(run, presets=[str(found / "plain.json"), str(found / "found.json")], pairs=1, tell=told.append)
    assert named == ballot  # the same settings by another way: the same clips and the same names for the votes
    assert told == []


def test_a_setting_against_itself_is_no_vote(run: Path, found: Path) -> None:
    with pytest.raises(StgTuneError, match="nothing to vote on"):
        ballot_of(run, presets=[str(found / "found.json"), str(found / "found.json")], pairs=1)
