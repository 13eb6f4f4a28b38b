"""Answers: a stranger reads which layers, how much, how sure, whose doing, at what cost, how to use it."""

from dataclasses import replace

from stg_tune.records import GuidanceSpec
from stg_tune.report import Findings, Gain
from stg_tune.report.answers import answers
from stg_tune.report.facts import history_facts


def _short(findings: Findings) -> dict[str, str]:
    return {item.question: f"{item.short} {item.more}" for item in answers(findings)}


def test_the_questions_are_answered(findings: Findings) -> None:
    said = _short(findings)
    assert said["Which layers?"].startswith("attention of spatial blocks 3, 4 ")
    assert said["How much better?"].startswith("+0.62 baseline standard deviations")
    assert "about 73 % of the default's videos" in said["How much better?"]
    assert said["How sure?"].startswith("better: 95 % interval [+0.41, +0.83]")
    better = sum(pair.gain > 0 for pair in findings.prompts)
    assert f"24 held-out pairs, better on {better} of them" in said["How sure?"]
    assert said["At what cost?"].startswith("1.31 × the work of the default a video")
    assert said["How to use it?"].startswith('stg_tune.guided(pipe, "preset.json") Code and preset to copy')
    assert "for 1 other tool are in the section How to use it." in said["How to use it?"]


def test_layers_get_the_credit_only_where_it_is_proved(findings: Findings) -> None:
    doubtful = _short(findings)["Whose doing?"]
    assert doubtful.startswith(
        "not proved to be the layers Skipping over the best CFG: +0.42 [-0.03, +0.70], not told apart."
    )
    assert "over the default: +0.20 [+0.05, +0.35], better." in doubtful
    assert "Published: paper: -0.50" in doubtful
    proved = _short(replace(findings, stg_gain=Gain(mean=0.4, low=0.1, high=0.7, pairs=24)))["Whose doing?"]
    assert proved.startswith("skipping adds +0.40 to CFG")
    plain = _short(replace(findings, tuned=GuidanceSpec(cfg_scale=2.0)))["Whose doing?"]
    assert plain.startswith("retuned CFG alone")
    unkept = _short(replace(findings, improved=False))
    assert unkept["Whose doing?"].startswith("it gains, but a guard is not kept")
    none = _short(replace(findings, improved=False, tuned_gain=Gain(mean=0.1, low=-0.1, high=0.3, pairs=24)))
    assert none["Whose doing?"].startswith("nobody's: no gain is proved")
    assert none["How to use it?"].startswith("keep the default CFG 3. Nothing was proved better")


def test_a_net_gain_is_not_explained_as_a_share_of_videos(findings: Findings) -> None:
    (answer,) = [item for item in answers(replace(findings, price=0.2)) if item.question == "How much better?"]
    assert answer.more.startswith("Gains are net of a price: 0.2")


def test_nothing_is_promised_when_zero_is_inside(findings: Findings) -> None:
    said = _short(replace(findings, improved=False, tuned_gain=Gain(mean=0.1, low=-0.1, high=0.3, pairs=24)))
    assert said["Which layers?"].startswith(
        "none is proved to help The candidate was: CFG 3; attention of spatial 3, 4"
    )
    assert "Zero is inside the interval" in said["How much better?"]
    assert "A gain above 0.30 can be ruled out" in said["How sure?"]


def test_an_equivalence_is_told_from_not_knowing(findings: Findings) -> None:
    same = Gain(mean=0.02, low=-0.1, high=0.14, pairs=90, conclusion="equivalent", margin=0.2)
    said = _short(replace(findings, improved=False, tuned_gain=same, stg_gain=same))
    assert said["How sure?"].startswith("equivalent within ±0.2: 95 % interval [-0.10, +0.14]")
    assert "stays within ±0.2: no difference that matters" in said["How much better?"]
    assert "Skipping over the best CFG: +0.02 [-0.10, +0.14], equivalent within ±0.2." in said["Whose doing?"]
    open_ = replace(same, high=0.9, conclusion="undecided")
    assert _short(replace(findings, improved=False, tuned_gain=open_))["How sure?"].startswith("undecided: ")


def test_a_preset_whose_file_is_gone_can_be_written_again(findings: Findings) -> None:
    said = _short(replace(findings, preset=None))
    assert said["How to use it?"].startswith("stg-tune resume DIR ")


def test_a_loss_is_called_a_loss(findings: Findings) -> None:
    said = _short(replace(findings, improved=False, tuned_gain=Gain(mean=-0.5, low=-0.9, high=-0.1, pairs=24)))
    assert "It is a loss" in said["How much better?"]
    assert "only about 31 %" in said["How much better?"]
    assert "A gain above 0.00 can be ruled out" in said["How sure?"]


def test_plain_cfg_skips_no_layer(findings: Findings) -> None:
    said = _short(replace(findings, tuned=GuidanceSpec(cfg_scale=2.0)))
    assert said["Which layers?"] == "none: CFG alone CFG 2"


def test_a_run_that_goes_on_says_what_leads(findings: Findings) -> None:
    said = _short(replace(findings, finished=False))
    best = max((point for point in history_facts(findings) if point.counts), key=lambda point: point.gain)
    assert said["Best so far?"].startswith(
        f"{best.gain:+.2f} baseline standard deviations {best.label}, on the 6 pairs"
    )
    assert answers(replace(findings, finished=False, trials=())) == ()


def test_without_evidence_there_is_no_answer(findings: Findings) -> None:
    assert answers(replace(findings, tuned_gain=None)) == ()
