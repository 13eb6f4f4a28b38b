"""Scorers that an objective names reach a search, and a run that goes on has the same ones."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune import models, tune
from stg_tune.compare import plan as comparison
from stg_tune.errors import NotReachableError, StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.records import ScoreKind
from stg_tune.score import conformance
from stg_tune.score.choice import FILE, NOTHING_ELSE, ScorerChoice, keep_choice, kept_choice
from stg_tune.score.registry import DEFAULT, EMBEDDED
from stg_tune.search import load_run, load_space
from stg_tune.search.plan import Allowance, RunFile
from stg_tune.studio import ModelRecipe, Studio, check_same, scorer_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stg_tune.score.composite import CompositeScorer


@pytest.fixture
def space(tmp_path: Path) -> Callable[[str, str], Path]:
    """A shipped space whose objective names one scorer more."""
    import yaml

    from stg_tune.search import space_file

    def write(model: str, scorer: str) -> Path:
        entry = models.entry(model)
        own = entry.name if entry.name in space_file.space_names() else entry.architecture.family
        content = yaml.safe_load((space_file._folder() / f"{own}.yaml").read_text(encoding="utf-8"))
        content["objective"]["weights"][scorer] = 1.0
        file = tmp_path / "space.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        assert scorer in load_space(file).objective.scorers
        return file

    return write


@pytest.fixture
def redness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A scorer of another package, as pip leaves it behind."""
    info = tmp_path / "site" / "redness-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "redness_of_choice.py").write_text(
        "from stg_tune.records import ScoreKind\n"
        "from stg_tune.score.base import scored\n"
        "class Redness:\n"
        "    requires = 'picture'\n"
        "    kind = ScoreKind(name='redness', direction='maximize', low=0.0, high=1.0, unit='mean red')\n"
        "    def __call__(self, view, prompt):\n"
        "        return scored(self.kind, float(view.frames[:, 0].mean()))\n"
        "def build(parts):\n"
        "    return Redness()\n"
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: redness\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stg_tune.scorers]\nredness = redness_of_choice:build\n")
    monkeypatch.syspath_prepend(str(info.parent))
    return "redness"


def choose(*named: str, embedded: bool = False, fast: bool = False, weights: Path | None = None) -> ScorerChoice:
    return ScorerChoice.of(named, embedded=embedded, fast=fast, weights=weights)


def test_the_names_of_the_embedded_scorers(scorers: CompositeScorer) -> None:
    assert tuple(kind.name for kind in scorers.kinds) == EMBEDDED


def test_what_an_objective_names_comes_to_the_models_own_scorers() -> None:
    assert choose("aesthetic", "motion") == NOTHING_ELSE
    assert choose("aesthetic", "musiq", "musiq").more == ("musiq",)
    assert choose("aesthetic_v2", "optical_flow").more == ("aesthetic_v2", "optical_flow")
    assert choose("temporal_flickering", embedded=True).more == ("temporal_flickering",)
    assert choose("temporal_flickering") == NOTHING_ELSE


def test_mistakes_are_found_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(StgTuneError, match="unknown scorer 'esthetic': did you mean aesthetic"):
        choose("esthetic")
    with pytest.raises(StgTuneError, match="aesthetic_v2 is published for CLIP vit-l-14 only"):
        choose("aesthetic_v2", fast=True)
    with pytest.raises(StgTuneError, match="there is no such folder; name one that holds the scorers' files"):
        choose(weights=tmp_path / "none")
    for option in ({"fast": True}, {"weights": tmp_path}):
        with pytest.raises(StgTuneError, match="this model brings scorers of its own, which need none: leave out --"):
            choose("aesthetic", embedded=True, **option)
    assert choose("musiq", embedded=True, weights=tmp_path).weights == tmp_path.resolve()


def test_a_choice_is_kept_with_the_run(tmp_path: Path) -> None:
    chosen = choose("musiq", fast=True, weights=tmp_path)
    keep_choice(chosen, tmp_path)
    assert kept_choice(tmp_path) == chosen
    for damage in ("{", "[]", json.dumps({"schema": "other", "more": [], "fast": True, "weights": None})):
        (tmp_path / FILE).write_text(damage)
        with pytest.raises(StgTuneError, match="does not say which scorers the run has"):
            kept_choice(tmp_path)


