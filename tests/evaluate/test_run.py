"""A suite over a model that paints squares: what is kept, what is done again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.evaluate.plan import Folder
from stg_tune.evaluate.run import evaluate, known_row, open_tasks
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.executor import InlineExecutor
from stg_tune.search.lock import DriverLock

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

    from stg_tune.evaluate.rows import Row
    from stg_tune.score import CompositeScorer


def test_an_interrupted_run_goes_on_and_ends_with_the_same_table(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    whole = kit.run(Folder(tmp_path / "whole"), kit.Painter(), scorer, kit.plan_of())
    folder, plan = Folder(tmp_path / "parts"), kit.plan_of()
    extractor = kit.MeanColour()

    def stopping(spec: GuidanceSpec, pair: Pair) -> object:
        if painter.calls == 7:
            raise KeyboardInterrupt
        return kit.evaluator(folder, painter, scorer, extractor)(spec, pair)

    with pytest.raises(KeyboardInterrupt):
        evaluate(plan, folder, InlineExecutor(stopping), scorer, extractor)
    with (folder.path / "results.jsonl").open("a") as file:
        file.write('{"config": "torn in the mid')  # what a crash leaves behind
    assert len(folder.rows()) == 7
    again = kit.Painter()
    assert kit.run(folder, again, scorer, plan) == whole
    assert again.calls == 24 - 7
    assert kit.run(folder, again, scorer, plan) == whole
    assert again.calls == 24 - 7


def test_a_pair_whose_features_are_lost_is_done_again(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), kit.plan_of()
    whole = kit.run(folder, painter, scorer, plan)
    next(folder.features.glob("*.safetensors")).unlink()
    again = kit.Painter()
    assert kit.run(folder, again, scorer, plan) == whole
    assert again.calls == 1


def test_batches_give_the_same_table_and_hold_pairs_of_one_setting(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    single = kit.run(Folder(tmp_path / "single"), kit.Painter(), scorer, kit.plan_of())
    together = kit.run(Folder(tmp_path / "together"), painter, scorer, kit.plan_of(), batch=5)
    assert sorted(painter.batches) == [2, 2, 5, 5, 5, 5]
    assert [(row.kind, row.arm, row.samples) for row in together] == [
        (row.kind, row.arm, row.samples) for row in single
    ]
    for ours, alone in zip(together, single, strict=True):
        assert _numbers(ours) == pytest.approx(_numbers(alone), rel=1e-5, abs=1e-7, nan_ok=True)


def _numbers(row: Row) -> list[float]:
    gap = row.difference
    given = (row.mean, row.error, *((gap.mean, gap.low, gap.high) if gap else ()))
    return [float("nan") if value is None else value for value in given]


def test_a_batched_run_that_was_killed_goes_on_with_the_open_pairs_alone(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), kit.plan_of()
    whole = kit.run(folder, painter, scorer, plan, batch=4)
    lines = (folder.path / "results.jsonl").read_text().splitlines()
    (folder.path / "results.jsonl").write_text("\n".join(lines[:10]) + "\n" + lines[10][:40])
    again = kit.Painter()
    assert kit.run(folder, again, scorer, plan, batch=4) == whole
    assert again.calls == 24 - 10
    assert sorted(again.batches) == [2, 4, 4, 4]


def test_a_video_that_fails_takes_no_other_of_its_batch_with_it(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    plan = kit.plan_of("i2v-ucf101", 6)
    plan = replace(plan, pairs=(plan.pairs[0], Pair(prompt="fail", seed=1), *plan.pairs[1:]))
    folder = Folder(tmp_path / "run")
    table = kit.run(folder, painter, scorer, plan, batch=7)
    assert {row.samples for row in table} == {6}
    assert [row.pair.prompt for row in folder.rows().values() if row.error] == ["fail", "fail"]


def test_a_setting_has_its_turn_after_as_many_pairs_as_the_workers_take(kit: SimpleNamespace, tmp_path: Path) -> None:
    plan = kit.plan_of("t2v", 4)
    cfg, stg = (arm.spec.hash() for arm in plan.arms)
    order = [task.spec.hash() for task in open_tasks(plan, Folder(tmp_path), block=3)]
    assert order == [cfg, cfg, cfg, stg, stg, stg, cfg, stg]
    assert [task.spec.hash() for task in open_tasks(plan, Folder(tmp_path))] == [cfg, stg] * 4


def test_workers_of_a_later_session_must_repeat_a_row_of_the_first(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), kit.plan_of("t2v", 4)
    assert known_row(plan, folder) is None
    kit.run(folder, painter, scorer, plan)
    known = known_row(plan, folder)
    assert known is not None
    assert known.task.spec.hash() == known.evaluation.config
    assert known.evaluation.scores == folder.rows()[known.task.spec.hash(), known.task.pair.key].scores


def test_other_real_videos_in_the_same_folder_are_refused(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), kit.plan_of(samples=4)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{name}{number}.mp4").write_bytes(b"x")
    executor = InlineExecutor(kit.evaluator(folder, painter, scorer, kit.MeanColour()))
    table = evaluate(plan, folder, executor, scorer, kit.MeanColour(), data=tmp_path / "one")
    assert evaluate(plan, folder, executor, scorer, kit.MeanColour()) == table  # they were looked at once
    with pytest.raises(StgTuneError, match="was begun with other real videos than"):
        evaluate(plan, folder, executor, scorer, kit.MeanColour(), data=tmp_path / "two")


def test_two_processes_do_not_work_in_one_folder(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    folder = Folder(tmp_path / "run")
    with DriverLock(folder.path):
        (folder.path / "plan.json").write_text(json.dumps(kit.plan_of().to_dict()))
        with pytest.raises(StgTuneError, match="another driver"):
            kit.run(folder, painter, scorer, kit.plan_of())
    assert painter.calls == 0


def test_a_failed_pair_is_left_out_of_both_sides_and_tried_again_later(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    plan = kit.plan_of("i2v-ucf101", 6)
    plan = replace(plan, pairs=(*plan.pairs, Pair(prompt="fail", seed=1)))
    folder = Folder(tmp_path / "run")
    table = kit.run(folder, painter, scorer, plan)
    assert {row.samples for row in table} == {6}
    assert sum(row.error.startswith("nan") for row in folder.rows().values()) == 2
    again = kit.Painter()
    kit.run(folder, again, scorer, plan)
    assert again.calls == 2


@pytest.mark.parametrize("error", ["oom: 1 video", "timeout: 60 s", "nan: a frame", "crash: 3 workers died at it"])
def test_what_failed_is_open_again_whatever_it_was(kit: SimpleNamespace, tmp_path: Path, error: str) -> None:
    folder, plan = Folder(tmp_path / "run"), kit.plan_of("t2v", 2)
    folder.begin(plan)
    for pair in plan.pairs:
        folder.add(Evaluation(config=plan.arms[0].spec.hash(), pair=pair, error=error))
        folder.add(Evaluation(config=plan.arms[1].spec.hash(), pair=pair, scores={"motion": 1.0}))
    assert [task.spec for task in open_tasks(plan, folder)] == [plan.arms[0].spec] * 2
    folder.add(Evaluation(config=plan.arms[0].spec.hash(), pair=plan.pairs[0], scores={"motion": 1.0}))
    assert [task.pair for task in open_tasks(plan, folder)] == [plan.pairs[1]]
