"""Facts: the numbers and sentences a reader will believe."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from stg_tune.records import GuidanceSpec, Segment, SkipTerm
from stg_tune.report import Findings, Gain, Trial
from stg_tune.report.facts import (
    describe,
    gain_rows,
    history_facts,
    layer_facts,
    mean_and_error,
    scorer_rows,
    term_facts,
    verdict,
)
from stg_tune.report.fronts import cost_front
from stg_tune.report.words import blocks_of, places


def _term(layers: dict[str, tuple[int, ...]], scale: float = 0.5, op: str = "attention", name: str = "t") -> SkipTerm:
    return SkipTerm(name=name, skip_layers=layers, skip_op=op, stg_scale=scale)


def _spec(*terms: SkipTerm) -> GuidanceSpec:
    return GuidanceSpec(cfg_scale=3.0, segments=(Segment(terms=terms),))


def test_a_gain_above_zero_is_called_better_with_its_interval(findings: Findings) -> None:
    said = verdict(findings)
    assert said.improved
    assert said.headline == "open-sora-tiny gets better"
    assert "gains +0.62 [+0.41, +0.83]" in said.sentences[0]
    assert "24 held-out pairs (95 % interval)." in said.sentences[0]
    assert "costs 1.31 times" in said.sentences[1]


def test_a_price_is_named_and_its_front_shows_quality(findings: Findings) -> None:
    priced = replace(findings, price=0.2)
    assert any("net of a price: 0.2 baseline standard deviations" in line for line in verdict(priced).sentences)
    assert not any("price" in line for line in verdict(findings).sentences)
    free = cost_front(findings).points
    assert len(free) > 1
    for before, after in zip(free, cost_front(priced).points, strict=True):
        assert after.gain == pytest.approx(before.gain + 0.2 * (before.x - 1))


def test_cfg_and_stg_are_told_apart_and_zero_is_admitted(findings: Findings) -> None:
    said = " ".join(verdict(findings).sentences)
    assert "Retuning CFG alone (CFG 2.2) gains +0.20 [+0.05, +0.35]." in said
    assert "STG's own part, over the retuned CFG, is +0.42 [-0.03, +0.70], not told apart from zero." in said


def test_a_part_that_hurts_is_named(findings: Findings) -> None:
    worse = replace(findings, stg_gain=Gain(mean=-0.4, low=-0.6, high=-0.2, pairs=24))
    said = verdict(worse).sentences
    assert "the videos get worse" in said[-2]
    assert said[-1] == "The setting published: paper gains -0.50 [-0.70, -0.30] on 24 pairs: the videos get worse."


def test_a_guard_that_is_not_proved_is_told_from_a_broken_one(findings: Findings) -> None:
    unproved = tuple(replace(guard, state="not proved") for guard in findings.guards)
    said = " ".join(verdict(replace(findings, improved=False, guards=unproved)).sentences)
    assert "Not proved to hold, so it does not count as an improvement: the guard motion" in said
    assert "breaks" not in said


def test_a_default_that_nothing_without_stg_beats_is_named(findings: Findings) -> None:
    said = " ".join(verdict(replace(findings, cfg_gain=None)).sentences)
    assert "No CFG scale without STG was found that beats the default." in said


def test_an_interval_over_zero_is_no_improvement(findings: Findings) -> None:
    gain = Gain(mean=0.1, low=-0.01, high=0.2, pairs=24, level=0.999)
    said = verdict(replace(findings, improved=False, tuned_gain=gain))
    assert not said.improved
    assert said.headline == "No improvement found for open-sora-tiny"
    assert "(99.9 % interval), not told apart from zero." in said.sentences[0]


@pytest.mark.parametrize(
    ("conclusion", "words"),
    [
        ("equivalent", ": equivalent within ±0.2."),
        ("no worse", ": no worse by more than 0.2, not shown to be better."),
        ("undecided", ": undecided."),
    ],
)
def test_what_an_interval_over_zero_still_says_is_said(findings: Findings, conclusion: str, words: str) -> None:
    gain = Gain(mean=0.01, low=-0.1, high=0.1, pairs=24, conclusion=conclusion, margin=0.2)
    reason = "the chosen setting and the default are equivalent on held-out pairs"
    said = verdict(replace(findings, improved=False, tuned_gain=gain, stg_gain=gain, reason=reason)).sentences
    assert said[0] == f"The{reason[3:]}."
    assert said[1].endswith(f"(95 % interval){words}")
    assert any(sentence.startswith("STG's own part") and sentence.endswith(words) for sentence in said)


def test_what_is_known_of_published_settings_is_said_where_none_raced(findings: Findings) -> None:
    note = "No published setting is known for this model."
    assert verdict(replace(findings, arms=(), published_note=note)).sentences[-1] == note


def test_a_broken_guard_is_no_improvement_and_is_named(findings: Findings) -> None:
    said = verdict(replace(findings, improved=False, broken=("motion at_least_fraction 0.95",)))
    assert said.headline.startswith("No improvement")
    assert "breaks the guard motion at_least_fraction 0.95" in " ".join(said.sentences)


def test_a_run_without_evidence_claims_nothing(findings: Findings) -> None:
    said = verdict(replace(findings, finished=False))
    assert (said.headline, said.improved) == ("Not finished", False)


def test_a_run_without_a_finalist_says_so(findings: Findings) -> None:
    said = verdict(replace(findings, improved=False, tuned=None, tuned_gain=None))
    assert said.sentences == ("No setting was found that could race against the default.",)


def test_only_gains_that_exist_are_rows(findings: Findings) -> None:
    assert [row.label for row in gain_rows(findings)][3:] == ["published: paper vs default"]
    alone = replace(findings, cfg_gain=None, stg_gain=None, arms=())
    assert [row.label for row in gain_rows(alone)] == ["tuned vs default"]


def test_layers_are_in_order_and_the_chosen_ones_are_known(findings: Findings) -> None:
    facts = layer_facts(findings)
    places = [(point.stack, point.op, point.layer) for point in facts.points]
    assert places == sorted(places)
    assert len(places) == 32
    assert facts.chosen == {"spatial": (3, 4)}
    assert facts.published["other"] == (("temporal", "residual", 2), ("temporal", "residual", 3))
    assert facts.summary == (
        "Best single block: spatial 4 (attention), +0.40 ± 0.10. "
        "12 of 32 lie above zero by more than two standard errors."
    )


def test_the_best_so_far_counts_only_whole_trials_that_keep_the_guards(findings: Findings) -> None:
    points = history_facts(findings)
    assert len(points) == len([trial for trial in findings.trials if trial.gains])
    assert all(later.best >= earlier.best for earlier, later in pairwise(points))
    assert points[-1].best == max(point.gain for point in points if point.counts)
    assert points[-1].best < max(point.gain for point in points)
    assert "breaks motion" in points[-1].label


def test_the_work_grows_and_the_screen_is_paid_for_before_the_search(findings: Findings) -> None:
    points = history_facts(findings)
    assert all(later.spent > earlier.spent for earlier, later in pairwise(points))
    last_cfg = max(point.spent for point in points if point.stage == "cfg")
    first = next(point for point in points if point.stage == "search")
    assert first.spent - last_cfg == pytest.approx(2 * len(findings.layers) + 6 * 1.3)


def test_every_term_counts_and_a_missing_effect_stays_missing(findings: Findings) -> None:
    two = _spec(
        _term({"spatial": (1,)}, name="a"), _term({"temporal": (1,)}, name="b"), _term({"x": (1,)}, 0, name="c")
    )
    points = term_facts(replace(findings, trials=(Trial(stage="search", spec=two, gains=(1.0,), effects={"a": 0.2}),)))
    assert [(point.term, point.effect) for point in points] == [("a", 0.2), ("b", None)]


def test_scorers_are_judged_by_their_interval(findings: Findings) -> None:
    assert {row.name: row.judgement for row in scorer_rows(findings)} == {
        "motion": "not told apart",
        "saturation": "worse",
        "aesthetic": "better",
    }


def test_one_value_has_no_known_error() -> None:
    assert mean_and_error((0.4,)) == (0.4, math.inf)
    assert mean_and_error((1.0, 3.0)) == pytest.approx((2.0, 1.0))


def test_a_specification_reads_as_one_line() -> None:
    segment = Segment(
        start=0.0,
        stop=0.8,
        cfg_scale=2.0,
        terms=(_term({"spatial": (4, 5)}), _term({"x": (1,)}, 0, name="off")),
        rescale=0.5,
    )
    drawn = SkipTerm(name="d", skip_layers={"x": (1, 2)}, skip_op="residual", stg_scale=1, draw=1)
    assert describe(_spec(drawn)) == "CFG 3; residual of x 1, 2 (1 of them drawn anew each step) at 1"
    text = describe(GuidanceSpec(cfg_scale=3.0, segments=(segment,)))
    assert text == "CFG 3; CFG 2 in [0, 0.8); attention of spatial 4, 5 at 0.5 in [0, 0.8); rescale 0.5 in [0, 0.8)"


def test_the_stack_that_is_called_blocks_is_not_called_so_twice() -> None:
    def over(stack: str, *layers: int) -> str:
        return places(_spec(_term({stack: layers})))

    assert over("blocks", 2, 3) == "attention of blocks 2, 3"
    assert over("blocks", 2) == "attention of block 2"
    assert over("spatial", 2, 3) == "attention of spatial blocks 2, 3"
    assert blocks_of("blocks") == "blocks"
