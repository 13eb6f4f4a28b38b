"""Preset and verdict stay in step: extended, resumed, voted on, damaged."""

import json
import random
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import pytest
import torch

from stg_tune import tune
from stg_tune.cli.search import say_outcome
from stg_tune.folder import RunFolder
from stg_tune.models import entry
from stg_tune.outcome import keep_preset, look, with_votes
from stg_tune.preset import Preset, from_result, load, save
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.report import render
from stg_tune.search import SearchPlan, load_run, snapshot
from stg_tune.search.progress import silent
from stg_tune.search.verdict import Verdict
from stg_tune.search.workers.placement import Placement, lay_out
from stg_tune.studio import ModelRecipe
from stg_tune.video import Video
from stg_tune.vote import Vote, VoteFile


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(copytree(finished_run, tmp_path / "run"))


def _verdict(run: Path) -> Verdict:
    verdict = snapshot(run).verdict
    assert verdict is not None
    return verdict


def _found(run: Path, *, date: str = "2026-01-01") -> Preset:
    generation = entry("open-sora-tiny").defaults
    return from_result(snapshot(run), family="open-sora", checkpoint="embedded", generation=generation, date=date)


def _no_gain(verdict: Verdict) -> Verdict:
    return replace(verdict, improved=False, reason="the chosen setting cannot be told from the default")


def test_a_preset_that_the_verdict_no_longer_speaks_for_is_set_aside(run: Path) -> None:
    file, verdict = run / "preset.json", _verdict(run)
    save(_found(run), file)
    text = file.read_text(encoding="utf-8")
    kept = keep_preset(file, None, _no_gain(verdict))
    assert kept.preset is None
    assert not file.exists()
    assert kept.set_aside == run / "preset-earlier-1.json"
    assert kept.set_aside.read_text(encoding="utf-8") == text
    assert "cannot be told from the default" in (run / "preset-earlier-1.txt").read_text(encoding="utf-8")
    assert keep_preset(file, None, None) == replace(kept, set_aside=None)


def test_a_preset_of_another_setting_makes_room_and_is_not_lost(run: Path) -> None:
    file, found = run / "preset.json", _found(run)
    other = replace(found, name="other", spec=GuidanceSpec(cfg_scale=7.0))
    for number, earlier in enumerate((other, replace(other, name="third")), start=1):
        save(earlier, file)
        assert keep_preset(file, found, _verdict(run)).set_aside == run / f"preset-earlier-{number}.json"
        assert load(file) == found
    assert [load(path).name for path in sorted(run.glob("preset-earlier-*.json"))] == ["other", "third"]


def test_a_preset_that_says_the_same_stays_as_it_is_with_name_date_and_votes(run: Path) -> None:
    file, verdict = run / "preset.json", _verdict(run)
    pair = snapshot(run).plan.holdout_pairs[0]
    tuned = f"tuned-{verdict.winner.hash()}"
    words = {"voter": "Ada", "pair": pair.key, "prompt": pair.prompt, "seed": pair.seed, "question": "quality"}
    vote = Vote(**words, a="default", b=tuned, choice="b", left="a", time="2026-01-01T00:00:00Z")
    VoteFile(run / "votes.json").cast(vote, {"default": "CFG 2", tuned: "tuned"})
    found = replace(_found(run), generation=replace(entry("open-sora-tiny").defaults, num_inference_steps=8))
    save(with_votes(replace(found, name="mine"), run), file)
    before, text = file.stat().st_mtime_ns, file.read_text(encoding="utf-8")
    assert '"votes"' in text
    later = replace(found, name="new", evidence=replace(found.evidence, date="2027-02-02"))
    assert keep_preset(file, later, verdict).set_aside is None
    assert (file.stat().st_mtime_ns, file.read_text(encoding="utf-8")) == (before, text)
    more = replace(later, evidence=replace(later.evidence, evaluations=900, budget="900"))
    keep_preset(file, more, verdict)
    written = load(file)
    assert (written.name, written.evidence.date, written.evidence.evaluations) == ("new", "2027-02-02", 900)
    assert written.evidence.votes == load(file).evidence.votes != ()


