"""A suite over a model that paints squares: what is kept, what is done again, what the table says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.evaluate.distances import Reference
from stg_tune.evaluate.evaluator import PairEvaluator
from stg_tune.evaluate.extractors import Seen
from stg_tune.evaluate.plan import Arm, EvaluationPlan, Folder, arms_of, pairs_of, times
from stg_tune.evaluate.run import evaluate, known_row, open_tasks, with_weights
from stg_tune.evaluate.suites import SUITES, suite
from stg_tune.generate import Generated, GenerationFailedError
from stg_tune.records import GuidanceSpec, Pair, Segment, SkipTerm
from stg_tune.score import CompositeScorer
from stg_tune.score.flicker import TemporalFlickering
from stg_tune.score.motion import Motion
from stg_tune.search.executor import BatchingExecutor, InlineExecutor
from stg_tune.search.lock import DriverLock
from stg_tune.search.statistics import paired_interval
from stg_tune.video import Video

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stg_tune.evaluate.summary import Row


PROMPTS = ("a red seven moving left", "a blue one moving up", "a green five moving down")


def skipping(stg_scale: float) -> GuidanceSpec:
    term = SkipTerm(name="spatial", skip_layers={"spatial": (2,)}, skip_op="residual", stg_scale=stg_scale)
    return GuidanceSpec(cfg_scale=3.0, segments=(Segment(terms=(term,)),))


class Painter:
    """Stands for a model: a square whose brightness is the setting's, and whose place is the noise's."""

    def __init__(self) -> None:
        self.calls = 0
        self.batches: list[int] = []

    def many(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> list[Generated]:
        self.batches.append(len(pairs))
        return [self._one(spec, pair) for pair in pairs]

    def _one(self, spec: GuidanceSpec, pair: Pair) -> Generated:
        self.calls += 1
        if pair.prompt == "fail":
            raise GenerationFailedError("nan", "on purpose")
        rng = torch.Generator().manual_seed(pair.seed)
        frames = (torch.rand(6, 32, 32, 3, generator=rng) * 60).to(torch.uint8)
        strength = sum(term.stg_scale for segment in spec.segments for term in segment.terms)
        for t in range(6):
            frames[t, 8:20, 4 + 2 * t : 16 + 2 * t] = int(100 + 10 * spec.cfg_scale + strength * (15 + pair.seed % 7))
        return Generated(video=Video(frames=frames, fps=8), effects={}, forwards=4.0, seconds=0.01)


class MeanColour:
    """Stands for an extractor: four numbers of the pixels."""

    weights = "0" * 16

    def __call__(self, frames: torch.Tensor, prompt: str) -> Seen:
        flat = frames.double().flatten()
        features = torch.stack([flat.mean(), flat.std(), frames.double()[:, :, 8:20].mean(), flat[:100].mean()])
        chances = torch.tensor([float(c) for c in hashlib.sha256(str(features).encode()).digest()[:5]]).double() + 1
        return Seen(features=features, probabilities=chances / chances.sum(), scores={"bright": float(features[0])})

    def reference(self, data: Path | None, num_frames: int | None = None) -> Reference:
        centre = torch.full((4,), 0.3).double().numpy()
        return Reference(mean=centre, covariance=torch.eye(4).double().numpy() * 0.01, count=7)


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def scorer() -> CompositeScorer:
    return CompositeScorer([TemporalFlickering(), Motion()])


def plan_of(name: str = "scale-curve", samples: int = 12, **changes: object) -> EvaluationPlan:
    chosen = suite(name)
    plan = EvaluationPlan(
        suite=name,
        model="squares",
        num_steps=2,
        arms=(Arm(name="cfg", spec=GuidanceSpec(cfg_scale=3.0)), Arm(name="stg", spec=skipping(2.0))),
        pairs=pairs_of(PROMPTS, samples=samples, seeds=min(chosen.seeds, 4), seed=0),
        scorers=("temporal_flickering", "motion"),
        extractor="judge" if chosen.features else "",
    )
    return replace(plan, **changes)


def run(
    folder: Folder, painter: Painter, scorer: CompositeScorer, plan: EvaluationPlan, *, batch: int = 1
) -> list[Row]:
    extractor = MeanColour() if plan.extractor else None
    here = InlineExecutor(evaluator(folder, painter, scorer, extractor))
    executor = BatchingExecutor(here, batch) if batch > 1 else here
    return evaluate(plan, folder, executor, scorer, extractor, batch=batch)


def evaluator(folder: Folder, painter: Painter, scorer: CompositeScorer, extractor: MeanColour | None) -> PairEvaluator:
    return PairEvaluator(generator=painter, scorer=scorer, extractor=extractor, features=folder.features)


def by_name(table: list[Row]) -> dict[tuple[str, str], Row]:
    return {(row.metric, row.arm): row for row in table}


def test_the_table_has_means_errors_and_paired_differences(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), plan_of()
    table = by_name(run(folder, painter, scorer, plan))
    metrics = {"temporal_flickering", "motion", "bright", "frechet_distance", "inception_score", "diversity"}
    assert set(table) == {(metric, arm) for metric in metrics for arm in ("cfg", "stg")}
    rows = folder.rows()
    values = {
        arm.name: np.array([rows[arm.spec.hash(), pair.key].scores["bright"] for pair in plan.pairs])
        for arm in plan.arms
    }
    brighter = table["bright", "stg"]
    assert brighter.mean == pytest.approx(values["stg"].mean())
    assert brighter.error == pytest.approx(values["stg"].std(ddof=1) / np.sqrt(12))
    assert brighter.difference == pytest.approx((values["stg"] - values["cfg"]).mean())
    expected = paired_interval(list(values["stg"] - values["cfg"]), [pair.prompt for pair in plan.pairs])
    assert (brighter.low, brighter.high) == pytest.approx((expected.low, expected.high))
    assert brighter.low < brighter.difference < brighter.high
    assert table["bright", "cfg"].difference is None


def test_an_interrupted_run_goes_on_and_ends_with_the_same_table(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    whole = run(Folder(tmp_path / "whole"), Painter(), scorer, plan_of())
    folder, plan = Folder(tmp_path / "parts"), plan_of()
    extractor = MeanColour()

    def stopping(spec: GuidanceSpec, pair: Pair) -> object:
        if painter.calls == 7:
            raise KeyboardInterrupt
        return evaluator(folder, painter, scorer, extractor)(spec, pair)

    with pytest.raises(KeyboardInterrupt):
        evaluate(plan, folder, InlineExecutor(stopping), scorer, extractor)
    with (folder.path / "results.jsonl").open("a") as file:
        file.write('{"config": "torn in the mid')  # what a crash leaves behind
    assert len(folder.rows()) == 7
    again = Painter()
    assert run(folder, again, scorer, plan) == whole
    assert again.calls == 24 - 7
    assert run(folder, again, scorer, plan) == whole
    assert again.calls == 24 - 7


def test_a_pair_whose_features_are_lost_is_done_again(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), plan_of()
    whole = run(folder, painter, scorer, plan)
    next(folder.features.glob("*.safetensors")).unlink()
    again = Painter()
    assert run(folder, again, scorer, plan) == whole
    assert again.calls == 1


def test_batches_give_the_same_table_and_hold_pairs_of_one_setting(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    single = run(Folder(tmp_path / "single"), Painter(), scorer, plan_of())
    together = run(Folder(tmp_path / "together"), painter, scorer, plan_of(), batch=5)
    assert sorted(painter.batches) == [2, 2, 5, 5, 5, 5]
    assert [(row.metric, row.arm, row.samples) for row in together] == [
        (row.metric, row.arm, row.samples) for row in single
    ]
    for ours, alone in zip(together, single, strict=True):
        assert _numbers(ours) == pytest.approx(_numbers(alone), rel=1e-5, abs=1e-7, nan_ok=True)


def _numbers(row: Row) -> list[float]:
    given = (row.mean, row.error, row.difference, row.low, row.high)
    return [float("nan") if value is None else value for value in given]


def test_a_batched_run_that_was_killed_goes_on_with_the_open_pairs_alone(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), plan_of()
    whole = run(folder, painter, scorer, plan, batch=4)
    lines = (folder.path / "results.jsonl").read_text().splitlines()
    (folder.path / "results.jsonl").write_text("\n".join(lines[:10]) + "\n" + lines[10][:40])
    again = Painter()
    assert run(folder, again, scorer, plan, batch=4) == whole
    assert again.calls == 24 - 10
    assert sorted(again.batches) == [2, 4, 4, 4]


def test_a_video_that_fails_takes_no_other_of_its_batch_with_it(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    plan = plan_of("i2v-ucf101", 6)
    plan = replace(plan, pairs=(plan.pairs[0], Pair(prompt="fail", seed=1), *plan.pairs[1:]))
    folder = Folder(tmp_path / "run")
    table = run(folder, painter, scorer, plan, batch=7)
    assert {row.samples for row in table} == {6}
    assert [row.pair.prompt for row in folder.rows().values() if row.error] == ["fail", "fail"]


def test_a_setting_has_its_turn_after_as_many_pairs_as_the_workers_take(tmp_path: Path) -> None:
    plan = plan_of("t2v", 4)
    cfg, stg = (arm.spec.hash() for arm in plan.arms)
    order = [task.spec.hash() for task in open_tasks(plan, Folder(tmp_path), block=3)]
    assert order == [cfg, cfg, cfg, stg, stg, stg, cfg, stg]
    assert [task.spec.hash() for task in open_tasks(plan, Folder(tmp_path))] == [cfg, stg] * 4


def test_workers_of_a_later_session_must_repeat_a_row_of_the_first(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), plan_of("t2v", 4)
    assert known_row(plan, folder) is None
    run(folder, painter, scorer, plan)
    known = known_row(plan, folder)
    assert known is not None
    assert known.task.spec.hash() == known.evaluation.config
    assert known.evaluation.scores == folder.rows()[known.task.spec.hash(), known.task.pair.key].scores


def test_other_real_videos_in_the_same_folder_are_refused(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), plan_of(samples=4)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{name}{number}.mp4").write_bytes(b"x")
    executor = InlineExecutor(evaluator(folder, painter, scorer, MeanColour()))
    table = evaluate(plan, folder, executor, scorer, MeanColour(), data=tmp_path / "one")
    assert evaluate(plan, folder, executor, scorer, MeanColour()) == table  # they were looked at once
    with pytest.raises(StgTuneError, match="was begun with other real videos than"):
        evaluate(plan, folder, executor, scorer, MeanColour(), data=tmp_path / "two")


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path, painter: Painter, scorer: CompositeScorer) -> None:
    folder = Folder(tmp_path / "run")
    with DriverLock(folder.path):
        (folder.path / "plan.json").write_text(json.dumps(plan_of().to_dict()))
        with pytest.raises(StgTuneError, match="another driver"):
            run(folder, painter, scorer, plan_of())
    assert painter.calls == 0


def test_other_settings_in_the_same_folder_are_refused(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    folder = Folder(tmp_path / "run")
    run(folder, painter, scorer, plan_of())
    with pytest.raises(StgTuneError, match="with other num_steps: go on with the same settings"):
        run(folder, painter, scorer, plan_of(num_steps=3))
    with pytest.raises(StgTuneError, match="with other weights"):
        folder.begin(with_weights(plan_of(), scorer, MeanColour()))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, painter: Painter, scorer: CompositeScorer) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(StgTuneError, match="is not empty and holds no evaluation"):
        run(Folder(tmp_path), painter, scorer, plan_of())
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(StgTuneError, match="is not the plan of an evaluation"):
        run(Folder(tmp_path), painter, scorer, plan_of())


def test_a_failed_pair_is_kept_as_such_and_left_out_of_both_sides(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    plan = plan_of("i2v-ucf101", 6)
    plan = replace(plan, pairs=(*plan.pairs, Pair(prompt="fail", seed=1)))
    folder = Folder(tmp_path / "run")
    table = run(folder, painter, scorer, plan)
    assert {row.samples for row in table} == {6}
    assert sum(row.error.startswith("nan") for row in folder.rows().values()) == 2
    again = Painter()
    run(folder, again, scorer, plan)
    assert again.calls == 0


def test_without_a_network_for_sets_only_pairs_are_compared(
    tmp_path: Path, painter: Painter, scorer: CompositeScorer
) -> None:
    table = run(Folder(tmp_path / "run"), painter, scorer, plan_of("t2v", 4))
    assert {row.metric for row in table} == {"temporal_flickering", "motion"}
    assert all(json.dumps(row.to_dict(), allow_nan=False) for row in table)


def test_a_curve_runs_every_setting_at_every_scale() -> None:
    arms = arms_of(suite("scale-curve"), 3.0, {"mine": skipping(2.0)})
    assert arms[0].name == "cfg"
    assert sorted(arm.scale for arm in arms if arm.curve == "cfg") == [1.0, 2.0, 3.0, 4.5, 6.0, 9.0]
    strengths = [arm.spec.segments[0].terms[0].stg_scale for arm in arms if arm.curve == "mine"]
    assert strengths == [0.5, 1.0, 2.0, 3.0, 4.0, 6.0]
    assert len({arm.spec.hash() for arm in arms}) == len(arms)
    assert times(skipping(2.0), 1.0) == skipping(2.0)


def test_pairs_go_round_the_prompts_with_noise_of_their_own() -> None:
    pairs = pairs_of([*PROMPTS, PROMPTS[0], " "], samples=8, seeds=4, seed=0)
    assert len({pair.seed for pair in pairs}) == 8
    assert {pair.prompt for pair in pairs} == set(PROMPTS[:2])
    assert pairs_of(PROMPTS, samples=3, seeds=1, seed=0) != pairs_of(PROMPTS, samples=3, seeds=1, seed=1)
    with pytest.raises(StgTuneError, match="there is no prompt"):
        pairs_of([" "], samples=3, seeds=1, seed=0)


def test_an_unknown_suite_gets_a_close_match() -> None:
    with pytest.raises(StgTuneError, match="did you mean i2v-ucf101"):
        suite("i2v-ucf")
    assert [each.samples for each in SUITES if each.name == "i2v-ucf101"] == [2048]


def test_two_arms_of_one_name_are_refused() -> None:
    arm = Arm(name="cfg", spec=GuidanceSpec(cfg_scale=3.0))
    with pytest.raises(StgTuneError, match="two arms of one name"):
        plan_of(arms=(arm, arm))
