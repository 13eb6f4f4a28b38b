"""Conditions, comparison and tables on a made-up model whose brighter videos score better."""

import csv
import json
from argparse import Namespace
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.simulated import Noise, Simulator, Terrain, plan_for
from benchmarks.transfer import (
    ENOUGH,
    Seen,
    Studio,
    checksum,
    command_of,
    compare,
    conditions,
    fit,
    published_style,
    write,
)
from stg_tune.embedded import digits
from stg_tune.records import GuidanceSpec, Score, ScoreKind
from stg_tune.search.objective import Guard, Objective
from stg_tune.search.plan import Allowance, RunFile
from stg_tune.video import Video

DEFAULT, BETTER, FROZEN = (GuidanceSpec(cfg_scale=scale) for scale in (2.0, 3.0, 4.0))
KINDS = {name: ScoreKind(name=name, direction="maximize", low=0, high=9, unit="u") for name in ("light", "motion")}
OBJECTIVE = Objective(weights={"light": 1}, guards=(Guard(scorer="motion", rule="at_least_fraction", value=0.95),))


class Scorer:
    kinds = tuple(KINDS.values())

    def __call__(self, videos, prompts):
        moved = 1.0 + (videos[:, 1:] - videos[:, :-1]).abs().mean((1, 2, 3, 4))
        values = {"light": videos.mean((1, 2, 3, 4)), "motion": moved}
        return [
            {name: Score(kind=KINDS[name], value=float(column[i])) for name, column in values.items()}
            for i in range(len(videos))
        ]


class Judge:
    mean, covariance = np.zeros(4), np.eye(4)

    def look(self, videos):
        assert videos.shape[-2:] == (64, 64)
        features = videos.mean((1, 3, 4)).double()
        light = features.mean(1, keepdim=True)
        right = torch.where(light > 0, 0, 9).long().expand(-1, 3)
        return torch.cat([features, light], 1).numpy(), right.numpy()


@dataclass
class Made:
    calls: list

    def many(self, spec, pairs):
        self.calls.append((spec, len(pairs)))
        return [SimpleNamespace(video=self.video(spec, pair), forwards=10.0 + spec.cfg_scale) for pair in pairs]

    def video(self, spec, pair):
        rng = np.random.default_rng(pair.seed)
        frames = rng.uniform(80, 140, (3, 1, 1, 3)) + rng.uniform(0, 30, (3, 8, 8, 3)) + 20 * (spec == BETTER)
        frames = np.repeat(frames[:1], 3, 0) if spec == FROZEN else frames
        return Video(frames=torch.from_numpy(frames.astype(np.uint8)), fps=8)


@pytest.fixture
def studio(tmp_path):
    made = Made([])

    class Fake(Studio):
        def _generator(self, condition):
            return made

    return Fake(None, tmp_path / "kept", None, Scorer(), Judge(), "weights"), made


@pytest.fixture
def places():
    return conditions(SEEN, 40, steps=20, size=80)


CAPTIONS = digits.captions()
SEEN = Seen(searched=tuple(CAPTIONS[:6]), chosen=tuple(CAPTIONS[6:20]), measured=tuple(CAPTIONS[20:100]))


def test_new_prompts_have_neither_guided_nor_chosen_nor_measured_where_enough_are_left(places):
    home, new, *_ = places
    assert {pair.prompt for pair in home.pairs} == set(SEEN.searched)
    assert not {pair.prompt for pair in new.pairs} & {*SEEN.searched, *SEEN.chosen, *SEEN.measured}
    crowded = replace(SEEN, measured=tuple(CAPTIONS[20 : len(CAPTIONS) - ENOUGH + 1]))
    assert set(crowded.new(CAPTIONS)) == {*CAPTIONS[20:]}


def test_what_a_run_has_seen_is_read_from_its_file():
    simulator = Simulator(noise=Noise.read(), terrain=Terrain())
    plan = plan_for(simulator, budget="150", seed=0)
    run = RunFile(plan=plan, storage="", allowances=(Allowance(budget="150", evaluations=150),))
    seen = Seen.by(run)
    assert set(seen.searched) == {pair.prompt for pair in plan.search_pairs}
    assert (len(seen.chosen), len(seen.measured)) == (4, 25)
    assert not set(seen.chosen) & set(seen.measured)


