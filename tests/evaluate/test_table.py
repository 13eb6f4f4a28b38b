"""What the table says, and the small result that is left in the folder."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from stg_tune.embedded import digits
from stg_tune.evaluate.arms import Candidate, arms_of
from stg_tune.evaluate.distances import RESAMPLES, Reference, clustered_error, frechet_distance, resamples
from stg_tune.evaluate.extractors import JudgeExtractor
from stg_tune.evaluate.plan import Folder, pairs_of
from stg_tune.evaluate.result import summary_of
from stg_tune.evaluate.rows import Difference
from stg_tune.evaluate.run import evaluate
from stg_tune.evaluate.sets import Sets
from stg_tune.evaluate.suites import least_videos, suite
from stg_tune.evaluate.summary import summarise
from stg_tune.generate import Generated
from stg_tune.records import Evaluation, GuidanceSpec, Pair, ScoreKind
from stg_tune.search.executor import InlineExecutor
from stg_tune.search.statistics import paired_interval
from stg_tune.video import Video

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import SimpleNamespace

    from stg_tune.score import CompositeScorer


def test_the_table_has_means_errors_and_paired_differences(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    folder, plan = Folder(tmp_path / "run"), kit.plan_of()
    table = kit.by_name(kit.run(folder, painter, scorer, plan))
    metrics = {"temporal_flickering", "motion", "bright", "frechet_distance", "inception_score", "diversity"}
    assert set(table) == {(metric, arm) for metric in metrics for arm in ("cfg", "stg")}
    rows = folder.rows()
    values = {
        arm.name: np.array([rows[arm.spec.hash(), pair.key].scores["bright"] for pair in plan.pairs])
        for arm in plan.arms
    }
    brighter = table["bright", "stg"]
    assert brighter.mean == pytest.approx(values["stg"].mean())
    prompts = [pair.prompt for pair in plan.pairs]
    assert brighter.error == pytest.approx(clustered_error(list(values["stg"]), prompts))
    expected = paired_interval(list(values["stg"] - values["cfg"]), prompts)
    assert brighter.difference == Difference(mean=expected.mean, low=expected.low, high=expected.high)
    assert brighter.difference.mean == pytest.approx((values["stg"] - values["cfg"]).mean())
    assert table["bright", "cfg"].difference is None
    assert brighter.alone is None


def test_a_preset_is_compared_with_its_best_cfg_alone_as_well(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    arms = arms_of(
        suite("i2v-ucf101"),
        3.0,
        {
            "mine": Candidate(spec=kit.skipping(2.0), best_cfg=GuidanceSpec(cfg_scale=2.0)),
            "bare": Candidate(spec=kit.skipping(1)),
        },
    )
    assert [(arm.name, arm.alone) for arm in arms] == [
        ("cfg", ""),
        ("mine: CFG alone", ""),
        ("mine", "mine: CFG alone"),
        ("bare", ""),
    ]
    table = kit.by_name(kit.run(Folder(tmp_path / "run"), painter, scorer, kit.plan_of("i2v-ucf101", 8, arms=arms)))
    for metric in ("bright", "frechet_distance", "inception_score"):
        mine, alone, bare = (table[metric, name] for name in ("mine", "mine: CFG alone", "bare"))
        assert mine.alone.mean == pytest.approx(mine.mean - alone.mean)
        assert mine.difference.mean == pytest.approx(mine.mean - table[metric, "cfg"].mean)
        assert mine.alone != mine.difference
        assert mine.alone.low < mine.alone.high
        assert alone.alone is None
        assert alone.difference is not None
        assert bare.alone is None
    assert table["bright", "mine"].to_dict()["difference_to_cfg_alone"]["mean"] == table["bright", "mine"].alone.mean


def test_means_are_over_the_pairs_that_both_settings_have_and_the_others_are_counted(kit: SimpleNamespace) -> None:
    plan = kit.plan_of("t2v", 6)
    cfg, stg = (arm.spec.hash() for arm in plan.arms)
    kind = ScoreKind(name="motion", direction="maximize", low=0.0, high=float("inf"), unit="pixels")
    rows = {}
    for number, pair in enumerate(plan.pairs):
        rows[cfg, pair.key] = Evaluation(config=cfg, pair=pair, scores={"motion": float(number)})
        rows[stg, pair.key] = Evaluation(config=stg, pair=pair, scores={"motion": 10.0 + number})
    rows[cfg, plan.pairs[0].key] = Evaluation(config=cfg, pair=plan.pairs[0], error="nan: on purpose")
    rows[stg, plan.pairs[1].key] = Evaluation(config=stg, pair=plan.pairs[1], unscored={"motion": "frozen"})
    rows[stg, plan.pairs[2].key] = Evaluation(config=stg, pair=plan.pairs[2], error="oom: on purpose")
    baseline, skipped = summarise(plan, rows, [kind], None)
    assert (baseline.samples, baseline.failed, baseline.unscored) == (5, 1, 0)
    assert (skipped.samples, skipped.failed, skipped.unscored) == (3, 1, 1)
    assert baseline.mean == pytest.approx(np.mean([1, 2, 3, 4, 5]))
    assert skipped.mean == pytest.approx(np.mean([13, 14, 15]))  # not of pair 0, of which the baseline has no video
    assert skipped.difference.mean == pytest.approx(10.0)
    plain = skipped.to_dict()
    assert (plain["failed"], plain["unscored"]) == (1, 1)
    assert (plain["unit"], plain["direction"], plain["low"], plain["high"]) == ("pixels", "maximize", 0.0, None)


def test_a_setting_without_any_score_is_a_row_without_a_number(kit: SimpleNamespace) -> None:
    plan = kit.plan_of("t2v", 3)
    cfg = plan.arms[0].spec.hash()
    kind = ScoreKind(name="motion", direction="maximize", low=0.0, high=1.0, unit="pixels")
    rows = {(cfg, pair.key): Evaluation(config=cfg, pair=pair, scores={"motion": 1.0}) for pair in plan.pairs}
    baseline, skipped = summarise(plan, rows, [kind], None)
    assert baseline.mean == 1.0
    assert (skipped.mean, skipped.error, skipped.difference, skipped.failed) == (None, None, None, 3)


def test_a_set_that_failures_have_made_too_small_has_no_number(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    plan = kit.plan_of("i2v-ucf101", 4)
    table = kit.by_name(kit.run(Folder(tmp_path / "run"), painter, scorer, plan))  # four features
    assert table["frechet_distance", "stg"].mean is None
    assert table["inception_score", "cfg"].samples == 4
    assert table["bright", "stg"].mean is not None


def test_a_small_result_is_left_in_the_folder(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    plan = kit.plan_of("i2v-ucf101", 8, versions={"torch": "1.0"}, model=str(tmp_path / "squares"))
    plan = replace(plan, pairs=(*plan.pairs, Pair(prompt="fail", seed=1)))
    table = kit.run(Folder(tmp_path / "run"), painter, scorer, plan)
    text = (tmp_path / "run" / "summary.json").read_text()
    assert str(tmp_path) not in text
    found = json.loads(text)
    assert found["schema"] == "stg-tune/evaluation-summary/1"
    assert (found["suite"], found["model"], found["versions"]) == ("i2v-ucf101", "squares", {"torch": "1.0"})
    assert found["plan"]["pairs"]["number"] == 9
    assert len(found["plan"]["pairs"]["sha256"]) == 64
    assert found["plan"]["num_steps"] == 2
    assert found["failed"] == {"cfg": 1, "stg": 1}
    assert found["rows"] == [row.to_dict() for row in table]
    lines = list(csv.DictReader((tmp_path / "run" / "table.csv").open()))
    assert len(lines) == len(table)
    assert {"unit", "low", "high", "direction", "difference_low", "difference_to_cfg_alone", "failed"} <= set(lines[0])
    for line, row in zip(lines, table, strict=True):
        assert line["metric"] == row.kind.name
        assert float(line["mean"]) == row.mean
        assert line["difference"] == ("" if row.difference is None else repr(row.difference.mean))
    other = replace(plan, pairs=plan.pairs[1:])
    assert summary_of(other, table)["plan"]["pairs"]["sha256"] != found["plan"]["pairs"]["sha256"]


class CountedReference:
    """Counts how often a distance is measured."""

    def __init__(self) -> None:
        self.mean, self.covariance, self.looked = np.zeros(2), np.eye(2), 0

    @property
    def root(self) -> np.ndarray:
        self.looked += 1
        return np.eye(2)


def test_set_metrics_draw_prompts_and_measure_every_setting_once(kit: SimpleNamespace) -> None:
    plan = kit.plan_of("scale-curve", 12)
    seen = {pair.key: torch.from_numpy(np.random.default_rng(pair.seed).normal(size=2)) for pair in plan.pairs}

    def load(config: str, key: str) -> dict[str, torch.Tensor]:
        return {
            "features": seen[key] * (1 if config == plan.arms[0].spec.hash() else 2),
            "probabilities": torch.ones(1),
        }

    done = {
        (arm.spec.hash(), pair.key): Evaluation(config=arm.spec.hash(), pair=pair)
        for arm in plan.arms
        for pair in plan.pairs
    }
    reference = CountedReference()
    table = kit.by_name(summarise(plan, done, [], Sets(load=load, reference=reference)))
    assert reference.looked == 2 * len(plan.arms) * (1 + RESAMPLES)  # twice in the formula; the baseline's are kept
    one, two = (np.stack([seen[pair.key].numpy() * factor for pair in plan.pairs]) for factor in (1, 2))
    real = Reference(mean=np.zeros(2), covariance=np.eye(2), count=0)
    draws = resamples([pair.prompt for pair in plan.pairs])
    ours, theirs = (np.array([frechet_distance(rows[draw], real) for draw in draws]) for rows in (two, one))
    row = table["frechet_distance", "stg"]
    assert row.error == pytest.approx(ours.std(ddof=1))
    off = ours - theirs - (ours - theirs).mean()
    low, high = np.quantile(off, [0.025, 0.975])
    assert (row.difference.low, row.difference.high) == pytest.approx(
        (row.difference.mean - high, row.difference.mean - low)
    )


class Renderer:
    """Stands for a perfect model: real digit videos, and for every setting but the baseline's noise over them."""

    def many(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> list[Generated]:
        return [self._one(spec, pair) for pair in pairs]

    def _one(self, spec: GuidanceSpec, pair: Pair) -> Generated:
        frames = torch.from_numpy(digits.render_caption(pair.prompt, "test", pair.seed))
        if spec.segments:
            noise = torch.randint(0, 200, frames.shape, generator=torch.Generator().manual_seed(pair.seed))
            frames = (0.5 * frames + 0.5 * noise).to(torch.uint8)
        return Generated(video=Video(frames=frames, fps=8), effects={}, forwards=1.0, seconds=0.0)


def test_the_judge_sees_how_far_a_set_is_from_real_videos(
    kit: SimpleNamespace, tmp_path: Path, scorer: CompositeScorer
) -> None:
    pairs = pairs_of(digits.captions(), samples=least_videos("judge"), seeds=1, seed=0)
    folder, plan, judge = Folder(tmp_path / "run"), kit.plan_of("i2v-ucf101", pairs=pairs), JudgeExtractor()
    table = kit.by_name(
        evaluate(plan, folder, InlineExecutor(kit.evaluator(folder, Renderer(), scorer, judge)), scorer, judge)
    )
    near, far = table["frechet_distance", "cfg"], table["frechet_distance", "stg"]
    assert 0 < near.mean < far.mean / 3
    assert far.difference.low > 0
    assert far.difference.mean == pytest.approx(far.mean - near.mean)
    assert table["inception_score", "cfg"].mean > table["inception_score", "stg"].mean > 1
    assert table["digit_right", "cfg"].mean > 0.9
    assert table["digit_right", "cfg"].kind.unit == "share"


def test_without_a_network_for_sets_only_pairs_are_compared(
    kit: SimpleNamespace, tmp_path: Path, painter: Any, scorer: CompositeScorer
) -> None:
    table = kit.run(Folder(tmp_path / "run"), painter, scorer, kit.plan_of("t2v", 4))
    assert {row.kind.name for row in table} == {"temporal_flickering", "motion"}
    assert all(json.dumps(row.to_dict(), allow_nan=False) for row in table)
