"""The questions that a reader has, answered in a line each (standard library only)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stg_tune.report.facts import history_facts
from stg_tune.report.words import UNIT, describe, judged, judgement, net_of, places, plural, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stg_tune.records import GuidanceSpec
    from stg_tune.report.findings import Findings, Gain


class Answer(NamedTuple):
    """What a reader wants to know, and the short answer."""

    question: str
    short: str
    more: str


def answers(findings: Findings) -> tuple[Answer, ...]:
    """Which layers, how much better, how sure, whose doing, at what cost, how to use it; before the end, what leads."""
    if not findings.finished:
        return tuple(_so_far(findings))
    gain, tuned = findings.tuned_gain, findings.tuned
    if gain is None or tuned is None:
        return ()
    return (
        Answer("Which layers?", *_which_layers(findings, tuned)),
        Answer("How much better?", f"{gain.mean:+.2f} {UNIT}", net_of(findings.price) or _how_much(gain)),
        Answer(
            "How sure?",
            f"{judgement(gain)}: {100 * gain.level:.3g} % interval [{gain.low:+.2f}, {gain.high:+.2f}]",
            _how_sure(findings),
        ),
        Answer("Whose doing?", _whose(findings, tuned), " ".join(_parts(findings))),
        Answer("At what cost?", _how_costly(findings), _spent(findings)),
        Answer("How to use it?", *_how_used(findings)),
    )


def _which_layers(findings: Findings, tuned: GuidanceSpec) -> tuple[str, str]:
    if findings.improved:
        return places(tuned) or "none: CFG alone", describe(tuned)
    return "none is proved to help", f"The candidate was: {describe(tuned)}."


def _whose(findings: Findings, tuned: GuidanceSpec) -> str:
    if not findings.improved:
        gained = findings.tuned_gain is not None and findings.tuned_gain.low > 0
        return "it gains, but a guard is not kept" if gained else "nobody's: no gain is proved"
    if not places(tuned):
        return "retuned CFG alone"
    part = findings.stg_gain
    return f"skipping adds {part.mean:+.2f} to CFG" if part and part.low > 0 else "not proved to be the layers"


def _parts(findings: Findings) -> Iterator[str]:
    """The gains behind the verdict, always apart."""
    if findings.stg_gain is not None:
        yield f"Skipping over the best CFG: {judged(findings.stg_gain)}."
    if findings.cfg_gain is not None and findings.cfg is not None:
        yield f"CFG alone ({describe(findings.cfg)}) over the default: {judged(findings.cfg_gain)}."
    for arm in findings.arms:
        if arm.name.startswith("published"):
            yield f"{arm.name[:1].upper()}{arm.name[1:]}: {judged(arm.gain)}."


def _how_used(findings: Findings) -> tuple[str, str]:
    if not findings.improved:
        return "keep the default", f"{describe(findings.default)}. Nothing was proved better, so there is no preset."
    if findings.preset is None:
        return "stg-tune resume DIR", "The preset is not in the folder of the run; this writes it again."
    others = f", and commands for {plural(len(findings.exports), 'other tool')}" if findings.exports else ""
    return 'stg_tune.guided(pipe, "preset.json")', f"Code and preset to copy{others} are in the section How to use it."


def _so_far(findings: Findings) -> Iterator[Answer]:
    points = [point for point in history_facts(findings) if point.counts]
    if not points:
        return
    best = max(points, key=lambda point: point.gain)
    yield Answer(
        "Best so far?", f"{best.gain:+.2f} {UNIT}", f"{best.label}, on the {plural(best.pairs, 'pair')} that chose it."
    )
    yield Answer("How far?", plural(len(points), "configuration"), _spent(findings))


def _how_much(gain: Gain) -> str:
    if gain.low > 0:
        return f"An average tuned video scores better than about {standing(gain)} of the default's videos."
    if gain.high < 0:
        return f"It is a loss: an average video scores better than only about {standing(gain)} of the default's."
    if gain.conclusion == "equivalent":
        return f"Zero is inside the interval, which stays within ±{gain.margin:g}: no difference that matters."
    return "Zero is inside the interval: this may be no gain at all."


def _how_sure(findings: Findings) -> str:
    gain = findings.tuned_gain
    assert gain is not None
    share = ""
    if findings.prompts:
        better = sum(pair.gain > 0 for pair in findings.prompts)
        share = f", better on {better} of them"
    missed = "" if gain.low > 0 else f" A gain above {max(gain.high, 0.0):.2f} can be ruled out."
    return f"{plural(gain.pairs, 'held-out pair')}{share}. No stage of the search has seen them.{missed}"


def _how_costly(findings: Findings) -> str:
    return f"{findings.cost:.2f} × the work of the default a video" if findings.cost else "unknown"


def _spent(findings: Findings) -> str:
    known = [(name, findings.provenance.get(name)) for name in ("evaluations", "evaluation time")]
    spent = "; ".join(f"{name}: {text}" for name, text in known if text)
    return f"Of the whole run: {spent}." if spent else ""
