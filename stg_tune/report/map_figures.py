"""Facts -> Plotly figures of maps, trade-offs, prompts, importance and effects over the steps."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from stg_tune.report.canvas import (
    BLUE,
    DIVERGING,
    GAIN_AXIS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SERIES,
    SYMBOLS,
    framed,
    zero_line,
)
from stg_tune.report.words import blocks_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.report.findings import Knob
    from stg_tune.report.fronts import FrontFacts, FrontPoint
    from stg_tune.report.maps import MapCell, MapFacts, SurfaceFacts
    from stg_tune.report.prompts import ScatterFacts

KINDS = {
    "search": (GREY, "circle", 6),
    "CFG only": (BLUE, "diamond", 8),
    "published": (PURPLE, "star", 12),
    "default": (ORANGE, "square", 11),
    "tuned": (GREEN, "circle", 13),
}
"""Kind of a configuration -> colour, symbol, size; later ones lie on top."""


def map_figure(facts: MapFacts) -> go.Figure:
    """Gain over layer and band of scale, one panel a stack; places that nobody tried stay empty."""
    stacks = [stack for stack in facts.depths if any(cell.stack == stack for cell in facts.cells)]
    figure = make_subplots(
        rows=max(1, len(stacks)),
        cols=1,
        subplot_titles=[html.escape(blocks_of(stack)) for stack in stacks] or None,
        vertical_spacing=0.16 if len(stacks) < 3 else 0.3 / len(stacks),
    )
    for row, stack in enumerate(stacks, start=1):
        figure.add_trace(_map_trace(facts, stack), row=row, col=1)
        figure.update_xaxes(dtick=max(1, facts.depths[stack] // 16), row=row, col=1)
        figure.update_yaxes(title="stg_scale", row=row, col=1)
    figure.update_xaxes(title="block", row=max(1, len(stacks)), col=1)
    limit = max((abs(cell.gain) for cell in facts.cells), default=1.0) or 1.0
    figure.update_layout(coloraxis=_gain_colours(limit))
    return framed(figure, height=90 + 230 * max(1, len(stacks)), legend=False)


def surface_figure(facts: SurfaceFacts) -> go.Figure:
    """Smoothed gain over the strengths of two stacks, and the configurations behind it."""
    limit = max((abs(value) for row in facts.smooth for value in row if value is not None), default=1.0) or 1.0
    figure = go.Figure(
        go.Contour(
            x=facts.axes[0],
            y=facts.axes[1],
            z=facts.smooth,
            coloraxis="coloraxis",
            contours={"coloring": "heatmap", "showlines": True},
            line={"width": 0.5},
            connectgaps=False,
            hovertemplate="%{x:.2g}, %{y:.2g}: about %{z:.2f}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[point.x for point in facts.points],
            y=[point.y for point in facts.points],
            mode="markers",
            marker={"size": 6, "color": "rgba(20,20,20,.55)", "line": {"width": 1, "color": "#fff"}},
            customdata=[[point.gain, point.pairs] for point in facts.points],
            text=[html.escape(point.label) for point in facts.points],
            hovertemplate="%{customdata[0]:.3f} on %{customdata[1]} pairs<br>%{text}<extra></extra>",
        )
    )
    figure.update_layout(coloraxis=_gain_colours(limit))
    figure.update_xaxes(title=html.escape(f"stg_scale of {blocks_of(facts.stacks[0])} (0: not skipped)"))
    figure.update_yaxes(title=html.escape(f"stg_scale of {blocks_of(facts.stacks[1])}"))
    return framed(figure, height=420, legend=False)


def front_figure(facts: FrontFacts, title: str) -> go.Figure:
    """Gain against cost or motion; a line joins the configurations that nothing beats in both."""
    figure = go.Figure()
    if len(facts.front) > 1:
        figure.add_trace(
            go.Scatter(
                x=[point.x for point in facts.front],
                y=[point.gain for point in facts.front],
                mode="lines",
                name="front",
                line={"width": 1.5, "color": GREEN, "dash": "dash"},
                hoverinfo="skip",
            )
        )
    for kind in KINDS:
        mine = [point for point in facts.points if point.kind == kind]
        if mine:
            figure.add_trace(_kind_trace(kind, mine))
    zero_line(figure)
    figure.add_vline(x=1, line={"dash": "dot", "width": 1.5, "color": GREY})
    figure.update_xaxes(title=title)
    figure.update_yaxes(title=GAIN_AXIS)
    return framed(figure)


def scatter_figure(facts: ScatterFacts) -> go.Figure:
    """Tuned against default, a dot a pair; on the line nothing changed."""
    figure = go.Figure()
    for better, name, colour, symbol in ((True, "better", BLUE, "triangle-up"), (False, "not better", ORANGE, "x")):
        mine = [point for point in facts.points if point.better is better]
        figure.add_trace(
            go.Scatter(
                x=[point.default for point in mine],
                y=[point.tuned for point in mine],
                mode="markers",
                name=f"{name} ({len(mine)})",
                marker={"size": 8, "color": colour, "symbol": symbol, "opacity": 0.8},
                text=[html.escape(point.label) for point in mine],
                hovertemplate="%{x:.4g} → %{y:.4g}<br>%{text}<extra></extra>",
            )
        )
    ends = [value for point in facts.points for value in (point.default, point.tuned)]
    low, high = min(ends), max(ends)
    figure.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, line={"dash": "dot", "width": 1.5, "color": GREY})
    figure.update_xaxes(title=f"default ({html.escape(facts.unit)})")
    figure.update_yaxes(title="tuned")
    return framed(figure, height=330)


def knob_figure(knobs: Sequence[Knob]) -> go.Figure:
    """Importance of each number, with the mark that shuffled gains reach."""
    names = [html.escape(knob.name) for knob in knobs]
    figure = go.Figure(
        go.Bar(
            x=[knob.share for knob in knobs],
            y=names,
            orientation="h",
            name="importance",
            marker={"color": [BLUE if knob.share > knob.chance else GREY for knob in knobs]},
            hovertemplate="%{y}: %{x:.0%}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[knob.chance for knob in knobs],
            y=names,
            mode="markers",
            name="reached by chance",
            marker={"symbol": "line-ns-open", "size": 16, "color": ORANGE, "line": {"width": 2.5}},
            hovertemplate="by chance up to %{x:.0%}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="share of the importance", tickformat=".0%", rangemode="tozero")
    return framed(figure, height=110 + 28 * len(knobs))


def steps_figure(effects: Mapping[str, Sequence[float | None]]) -> go.Figure:
    """Effect of each term in every step."""
    figure = go.Figure()
    for index, (term, values) in enumerate(effects.items()):
        figure.add_trace(
            go.Scatter(
                x=list(range(len(values))),
                y=list(values),
                mode="lines+markers",
                name=html.escape(term),
                line={"color": SERIES[index % len(SERIES)]},
                marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 7},
                hovertemplate="step %{x}: %{y:.3g}<extra></extra>",
            )
        )
    figure.update_xaxes(title="denoising step (0: noisiest)")
    figure.update_yaxes(title="||c - p|| / ||c||", rangemode="tozero")
    return framed(figure)


def _map_trace(facts: MapFacts, stack: str) -> go.Heatmap:
    bands = range(len(facts.edges) - 1)
    cells = {(cell.layer, cell.band): cell for cell in facts.cells if cell.stack == stack}
    layers = range(facts.depths[stack])
    return go.Heatmap(
        x=list(layers),
        y=[f"{facts.edges[band]:.2g} – {facts.edges[band + 1]:.2g}" for band in bands],
        z=[[cells[layer, band].gain if (layer, band) in cells else None for layer in layers] for band in bands],
        text=[[_behind(cells.get((layer, band))) for layer in layers] for band in bands],
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="block %{x}, scale %{y}: %{z:.2f}<br>%{text}<extra></extra>",
    )


def _behind(cell: MapCell | None) -> str:
    return f"{cell.configurations} configurations, {cell.pairs} pairs" if cell else ""


def _kind_trace(kind: str, points: Sequence[FrontPoint]) -> go.Scatter:
    colour, symbol, size = KINDS[kind]
    return go.Scatter(
        x=[point.x for point in points],
        y=[point.gain for point in points],
        mode="markers",
        name=kind,
        marker={
            "size": size,
            "color": colour,
            "symbol": symbol,
            "line": {"width": [1.5 if point.best else 0 for point in points], "color": GREEN},
        },
        text=[f"{html.escape(point.label)}<br>{point.pairs} pairs" for point in points],
        hovertemplate="%{x:.3g}: %{y:.3f}<br>%{text}<extra></extra>",
    )


def _gain_colours(limit: float) -> dict[str, object]:
    """Zero is always the grey in the middle."""
    return {
        "colorscale": [list(stop) for stop in DIVERGING],
        "cmin": -limit,
        "cmax": limit,
        "colorbar": {"title": {"text": "gain"}, "thickness": 12, "len": 0.9},
    }