def test_videos_of_other_pairs_steps_sizes_or_weights_are_kept_apart(studio, places):
    subject = studio[0]
    paths = [subject.path(place, BETTER) for place in places]
    other = conditions(replace(SEEN, chosen=tuple(CAPTIONS[100:140])), 40, steps=20, size=80)[1]
    renamed = [
        replace(places[1], num_inference_steps=9),
        replace(places[1], size=99),
        replace(other, name="new prompts"),
    ]
    paths += [subject.path(place, BETTER) for place in renamed]
    subject.weights = "other weights"
    paths.append(subject.path(places[1], BETTER))
    assert len(set(paths)) == len(paths)


def test_a_run_with_a_price_is_compared_net_of_it(studio, places):
    arms = [studio[0].arm(places[1], spec) for spec in (BETTER, DEFAULT)]
    rest = {"scorer": studio[0].scorer, "judge": studio[0].judge}
    free, dear = (compare(places[1], "s", *arms, objective=replace(OBJECTIVE, price=p), **rest) for p in (0.0, 1.2))
    assert free.gain.mean - dear.gain.mean == pytest.approx(1.2 * (13 / 12 - 1))


def test_conditions_differ_in_what_they_say(places):
    home, new, steps, size = places
    assert not {pair.prompt for pair in home.pairs} & {pair.prompt for pair in new.pairs}
    assert not {pair.seed for pair in home.pairs} & {pair.seed for pair in new.pairs}
    assert steps.pairs == size.pairs == new.pairs
    assert (steps.num_inference_steps, steps.size) == (20, None)
    assert (size.num_inference_steps, size.size) == (None, 80)
    assert len({pair.prompt for pair in new.pairs}) == 40


def row_of(studio, place, spec, name="s"):
    arms = studio.arm(place, spec), studio.arm(place, DEFAULT)
    return compare(place, name, *arms, objective=OBJECTIVE, scorer=studio.scorer, judge=studio.judge)


def test_proxy_gain_truth_and_guards(studio, places):
    better, frozen = (row_of(studio[0], places[1], spec) for spec in (BETTER, FROZEN))
    assert better.gain.low > 0
    assert better.guards == "kept"
    assert frozen.guards == "motion at_least_fraction 0.95"
    truths = [digits.truth(pair.prompt) for pair in places[1].pairs]
    light = {spec: studio[0].arm(places[1], spec).judged.answers for spec in (BETTER, DEFAULT)}
    right = {spec: np.mean(answers == np.array(truths)) for spec, answers in light.items()}
    assert better.right.mean == pytest.approx(right[BETTER] - right[DEFAULT])
    low, mean, high = better.frechet[1], better.frechet[0], better.frechet[2]
    assert low <= mean <= high


def test_what_was_made_is_not_made_again(studio, places):
    (subject, made), place = studio, places[0]
    first = subject.arm(place, BETTER)
    calls = len(made.calls)
    again = subject.arm(place, BETTER)
    assert len(made.calls) == calls == 3  # 40 videos, 16 at a time
    assert again.rows == first.rows
    assert np.array_equal(again.judged.answers, first.judged.answers)


def test_tables(studio, places, tmp_path):
    rows = [row_of(studio[0], places[1], BETTER, "tuned")]
    options = Namespace(run=tmp_path / "demo", videos=40, random=2, size=80)
    write(rows, tmp_path, "made up", command_of(options, steps=20))
    (line,) = csv.DictReader((tmp_path / "transfer.csv").open())
    assert (line["condition"], line["setting"], line["videos"]) == ("new prompts", "tuned", "40")
    assert float(line["gain"]) == pytest.approx(rows[0].gain.mean, abs=1e-4)
    assert json.loads((tmp_path / "transfer.json").read_text())["rows"][0]["guards"] == "kept"
    text = (tmp_path / "README.md").read_text()
    assert "| new prompts | tuned |" in text
    assert "`python -m benchmarks.transfer runs/demo --videos 40 --random 2 --steps 20 --size 80`" in text
    assert str(tmp_path) not in text


def test_the_checksum_is_that_of_the_weights_in_use():
    assert checksum("open-sora-tiny") != checksum("another-model")


def test_larger_videos_are_shrunk_for_the_judge():
    assert fit(torch.zeros(2, 3, 3, 80, 80)).shape == (2, 3, 3, 64, 64)
    assert fit(torch.ones(1, 2, 3, 128, 128)).mean() == 1


def test_the_published_style_skips_the_middle():
    (term,) = published_style({"spatial": 8, "temporal": 6}, 2.0).segments[0].terms
    assert dict(term.skip_layers) == {"spatial": (4,), "temporal": (3,)}
