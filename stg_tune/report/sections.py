"""Findings -> the sections of the page, in the order in which a reader asks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from stg_tune.report import facts, figures, fronts, map_figures, maps, prompts
from stg_tune.report.answers import answers
from stg_tune.report.gain_section import gain_section
from stg_tune.report.markup import fold, lead, number, pairs, plot, section, side_by_side, table
from stg_tune.report.player import player
from stg_tune.report.usage import usage_section
from stg_tune.report.words import describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stg_tune.report.findings import Clip, Findings
    from stg_tune.report.player import Films


def sections(findings: Findings) -> Iterator[tuple[str, str]]:
    """(word of the navigation, section); those that there is nothing to say about are left out."""
    parts = (
        ("Verdict", _verdict(findings)),
        ("Gain", gain_section(findings)),
        ("Use", usage_section(findings)),
        ("Layers", _layers(findings)),
        ("Strength", _strength(findings)),
        ("Prompts", _prompts(findings)),
        ("Cost", _fronts(findings)),
        ("Search", _search(findings)),
        ("Importance", _importance(findings)),
        ("Effect", _effect(findings)),
        ("Vote", _vote(findings)),
        ("Provenance", _provenance(findings)),
    )
    return ((name, part) for name, part in parts if part)


def clips_section(clips: Sequence[Clip], films: Films) -> str:
    """Clips side by side; empty when there is room for none."""
    shown = player(clips, films)
    note = (
        "The same prompt and the same noise with each setting, all in step. The pairs were set aside before the search "
        "and are not picked by result."
    )
    return section("Side by side", "clips", shown, note=note) if shown else ""


def _verdict(findings: Findings) -> str:
    said = facts.verdict(findings)
    lines = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in said.sentences)
    cards = "".join(
        f"<div><dt>{html.escape(item.question)}</dt><dd><b>{html.escape(item.short)}</b> "
        f"<span>{html.escape(item.more)}</span></dd></div>"
        for item in answers(findings)
    )
    warned = "".join(f"<li>{html.escape(text)}</li>" for text in findings.warnings)
    parts = (
        f'<dl class="answers">{cards}</dl>' if cards else "",
        fold("In full sentences", lines) if cards and findings.finished else lines,
        f'<div class="warnings"><h3>Before you believe it</h3><ul>{warned}</ul></div>' if warned else "",
    )
    return section(said.headline, "verdict", *parts, kind="verdict improved" if said.improved else "verdict")


def _layers(findings: Findings) -> str:
    layers = facts.layer_facts(findings)
    if not layers.points:
        return ""
    note = (
        "Screen of single layers: gain over the same setting without the skip. Bars are one standard error; shaded "
        "blocks are those of the tuned setting, stars those of published ones. Each dot is a few pairs only, so a "
        "single dot proves nothing."
    )
    heads = ("stack", "block", "operation", "stg_scale", "gain", "standard error", "pairs", "effect")
    rows = [
        (
            point.stack,
            str(point.layer),
            point.op,
            number(point.scale, ".3g"),
            number(point.gain, "+.3f"),
            number(point.error, ".3f"),
            str(point.pairs),
            number(point.effect, ".3g"),
        )
        for point in layers.points
    ]
    drawn = plot("layers", figures.layer_figure(layers), f"Gain of every single layer. {layers.summary}")
    numbers = fold("The numbers", table(heads, rows))
    return section("Score against layer", "layers", lead(layers.summary), drawn, numbers, note=note)


def _strength(findings: Findings) -> str:
    found = maps.map_facts(findings)
    if not found.cells:
        return ""
    note = (
        "Mean gain over the default of all configurations that skip a block with about that strength, whatever else "
        "they do. Blue is better than the default, brown is worse, grey is no difference; empty places were not tried."
    )
    parts = [plot("map", map_figures.map_figure(found), "Gain over layer and strength")]
    surface = maps.surface_facts(findings)
    if surface is not None:
        words = (
            f"Both stacks at once: {' against '.join(surface.stacks)}. Colours are a smoothed mean of the "
            "configurations near by (the dots); it is empty where there are none."
        )
        drawn = plot("surface", map_figures.surface_figure(surface), "Gain over the strengths of two stacks")
        parts.append(f"<p>{html.escape(words)}</p>{drawn}")
    terms = facts.term_facts(findings)
    if terms:
        drawn = plot("scale", figures.scale_figure(terms), "Gain against the strength of each term")
        parts.append(f"<p>Every term that was tried; larger dots were seen on more pairs.</p>{drawn}")
    return section("Layer and strength", "strength", *parts, note=note)


def _prompts(findings: Findings) -> str:
    if not findings.prompts:
        return ""
    found = prompts.prompt_facts(findings)
    note = (
        "Held-out pairs, default against tuned with the same noise. Triangles lie on the better side of the line. One "
        "pair is mostly luck: look at the pattern, not at single prompts."
    )
    figures_ = [
        f"<div><h3>{html.escape(item.scorer)}</h3>"
        + plot(f"pairs-{index}", map_figures.scatter_figure(item), _scatter_label(item))
        + "</div>"
        for index, item in enumerate(prompts.scatter_facts(findings))
    ]
    ends = [
        f"<div><h3>{title}</h3>{table(('prompt', 'gain', 'seeds'), map(_prompt_row, rows))}</div>"
        for title, rows in (("Where it helps most", found.best), ("Where it helps least, or hurts", found.worst))
        if rows
    ]
    words = lead(f"Better on {found.better} of {found.total} prompts.")
    return section(
        "Where it helps, where it hurts", "prompts", words, side_by_side(*figures_), side_by_side(*ends), note=note
    )


def _scatter_label(item: prompts.ScatterFacts) -> str:
    return f"{item.scorer}: better on {item.better} of {len(item.points)} pairs"


def _prompt_row(row: prompts.PromptRow) -> tuple[str, str, str]:
    seeds = ", ".join(map(str, row.seeds[:4])) + (", …" if len(row.seeds) > 4 else "")
    return row.prompt, f"{row.gain:+.2f}", seeds


def _fronts(findings: Findings) -> str:
    fronts_ = (
        ("cost", "quality and work", fronts.cost_front(findings), "denoiser work a video, default = 1"),
        ("motion", "quality and motion", fronts.motion_front(findings), "motion, default = 1"),
    )
    drawn = [
        f"<div><h3>{title.capitalize()}</h3>{plot(name, map_figures.front_figure(found, axis), title)}</div>"
        for name, title, found, axis in fronts_
        if len(found.points) > 1
    ]
    if not drawn:
        return ""
    note = (
        "Whole configurations that keep the guards, on the search pairs. The dashed front joins those that no other "
        "beats in both. Left of 1 is cheaper, or stiller, than the default."
    )
    return section("What quality costs", "cost", side_by_side(*drawn), note=note)


def _search(findings: Findings) -> str:
    points = facts.history_facts(findings)
    if not points:
        return ""
    note = (
        "Configurations in the order they were tried, on the search pairs, against the work spent. Bars are one "
        "standard error. Crosses were stopped early, open symbols break a guard; they do not count for the best."
    )
    stopped = sum(point.pruned for point in points)
    words = lead(f"{len(points)} configurations, {stopped} of them stopped early.")
    drawn = plot("history", figures.history_figure(points), "Gain of every configuration against the work spent")
    race = _race(findings) if findings.finalists else ""
    return section("The search", "search", words, drawn, race, note=note)


def _race(findings: Findings) -> str:
    heads = ("finalist", "in-sample gain", "held-out gain", "setting")
    rows = [
        (item.name, f"{item.in_sample:+.2f}", number(item.held_out, "+.2f"), describe(item.spec))
        for item in findings.finalists
    ]
    words = (
        "The in-sample gain is on the pairs that chose the setting, so it is too high; the held-out gain is what it "
        "had when it left the race."
    )
    return f"<h3>The race</h3><p>{words}</p>{table(heads, rows)}"


def _importance(findings: Findings) -> str:
    if not findings.knobs:
        return ""
    note = (
        "Which numbers decided whether a configuration came among the best (PED-ANOVA, arXiv:2304.10255). The mark is "
        "what the same trials give by chance, with their gains shuffled: a bar that does not pass it means nothing."
    )
    clear = [knob.name for knob in findings.knobs if knob.share > knob.chance]
    words = lead(f"Beyond chance: {', '.join(clear)}." if clear else "No number stands out beyond chance.")
    drawn = plot("knobs", map_figures.knob_figure(findings.knobs), "Importance of the numbers that were searched")
    return section("What mattered", "importance", words, drawn, note=note)


def _effect(findings: Findings) -> str:
    terms = [term for term in facts.term_facts(findings) if term.effect is not None]
    if not terms and not findings.effect_steps:
        return ""
    note = "How far skipping moves the prediction. A term at zero does nothing; a term far right overdoes it."
    parts = []
    if terms:
        drawn = plot("effect", figures.effect_figure(terms), "Gain against the effect of each term")
        parts.append(f"<div><h3>Gain against effect</h3>{drawn}</div>")
    if findings.effect_steps:
        drawn = plot("steps", map_figures.steps_figure(findings.effect_steps), "Effect of each term in every step")
        parts.append(f"<div><h3>Over the steps (tuned setting)</h3>{drawn}</div>")
    return section("Effect of the skipped layers", "effect", side_by_side(*parts), note=note)


def _vote(findings: Findings) -> str:
    if not findings.votes:
        return ""
    heads = ("question", "tuned", "tie", "default", "win rate, with interval", "voters")
    rows = [
        (
            item.aspect,
            str(item.wins),
            str(item.ties),
            str(item.losses),
            f"{item.rate:.0%} [{item.low:.0%}, {item.high:.0%}]",
            str(item.voters),
        )
        for item in findings.votes
    ]
    note = (
        "People saw both clips of a pair side by side without knowing which was which. A tie counts half to each side; "
        "an interval that holds 50 % shows nothing."
    )
    return section("Blind vote", "vote", table(heads, rows), note=note)


def _provenance(findings: Findings) -> str:
    return section("Provenance", "provenance", pairs(findings.provenance.items()))
