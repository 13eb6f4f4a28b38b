"""Sections -> one HTML file that opens without a network and runs nothing but its own two scripts."""

from __future__ import annotations

import base64
import hashlib
import html
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from plotly.offline import get_plotlyjs

from stg_tune.errors import StgTuneError
from stg_tune.report.markup import anchor
from stg_tune.report.player import Beside, Embedded
from stg_tune.report.sections import clips_section, sections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stg_tune.report.findings import Findings
    from stg_tune.report.player import Films

MAX_BYTES = 25_000_000
"""A page with everything in it is not larger than this."""

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
<a class="skip" href="#main">to the content</a>
<header><h1>stg-tune</h1><p>{title}</p><button id="theme" type="button">light / dark</button>
<nav aria-label="parts of this page">{links}</nav></header>
<main id="main">
{body}
</main>
<div id="said" role="status" aria-live="polite"></div>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def write_report(
    findings: Findings,
    path: str | Path,
    *,
    assets: bool = False,
    shrink: Callable[[Path], bytes] | None = None,
) -> Path:
    """Write the page.

    Args:
        findings: What it shows.
        path: The HTML file.
        assets: Put the videos, as they are, into a folder beside the page instead of into it.
        shrink: Makes a smaller MP4 of a clip that would not fit into the page.

    Raises:
        StgTuneError: the file cannot be written, or a clip cannot be read.
    """
    target = Path(path)
    beside = f"{target.stem}-assets"
    films = Beside(target.with_name(beside), beside) if assets else None
    return write_page(render(findings, films=films, shrink=shrink), target)


def render(findings: Findings, *, films: Films | None = None, shrink: Callable[[Path], bytes] | None = None) -> str:
    """The page as text; everything that comes from outside is escaped.

    Args:
        findings: What it shows.
        films: Where the videos are; default: in the page, as many as fit.
        shrink: Makes a smaller MP4 of a clip that would not fit into the page.
    """
    title = f"Tuning report of {findings.model}"
    parts = dict(sections(findings))
    if findings.clips:
        room = MAX_BYTES - len(assemble(title, parts).encode())
        embedded = Embedded(room=room - 10_000, shrink=shrink, share=len(findings.clips))
        clips = clips_section(findings.clips, films or embedded)
        parts = {"Verdict": parts.pop("Verdict"), **({"Clips": clips} if clips else {}), **parts}
    return assemble(title, parts)


def assemble(title: str, parts: dict[str, str]) -> str:
    """A page of sections.

    Args:
        title: Of the page.
        parts: Word of the navigation -> section, whose ``id`` is the ``anchor`` of that word.
    """
    plotly, script = get_plotlyjs(), "".join(map(_asset, ("page.js", "player.js")))
    # by hash: a script that slipped through the escaping would still not run
    policy = (
        f"default-src 'none'; script-src {_source_hash(plotly)} {_source_hash(script)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; media-src data: file: 'self'; base-uri 'none'; "
        "form-action 'none'"
    )
    return _PAGE.format(
        policy=policy,
        title=html.escape(title),
        style=_asset("page.css"),
        links=_links(parts),
        body="\n".join(parts.values()),
        plotly=plotly,
        script=script,
    )


def write_page(page: str, target: Path) -> Path:
    """Write a page, with one message when that cannot be done."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StgTuneError(f"cannot write the report {target}: {error.strerror or error}") from error
    return target


def _links(names: Iterable[str]) -> str:
    return "".join(f'<a href="#{anchor(name)}">{html.escape(name)}</a>' for name in names)


def _asset(name: str) -> str:
    return resources.files("stg_tune.report").joinpath(name).read_text(encoding="utf-8")


def _source_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
