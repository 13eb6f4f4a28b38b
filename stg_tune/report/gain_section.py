"""The section about the gain: tuned, CFG alone, published; every scorer and every guard."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from stg_tune.report import facts, figures
from stg_tune.report.markup import number, plot, section, table
from stg_tune.report.words import interval, judged, judgement, net_of, own_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.report.findings import Arm, Findings, Guard


def gain_section(findings: Findings) -> str:
    """Whose doing the gain is, scorer by scorer and guard by guard; empty before there is held-out evidence."""
    rows = facts.gain_rows(findings)
    if not rows:
        return ""
    note = (
        "On pairs that the search never saw. A gain is a weighted mean over the scorers of the paired differences, "
        "each in standard deviations of the default between pairs. An interval that crosses zero shows nothing."
    )
    note = f"{note} {net_of(findings.price)}".strip()
    label = "; ".join(f"{row.label}: {interval(row.gain)}" for row in rows)
    parts = [plot("gain", figures.gain_figure(rows), label)]
    if findings.scorers:
        parts.append(_scorers(findings))
    if findings.guards:
        parts.append(_guards(findings.guards))
    if findings.arms:
        parts.append(_arms(findings.arms))
    if findings.published_note:
        parts.append(f"<p>{html.escape(findings.published_note)}</p>")
    return section("Where the gain comes from", "gain", *parts, note=note)


def _scorers(findings: Findings) -> str:
    heads = ("scorer", "weight", "default", "tuned", "gain, with interval", "judgement", "unit")
    rows = [
        (
            row.name,
            f"{row.weight:.3g}",
            number(row.baseline),
            number(row.tuned),
            own_interval(row.gain),
            row.judgement,
            row.unit,
        )
        for row in facts.scorer_rows(findings)
    ]
    words = (
        "Every scorer by itself, in its own unit; a positive gain is better whichever way the scorer points. Scorers "
        "of weight 0 are guards or for information: frozen or glaring videos must not win."
    )
    return f"<h3>Every scorer by itself</h3><p>{words}</p>{table(heads, rows)}"


def _guards(guards: Sequence[Guard]) -> str:
    heads = ("guard", "limit", "measured, with interval", "state", "why")
    rows = [(item.name, number(item.limit, ".3g"), _measured(item), item.state, item.why) for item in guards]
    words = "What a better setting must keep, whatever it gains. A guard holds when its whole interval does."
    return f"<h3>Guards</h3><p>{words}</p>{table(heads, rows)}"


def _measured(item: Guard) -> str:
    return f"{item.value.mean:.3g} [{item.value.low:.3g}, {item.value.high:.3g}]"


def _arms(arms: Sequence[Arm]) -> str:
    names = dict.fromkeys(name for arm in arms for name in arm.scorers)
    heads = ("against the default", *(arm.name for arm in arms))
    rows = [("all together", *(judged(arm.gain) for arm in arms))]
    for name in names:
        known = (arm.scorers.get(name) for arm in arms)
        rows.append((name, *(f"{own_interval(gain)}, {judgement(gain)}" if gain else "-" for gain in known)))
    rows.append(("measured on", *(f"{arm.gain.pairs} {arm.pairs}" for arm in arms)))
    words = "Tuned, CFG alone and published settings against the default: paired gains, positive is better."
    return f"<h3>Tuned, CFG, published</h3><p>{words}</p>{table(heads, rows)}"
