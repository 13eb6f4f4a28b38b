"""What is compared on which pairs, and what must not change in one folder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from stg_tune import models
from stg_tune.embedded import digits
from stg_tune.errors import StgTuneError
from stg_tune.evaluate.arms import Arm, Candidate, arms_of, times
from stg_tune.evaluate.checkpoint import checkpoint_of
from stg_tune.evaluate.plan import Folder, pairs_of
from stg_tune.evaluate.run import EvaluationRecipe, with_identity
from stg_tune.evaluate.suites import FEATURES, SUITES, check_samples, least_videos, suite
from stg_tune.records import GuidanceSpec
from stg_tune.score import CompositeScorer, embedded_scorers
from stg_tune.studio import ModelRecipe

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


PROMPTS = ("a red seven moving left", "a blue one moving up", "a green five moving down")


def test_other_settings_in_the_same_folder_are_refused(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    folder = Folder(tmp_path / "run")
    kit.run(folder, painter, scorer, kit.plan_of())
    with pytest.raises(StgTuneError, match=r"with other num_steps \(2 then, 3 here\): go on with the same settings"):
        kit.run(folder, painter, scorer, kit.plan_of(num_steps=3))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"versions": {"torch": "2.1", "numpy": "2"}}, r"versions \(torch \(2.0 then, 2.1 here\)\)"),
        ({"versions": {"torch": "2.0"}}, r"versions \(numpy \(2 then, nothing here\)\)"),
        ({"checkpoint": "b" * 16}, rf"checkpoint \({'a' * 16} then, {'b' * 16} here\)"),
        ({"video": {"height": 64, "num_frames": 17}}, r"video \(num_frames \(9 then, 17 here\)\)"),
        ({"weights": {"motion": "none"}}, r"weights \(motion \(nothing then, none here\)\)"),
        ({"pairs": pairs_of(PROMPTS, samples=12, seeds=4, seed=1)}, "pairs: go on"),
    ],
)
def test_whatever_decides_the_numbers_must_not_change_in_one_folder(
    kit: SimpleNamespace, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    begun = kit.plan_of(
        versions={"torch": "2.0", "numpy": "2"}, checkpoint="a" * 16, video={"height": 64, "num_frames": 9}
    )
    Folder(tmp_path).begin(begun)
    Folder(tmp_path).begin(begun)
    with pytest.raises(StgTuneError, match=f"with other {said}"):
        Folder(tmp_path).begin(replace(begun, **changes))


def test_the_plan_says_weights_checkpoint_and_libraries(
    kit: SimpleNamespace, tmp_path: Path, scorer: CompositeScorer
) -> None:
    model = ModelRecipe(model="open-sora-tiny")
    plan = with_identity(kit.plan_of(), scorer, kit.MeanColour(), model)
    assert plan.weights == {"temporal_flickering": "none", "motion": "none", "extractor": kit.MeanColour.weights}
    assert {"torch", "diffusers", "numpy", "stg-tune"} <= set(plan.versions)
    assert "optuna" not in plan.versions  # it decides what is tried, not what a trial gives
    assert len(plan.checkpoint) == 16
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"one")
    one = checkpoint_of(replace(model, path=tmp_path))
    (tmp_path / ".cache" / "download.json").write_text("when")
    (tmp_path / "README.md").write_text("no part of the model")
    assert checkpoint_of(replace(model, path=tmp_path)) == one != plan.checkpoint
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert checkpoint_of(replace(model, path=tmp_path)) != one
    assert checkpoint_of(ModelRecipe(model="mochi")) == models.entry("mochi").source
    with pytest.raises(StgTuneError, match="holds no files of a model"):
        checkpoint_of(replace(model, path=tmp_path / "nowhere"))


def test_the_scorers_of_the_embedded_models_are_known_by_their_name(tmp_path: Path) -> None:
    recipe = EvaluationRecipe(
        model=ModelRecipe(model="open-sora-tiny"), scorers=("embedded",), extractor="", features=tmp_path
    )
    assert {kind.name for kind in recipe.scorer().kinds} == {kind.name for kind in embedded_scorers().kinds}


def test_a_folder_of_something_else_is_left_alone(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(StgTuneError, match="is not empty and holds no evaluation"):
        kit.run(Folder(tmp_path), painter, scorer, kit.plan_of())
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(StgTuneError, match="is not the plan of an evaluation"):
        kit.run(Folder(tmp_path), painter, scorer, kit.plan_of())


def test_a_curve_runs_every_setting_at_every_scale(kit: SimpleNamespace) -> None:
    mine = Candidate(spec=kit.skipping(2.0), best_cfg=GuidanceSpec(cfg_scale=2.0))  # of which the CFG curve says enough
    arms = arms_of(suite("scale-curve"), 3.0, {"mine": mine})
    assert arms[0].name == "cfg"
    assert sorted(arm.scale for arm in arms if arm.curve == "cfg") == [1.0, 2.0, 3.0, 4.5, 6.0, 9.0]
    strengths = [arm.spec.segments[0].terms[0].stg_scale for arm in arms if arm.curve == "mine"]
    assert strengths == [0.5, 1.0, 2.0, 3.0, 4.0, 6.0]
    assert len({arm.spec.hash() for arm in arms}) == len(arms)
    assert times(kit.skipping(2.0), 1.0) == kit.skipping(2.0)


def test_pairs_go_round_the_prompts_with_noise_of_their_own(kit: SimpleNamespace) -> None:
    pairs = pairs_of([*PROMPTS, PROMPTS[0], " "], samples=8, seeds=4, seed=0)
    assert len({pair.seed for pair in pairs}) == 8
    assert len({pair.prompt for pair in pairs}) == 2
    assert pairs_of(PROMPTS, samples=3, seeds=1, seed=0) != pairs_of(PROMPTS, samples=3, seeds=1, seed=1)
    with pytest.raises(StgTuneError, match="there is no prompt"):
        pairs_of([" "], samples=3, seeds=1, seed=0)


@pytest.mark.parametrize("name", [each.name for each in SUITES])
def test_all_digits_colours_and_directions_occur_on_the_embedded_models(name: str) -> None:
    chosen = suite(name)
    pairs = pairs_of(digits.captions(), samples=chosen.embedded_samples, seeds=chosen.seeds, seed=0)
    truth = np.array([digits.truth(pair.prompt) for pair in pairs])
    assert [len(set(column)) for column in truth.T] == [10, 6, 4]
    check_samples(chosen, "judge", chosen.embedded_samples)
    assert max(np.unique([pair.prompt for pair in pairs], return_counts=True)[1]) == max(
        chosen.seeds, len(pairs) // 240
    )


def test_few_pairs_of_a_sorted_list_see_all_kinds_too() -> None:
    pairs = pairs_of(digits.captions(), samples=60, seeds=1, seed=0)
    assert {digits.truth(pair.prompt)[0] for pair in pairs} == set(range(10))
    assert pairs == pairs_of(digits.captions(), samples=60, seeds=1, seed=0)


@pytest.mark.parametrize(("extractor", "least"), [("judge", 97), ("i3d", 401)])
def test_fewer_videos_than_a_covariance_needs_are_refused(extractor: str, least: int) -> None:
    assert least_videos(extractor) == least
    for name in ("i2v-ucf101", "scale-curve"):
        check_samples(suite(name), extractor, least)
        with pytest.raises(StgTuneError, match=rf"{least - 1} videos .* too few .* type --samples {least} or more"):
            check_samples(suite(name), extractor, least - 1)
    check_samples(suite("t2v"), extractor, 2)
    assert all(each.samples > FEATURES["i3d"] for each in SUITES if each.features)


def test_an_unknown_suite_gets_a_close_match() -> None:
    with pytest.raises(StgTuneError, match="did you mean i2v-ucf101"):
        suite("i2v-ucf")
    assert [each.samples for each in SUITES if each.name == "i2v-ucf101"] == [2048]


def test_two_arms_of_one_name_are_refused(kit: SimpleNamespace) -> None:
    arm = Arm(name="cfg", spec=GuidanceSpec(cfg_scale=3.0))
    with pytest.raises(StgTuneError, match="two arms of one name"):
        kit.plan_of(arms=(arm, arm))
