"""Figures and facts -> one HTML file that opens without a network and runs nothing but its own two scripts."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from plotly.offline import get_plotlyjs

from stg_tune.errors import StgTuneError
from stg_tune.report import facts, figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import plotly.graph_objects as go

    from stg_tune.report.findings import Clip, Findings

MAX_CLIP_BYTES = 24 * 2**20
"""Room for all clips of a page together, in bytes of MP4."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>stg-tune</h1><p>{title}</p><button id="theme" type="button">light / dark</button></header>
{body}
</main>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def write_report(findings: Findings, path: str | Path) -> Path:
    """Write the page.

    Raises:
        StgTuneError: the file cannot be written, or a clip cannot be read.
    """
    target = Path(path)
    page = render(findings)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StgTuneError(f"cannot write the report {target}: {error.strerror or error}") from error
    return target


def render(findings: Findings) -> str:
    """The page as text; everything that comes from outside is escaped."""
    plotly, script = get_plotlyjs(), _asset("page.js")
    # by hash: a script that slipped through the escaping would still not run
    policy = (
        f"default-src 'none'; script-src {_source_hash(plotly)} {_source_hash(script)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; media-src data:"
    )
    return _PAGE.format(
        policy=policy,
        title=html.escape(f"Tuning report of {findings.model}"),
        style=_asset("page.css"),
        body="\n".join(_sections(findings)),
        plotly=plotly,
        script=script,
    )


def _sections(findings: Findings) -> Iterator[str]:
    yield _verdict(findings)
    rows = facts.gain_rows(findings)
    if rows:
        yield _plot("Where the gain comes from", "gain", figures.gain_figure(rows), _GAIN_NOTE)
    if findings.clips:
        yield _clips(findings.clips)
    yield from _plots(findings)
    if findings.scorers:
        yield _scorers(findings)
    if findings.finalists:
        yield _finalists(findings)
    if findings.preset is not None:
        text = html.escape(json.dumps(findings.preset, indent=2, ensure_ascii=False))
        yield f"<section><h2>Preset</h2><pre>{text}</pre></section>"
    yield _provenance(findings)


_GAIN_NOTE = (
    "On pairs that the search never saw. A gain is a weighted mean over the scorers of the paired differences, each in "
    "standard deviations of the baseline between pairs. An interval that crosses zero shows nothing."
)
_LAYER_NOTE = (
    "Screen of single layers: gain over the same setting without the skip. Bars are one standard error; shaded blocks "
    "are those of the tuned setting. Each dot is a few pairs only, so a single dot proves nothing."
)
_HISTORY_NOTE = (
    "Configurations in the order they were tried, on the search pairs. Bars are one standard error. Open circles were "
    "stopped early or break a guard; they do not count for the best."
)
_SCALE_NOTE = "Every term that was tried. Larger dots were seen on more pairs."
_EFFECT_NOTE = "How far skipping moves the prediction. A term at zero does nothing; a term far right overdoes it."


def _plots(findings: Findings) -> Iterator[str]:
    layers = facts.layer_facts(findings)
    if layers.points:
        yield _plot("Score against layer", "layers", figures.layer_figure(layers), _LAYER_NOTE)
    history = facts.history_facts(findings)
    if history:
        yield _plot("History", "history", figures.history_figure(history), _HISTORY_NOTE)
    terms = facts.term_facts(findings)
    if terms:
        scale = _plot("Scale", "scale", figures.scale_figure(terms), _SCALE_NOTE)
        effect = _plot("Effect", "effect", figures.effect_figure(terms), _EFFECT_NOTE)
        yield f'<div class="pair-of">{scale}{effect}</div>'


def _verdict(findings: Findings) -> str:
    verdict = facts.verdict(findings)
    lines = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in verdict.sentences)
    kind = "verdict improved" if verdict.improved else "verdict"
    return f'<section class="{kind}"><h2>{html.escape(verdict.headline)}</h2>{lines}</section>'


def _plot(title: str, name: str, figure: go.Figure, note: str) -> str:
    # "<" as an escape: the text of a script element ends at the first "</script", wherever that comes from
    data = (figure.to_json() or "{}").replace("<", "\\u003c")
    return (
        f"<section><h2>{html.escape(title)}</h2><p>{html.escape(note)}</p>"
        f'<div class="figure" role="img" aria-label="{html.escape(title)}" data-figure="figure-{name}"></div>'
        f'<script type="application/json" id="figure-{name}">{data}</script></section>'
    )


def _clips(clips: Sequence[Clip]) -> str:
    shown = "".join(_clip(clip, *videos) for clip, videos in _embedded(clips))
    return (
        "<section><h2>Side by side</h2><p>Left: default. Right: tuned. Same prompt, same noise; pairs that the search "
        f'never saw, not picked by result.</p><div class="clips">{shown}</div></section>'
    )


def _embedded(clips: Iterable[Clip]) -> Iterator[tuple[Clip, tuple[bytes, bytes]]]:
    room = MAX_CLIP_BYTES
    for clip in clips:
        videos = (_bytes(clip.baseline), _bytes(clip.tuned))
        room -= sum(map(len, videos))
        if room < 0:
            return
        yield clip, videos


def _clip(clip: Clip, baseline: bytes, tuned: bytes) -> str:
    videos = _video(baseline, "default") + _video(tuned, "tuned")
    caption = f"<b>{html.escape(clip.prompt)}</b> <small>seed {clip.seed}</small>"
    return f"<figure><div>{videos}</div><figcaption>{caption}</figcaption></figure>"


def _video(content: bytes, label: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<video autoplay loop muted playsinline title="{label}" src="data:video/mp4;base64,{data}"></video>'


def _scorers(findings: Findings) -> str:
    heads = ("scorer", "weight", "default", "tuned", "gain, with interval", "judgement", "unit")
    note = (
        "On the held-out pairs, in the scorer's own unit; a positive gain is better whichever way the scorer points. "
        "Scorers of weight 0 are guards or for information: frozen or glaring videos must not win."
    )
    rows = [
        (
            row.name,
            f"{row.weight:.3g}",
            f"{row.baseline:.4g}",
            f"{row.tuned:.4g}",
            f"{row.gain.mean:+.3g} [{row.gain.low:+.3g}, {row.gain.high:+.3g}]",
            row.judgement,
            row.unit,
        )
        for row in facts.scorer_rows(findings)
    ]
    return _table("Every scorer by itself", note, heads, rows)


def _finalists(findings: Findings) -> str:
    heads = ("finalist", "in-sample gain", "held-out gain", "setting")
    note = (
        "The in-sample gain is on the pairs that chose the setting, so it is too high; the held-out gain is what it "
        "had when it left the race."
    )
    rows = [
        (
            item.name,
            f"{item.in_sample:+.2f}",
            "-" if item.held_out is None else f"{item.held_out:+.2f}",
            facts.describe(item.spec),
        )
        for item in findings.finalists
    ]
    return _table("The race", note, heads, rows)


def _table(title: str, note: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f"<section><h2>{html.escape(title)}</h2><p>{html.escape(note)}</p>"
        f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div></section>'
    )


def _cell(text: str) -> str:
    return f'<td class="{text}">{text}</td>' if text in ("better", "worse") else f"<td>{html.escape(text)}</td>"


def _provenance(findings: Findings) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in findings.provenance.items()
    )
    return f'<section><h2>Provenance</h2><div class="scroll"><table>{rows}</table></div></section>'


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StgTuneError(f"cannot read the clip {path}: {error.strerror or error}") from error


def _asset(name: str) -> str:
    return resources.files("stg_tune.report").joinpath(name).read_text(encoding="utf-8")


def _source_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