def test_a_damaged_preset_is_set_aside_and_written_again(run: Path) -> None:
    file = run / "preset.json"
    file.write_text("{torn")
    kept = keep_preset(file, _found(run), _verdict(run))
    assert load(file) == _found(run)
    assert kept.set_aside is not None
    assert kept.set_aside.read_text() == "{torn"


def test_a_page_shows_no_preset_of_another_verdict(run: Path, fruitless_run: Path) -> None:
    save(_found(run), run / "preset.json")
    assert look(run).preset is not None
    save(replace(_found(run), spec=GuidanceSpec(cfg_scale=7.0)), run / "preset.json")
    without = look(run)
    assert without.preset is None
    assert "stg-tune resume DIR" in render(without)
    folder = Path(copytree(fruitless_run, run.parent / "fruitless"))
    save(_found(run), folder / "preset.json")
    page = render(look(folder))
    assert "keep the default" in page
    assert 'id="preset"' not in page
    assert "guided(pipe" not in page


class Grey:
    """A studio without a model: made-up scores, and the same small clip of everything.

    Args:
        plan: Names default and scorers.
        gain: Of skipping spatial block 4; every other block costs a point, any other CFG nothing.
    """

    recipe = ModelRecipe(model="open-sora-tiny")
    entry = entry("open-sora-tiny")
    defaults = replace(entry.defaults, num_inference_steps=8)

    def __init__(self, plan: SearchPlan, gain: float) -> None:
        self.generator, self._plan, self._gain = self, plan, gain

    def previewing(self, folder: Path, pair: Pair) -> "Grey":
        return self

    def __call__(self, spec: GuidanceSpec, pair: Pair) -> SimpleNamespace:
        frames = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
        return SimpleNamespace(video=Video(frames=frames, fps=8), effect_series={})

    def evaluate(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        terms = [term for segment in spec.segments for term in segment.terms if term.stg_scale]
        layers = [(stack, layer) for term in terms for stack, found in term.skip_layers.items() for layer in found]
        gain = sum(self._gain if place == ("spatial", 4) else -1.0 for place in layers)
        gain += random.Random(f"{pair.key} {spec.hash()}").gauss(0, 0.05)
        level = random.Random(pair.key).gauss(5, 1)
        signs = {kind.name: 1.0 if kind.direction == "maximize" else -1.0 for kind in self._plan.scorers}
        scores = {name: level + sign * gain for name, sign in signs.items()} | {"motion": 2.0}
        return Evaluation(config=spec.hash(), pair=pair, scores=scores, seconds=0.01, forwards=16.0)


def test_a_run_that_is_extended_to_no_improvement_leaves_no_preset_behind(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plan = RunFolder.new(tmp_path / "run"), load_run(finished_run).plan
    inline = lay_out(Placement(workers=1), gpus=0, worker_bytes=1)

    def search(budget: str, gain: float) -> tune.Outcome:
        own = replace(plan, budget=budget)
        return tune._search(own, folder, Grey(own, gain), inline, storage=None, progress=silent)

    first = search("150", 1.0)
    assert first.preset == folder.preset
    text = folder.preset.read_text(encoding="utf-8")
    assert search("150", 1.0).set_aside is None
    assert folder.preset.read_text(encoding="utf-8") == text
    extended = search("400", -3.0)
    assert not extended.improved
    assert extended.preset is None
    assert extended.set_aside is not None
    assert extended.set_aside.read_text(encoding="utf-8") == text
    assert say_outcome(extended, folder.path, as_json=False) == 3
    out = capsys.readouterr().out
    assert "preset:    none, because nothing was proved better than the default" in out
    assert f"the earlier one is now {extended.set_aside}" in out
    assert f"{extended.result.verdict.reason[1:]}." in out
    assert say_outcome(extended, folder.path, as_json=True) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["preset"], told["set_aside"]) == (None, str(extended.set_aside))
    assert told["conclusion"] == extended.result.verdict.conclusion == "worse"
    page = extended.report.read_text(encoding="utf-8")
    assert "No improvement found" in page
    assert "stg-tune resume DIR --budget LARGER" in page
    assert 'id="preset"' not in page
