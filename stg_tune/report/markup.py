"""Pieces of HTML; everything that comes from outside is escaped here."""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import plotly.graph_objects as go

SHORT = 8
"""Characters of a cell that is never broken over two lines."""


def anchor(text: str) -> str:
    """Letters, digits and hyphens of a text, small: fit for an ``id`` and for an address, whatever the text holds."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


def section(title: str, name: str, *parts: str, note: str = "", kind: str = "") -> str:
    """A part of the page that the navigation can lead to by ``anchor(name)``; ``parts`` are markup already."""
    words = f"<p>{html.escape(note)}</p>" if note else ""
    style = f' class="{kind}"' if kind else ""
    return f'<section id="{anchor(name)}"{style}><h2>{html.escape(title)}</h2>{words}{"".join(parts)}</section>'


def plot(name: str, figure: go.Figure, label: str) -> str:
    """A figure that the script of the page draws when it comes into sight.

    Args:
        name: Its ``anchor`` is unique on the page.
        figure: The figure.
        label: What it shows, for those who cannot see it.
    """
    place = f"figure-{anchor(name)}"
    height = int(figure.layout.height or 360)
    # "<" as an escape: the text of a script element ends at the first "</script", wherever that comes from
    data = (figure.to_json() or "{}").replace("<", "\\u003c")
    return (
        f'<div class="figure" role="img" aria-label="{html.escape(label)}" data-figure="{place}" '
        f'style="min-height:{height}px"></div><script type="application/json" id="{place}">{data}</script>'
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls by itself when it is wider than the page."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values."""
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(text)}</td></tr>' for name, text in rows
    )
    return f'<div class="scroll" tabindex="0"><table>{body}</table></div>'


def code(name: str, text: str, *, label: str = "") -> str:
    """Text to copy, with a button that does it."""
    title = f"<span>{html.escape(label)}</span>" if label else ""
    return (
        f'<div class="code">{title}<button type="button" class="copy" data-copy="{anchor(name)}" '
        f'aria-label="copy {html.escape(label or "this text")}">copy</button>'
        f'<pre id="{anchor(name)}" tabindex="0">{html.escape(text)}</pre></div>'
    )


def fold(title: str, *parts: str) -> str:
    """Something that is there for those who want it."""
    return f"<details><summary>{html.escape(title)}</summary>{''.join(parts)}</details>"


def lead(text: str) -> str:
    """What a figure shows, in one sentence."""
    return f'<p class="lead">{html.escape(text)}</p>' if text else ""


def side_by_side(*parts: str) -> str:
    """Beside each other where there is room."""
    return f'<div class="pair-of">{"".join(parts)}</div>'


def number(value: Any, form: str = ".4g") -> str:
    """A number in a table; what is not known is a dash, never 0."""
    return format(value, form) if isinstance(value, int | float) and math.isfinite(value) else "-"


def _cell(text: str) -> str:
    judged = next((word for word in ("better", "worse") if text == word or text.endswith(f", {word}")), None)
    kind = judged or ("short" if len(text) <= SHORT else None)
    return f'<td class="{kind}">{html.escape(text)}</td>' if kind else f"<td>{html.escape(text)}</td>"
