"""The paper's comparisons: arms are kept and never made twice, differences are paired, claims are weighed honestly."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from stg_tune import models
from stg_tune.embedded import digits, paper_arms, paper_page, paper_tables
from stg_tune.embedded.joint import JointReference
from stg_tune.embedded.judge import Judge, JudgeNetwork
from stg_tune.embedded.paper_arms import PICTURE, Arms, Seen, compare, measures
from stg_tune.embedded.paper_designs import Chosen, Claim, designs
from stg_tune.embedded.truth import truth_pairs
from stg_tune.errors import StgTuneError
from stg_tune.records import GuidanceSpec, Score, ScoreKind
from stg_tune.video import Video

TABLE = """arm,cfg_scale,stg_scale,videos,joint,gain,gain_low,gain_high,digit,colour,direction
spatial.3.residual,1,0.75,256,20,1,0,2,0.5,1,1
spatial.3.residual,1,0.25,256,28,1,0,2,0.5,1,1
cfg,2,0,256,25,0,0,0,0.5,1,1
cfg,3,0,256,24,0,0,0,0.5,1,1
cfg,2,0,1024,22,0,0,0,0.5,1,1
cfg,3,0,1024,23,0,0,0,0.5,1,1
spatial.1.attention,1,0.25,256,26,1,0,2,0.5,1,1
temporal.5.attention,1,0.25,256,21,1,0,2,0.5,1,1
temporal.0.residual,1,0.75,256,35,1,0,2,0.5,1,1
spatial.3.residual,1,0.75,1024,27,1,0,2,0.5,1,1
spatial.2.residual,3,1,256,19,1,0,2,0.5,1,1
spatial.4.attention,3,1,256,18,1,0,2,0.5,1,1
temporal.4.attention,3,1,256,40,1,0,2,0.5,1,1
"""
KIND = ScoreKind(name="imaging_quality", direction="maximize", low=0, high=1, unit="share")
AESTHETIC = replace(KIND, name="aesthetic")
BOTH = {"spatial": 8, "temporal": 8}


@pytest.fixture
def chosen(tmp_path):
    path = tmp_path / "layers.csv"
    path.write_text(TABLE)
    return Chosen.read(path)


class _Generator:
    """Renders the caption; a higher CFG scale makes it brighter. Counts what it is asked for."""

    entry = models.entry("svd-tiny")

    def __init__(self):
        self.made = 0

    def image_source(self, pair):
        return Image.fromarray(digits.render_caption(pair.prompt, "test", pair.seed)[0])

    def many(self, spec, pairs):
        self.made += len(pairs)
        return [self._one(spec, pair) for pair in pairs]

    def _one(self, spec, pair):
        frames = digits.render_caption(pair.prompt, "test", pair.seed).astype(float) + 20 * (spec.cfg_scale - 1)
        return SimpleNamespace(video=Video(frames=torch.from_numpy(frames.clip(0, 255).astype(np.uint8)), fps=8))


class _Scorer:
    kinds = (KIND, AESTHETIC)

    def __call__(self, videos, prompts):
        brightness = videos.mean((1, 2, 3, 4)).tolist()
        scored = [{"imaging_quality": Score(kind=KIND, value=value)} for value in brightness]
        return [marks | {"aesthetic": Score(kind=AESTHETIC, value=None, reason="none")} for marks in scored]


def _reference(width):
    return JointReference(weight=1.0, mean=np.zeros(width + 20), covariance=np.eye(width + 20))


@pytest.fixture
def arms(tmp_path):
    torch.manual_seed(0)
    judge = Judge(JudgeNetwork(), np.zeros(96), np.eye(96))
    return Arms(_Generator(), judge, _reference(96), _Scorer(), truth_pairs(6, first_seed=5), tmp_path / "arms")


def test_what_is_chosen_is_the_best_of_the_table(chosen):
    assert chosen.cfg_scale == 2.0, "of the rows with most videos"
    best = chosen.best(alone=True)
    assert (best.stack, best.index, best.op, best.stg_scale) == ("temporal", 5, "attention", 0.25)
    assert chosen.best(op="residual", alone=True).joint == 27, "more videos count more than a lucky first look"
    assert chosen.best(stack="spatial", alone=True).op == "attention"


def test_beside_cfg_the_layers_that_were_tried_beside_it_are_chosen(chosen):
    beside = replace(chosen, cfg_scale=2.5)
    assert (beside.best().index, beside.best().op, beside.best().stg_scale) == (4, "attention", 1.0)
    assert beside.best(op="residual").index == 2
    assert beside.best(stack="temporal").index == 4


def test_a_missing_table_says_how_to_make_it(tmp_path):
    with pytest.raises(StgTuneError, match="layers_table"):
        Chosen.read(tmp_path / "none.csv")


def test_every_claim_and_baseline_speaks_of_arms_that_there_are(chosen):
    for design in designs(chosen, BOTH, 2.0, None):
        assert design.baseline in design.arms
        assert {name for claim in design.claims for name in (claim.arm, claim.other)} <= set(design.arms)
        assert len({spec.hash() for spec in design.arms.values()}) >= len(design.arms) - 1, "arms differ"


def test_a_model_with_one_stack_has_no_tables_of_two_terms(chosen):
    joint = [design.name for design in designs(chosen, {"spatial": 8}, 2.0, None)]
    both = [design.name for design in designs(chosen, BOTH, 2.0, None)]
    assert set(both) - set(joint) == {"table4-terms", "eq20-eq21"}


def test_both_terms_are_one_of_each_stack(chosen):
    table = next(design for design in designs(chosen, BOTH, 2.0, None) if design.name == "table4-terms")
    (segment,) = table.arms["both"].segments
    assert {name for term in segment.terms for name in term.skip_layers} == {"spatial", "temporal"}
    assert table.arms["both"].cfg_scale == 2.0


def test_a_tuned_preset_takes_the_place_of_the_best_layer(chosen):
    tuned = GuidanceSpec(cfg_scale=1.25)
    assert designs(chosen, BOTH, 2.0, tuned)[0].arms["best CFG + STG"] == tuned


def test_an_arm_is_made_once_and_extended(arms):
    spec = GuidanceSpec(cfg_scale=2.0)
    first = arms.look(spec)
    assert (len(first), arms.generator.made) == (6, 6)
    again = arms.look(spec)
    assert arms.generator.made == 6
    assert np.array_equal(again.columns["imaging_quality"], first.columns["imaging_quality"])
    pairs = truth_pairs(8, first_seed=5)
    more = Arms(arms.generator, arms.judge, arms.reference, arms.scorer, pairs, arms.folder).look(spec)
    assert (len(more), arms.generator.made) == (8, 8)
    assert np.isnan(first.columns["aesthetic"]).all()
    assert arms.look(GuidanceSpec(cfg_scale=1.0)).columns[PICTURE].max() == 0, "the first frame is the picture"
    assert first.columns[PICTURE].min() > 0.05


def _seen(seed, shift, count=300):
    rng = np.random.default_rng(seed)
    hit = rng.random(count) < 0.5 + shift
    asked = np.stack([rng.integers(0, many, count) for many in (10, 6, 4)], 1)
    return Seen(features=rng.normal(size=(count, 6)) + shift, asked=asked, columns={"digit": hit.astype(float)})


def _measures():
    return measures(Judge(JudgeNetwork(), np.zeros(6), np.eye(6)), _reference(6), ["digit"])


def test_differences_have_the_sign_of_arm_minus_other_inside_their_interval():
    known = _measures()
    near, far = _seen(0, 0.1), _seen(1, 0.4)
    found = compare(known["frechet"], far, near)
    assert 0 < found.low < found.difference < found.high
    assert compare(known["digit"], far, near).low > 0
    assert known["spread"](near) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("arm", "higher", "word"), [(0, False, "holds"), (0, True, "does not hold")])
def test_a_claim_holds_only_when_its_interval_does(arm, higher, word):
    known = _measures()
    seen = {"near": _seen(arm, 0.1), "far": _seen(1, 0.4), "twin": _seen(2, 0.1)}
    claim = Claim(text="near is better", arm="near", other="far", higher=higher)
    assert paper_tables.verdict(claim, seen, known)["verdict"] == word
    assert paper_tables.verdict(replace(claim, other="twin"), seen, known)["verdict"] == "undecided"


def test_a_table_is_written_with_every_arm_and_measure(arms, chosen, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_arms, "RESAMPLES", 5)
    design = designs(chosen, BOTH, 3.0, None)[0]
    arms.pairs = arms.pairs[:4]
    paper_tables.measure(design, arms, tmp_path / "out" / "open-sora-tiny", "python -m this")
    with (tmp_path / "out" / "open-sora-tiny" / "table1-guidance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(design.arms) * 9
    brighter = next(row for row in rows if (row["arm"], row["measure"]) == ("default CFG", "imaging_quality"))
    assert float(brighter["difference"]) > float(brighter["low"]) * 0.5 > 0
    assert json.loads(brighter["setting"])["cfg_scale"] == 3.0
    findings = json.loads((tmp_path / "out" / "open-sora-tiny" / "findings.json").read_text())
    assert [item["verdict"] for item in findings["table1-guidance"]]
    page = paper_page.page(tmp_path / "out")
    assert "    python -m this\n" in page
    assert all(item["claim"] in page for item in findings["table1-guidance"])
    assert ", 4 videos |" in page


FINDING = {"arm": "near", "other": "far", "measure": "joint", "difference": -1.0, "low": -2.0, "high": -0.5}


def _findings(folder, **verdicts):
    """One table a model, with one claim that has these verdicts."""
    for model, words in verdicts.items():
        (folder / model).mkdir()
        items = [FINDING | {"claim": "near is best", "verdict": word} for word in words]
        data = {"command": f"python -m {model}", "table4-terms": items}
        (folder / model / "findings.json").write_text(json.dumps(data))
        (folder / model / "table4-terms.csv").write_text("arm,videos\nnear,256\n")


def test_the_page_says_of_every_model_what_holds(tmp_path):
    _findings(tmp_path, a=["holds", "holds"], b=["holds", "undecided"])
    paper_page.write_page(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| claim | a | b |\n" in page
    assert "| near is best | holds | holds (1 of 2), undecided (1 of 2) |\n" in page
    assert page.count("| a: near is best | near - far | joint distance | -1 [-2, -0.5], 256 videos | holds |\n") == 2


def test_the_page_has_a_heading_for_every_table(chosen):
    assert list(paper_page.TITLES) == [design.name for design in designs(chosen, BOTH, 2.0, None)]


def test_a_model_without_a_table_has_a_dash(tmp_path):
    _findings(tmp_path, a=["holds"])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "findings.json").write_text(json.dumps({"command": "python -m b"}))
    assert "| near is best | holds | - |\n" in paper_page.page(tmp_path)


def test_the_committed_page_is_what_its_tables_say():
    folder = Path(__file__).parents[2] / "results" / "paper"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"mochi-tiny", "open-sora-tiny", "svd-tiny"}
    assert (folder / "README.md").read_text(encoding="utf-8") == paper_page.page(folder)


def test_an_unknown_table_is_refused_with_the_names(chosen):
    with pytest.raises(StgTuneError, match="choose from table1-guidance"):
        paper_tables.pick(designs(chosen, BOTH, 2.0, None), ["table9"])