def test_a_run_without_a_choice_has_no_file(tmp_path: Path) -> None:
    keep_choice(NOTHING_ELSE, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert kept_choice(tmp_path) == NOTHING_ELSE


def test_a_search_scores_by_what_its_objective_names_and_goes_on_with_it(
    space: Callable[[str, str], Path], redness: str, tmp_path: Path
) -> None:
    entry = models.entry("open-sora-tiny")
    request = tune.Request(model=entry.name, space=str(space(entry.name, redness)))
    recipe = ModelRecipe(model=entry.name, scorers=tune.scorers_of(request, entry))
    scorer = Studio(pickle.loads(pickle.dumps(recipe))).scorer  # as a worker gets it
    assert [kind.name for kind in scorer.kinds] == [*EMBEDDED, redness]
    (row,) = scorer(conformance.moving_ball()[None], ["a red seven moving left"])
    assert row[redness].value == pytest.approx(float(conformance.moving_ball()[:, 0].mean()), abs=1e-6)

    folder = RunFolder.new(tmp_path / "run")
    folder.make()
    keep_choice(recipe.scorers, folder.path)
    plan = tune.draft_plan(request, entry)(scorer)
    RunFile(plan=plan, storage="", allowances=(Allowance(budget="small"),)).save(folder.path)
    resumed = ModelRecipe.of(load_run(folder.path).plan, RunFolder.open(folder.path))
    assert resumed.scorers == recipe.scorers
    check_same(plan, Studio(resumed).scorer)
    assert f"scorer {redness}" in resumed.identity()


def test_a_comparison_judges_by_what_its_objective_names(space: Callable[[str, str], Path], redness: str) -> None:
    entry = models.entry("open-sora-tiny")
    request = comparison.ComparisonRequest(
        model=entry.name, first="cfg=3", pairs=20, space=str(space(entry.name, redness))
    )
    scorer = scorer_for(entry, comparison.scorers_of(request, entry))
    plan = comparison.draft_comparison(request, entry)(scorer)
    assert redness in {kind.name for kind in plan.scorers}


def test_a_comparison_with_the_smaller_clip_is_another_one() -> None:
    entry = models.entry("mochi")
    kinds = tuple(
        ScoreKind(name=name, direction="maximize", low=0.0, high=1.0, unit="points", weights="none") for name in DEFAULT
    )
    request = comparison.ComparisonRequest(model=entry.name, first="cfg=3", pairs=20)
    exact, fast = (
        comparison.draft_comparison(replace(request, fast=fast), entry)(SimpleNamespace(kinds=kinds))
        for fast in (False, True)
    )
    assert exact.identity() != fast.identity()
    assert "fast" not in exact.to_dict()


@pytest.mark.parametrize(("scorer", "fast"), [("musiq", False), ("aesthetic_v2", False), ("optical_flow", True)])
def test_real_models_ask_for_the_files_of_what_the_objective_names(
    scorer: str, fast: bool, space: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    entry = models.entry("open-sora")
    request = tune.Request(model=entry.name, space=str(space(entry.name, scorer)), fast=fast, weights=tmp_path)
    with pytest.raises(NotReachableError) as caught:
        scorer_for(entry, tune.scorers_of(request, entry))
    files = {"musiq": "musiq_spaq", "aesthetic_v2": "sac+logos", "optical_flow": "raft_small"}
    assert files[scorer] in str(caught.value)
    assert ("clip-vit-b-32" in str(caught.value)) == fast
    assert ("clip-vit-l-14" in str(caught.value)) == (not fast)


def test_a_folder_of_weights_and_the_environments_are_both_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose folder of weights has moved goes on with ``STG_TUNE_WEIGHTS``."""
    from stg_tune.score.library import Library

    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        torch.save({}, folder / "sa_0_4_vit_l_14_linear.pth")
    monkeypatch.setenv("STG_TUNE_WEIGHTS", str(second))
    name = "laion-aesthetic-v1-vit-l-14"
    assert Library(first).find(name).parent == first
    (first / "sa_0_4_vit_l_14_linear.pth").unlink()
    assert Library(first).find(name).parent == second
