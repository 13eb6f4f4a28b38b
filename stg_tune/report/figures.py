"""Facts -> Plotly figures. Colours of text and grid are left to the page, which knows the theme."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from stg_tune.report.facts import UNIT, GainRow, HistoryPoint, LayerFacts, TermPoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.report.findings import Layer

OPS = {"attention": "#2f7de1", "residual": "#e0812c"}
"""Colour of each skip operation."""
STAGES = {"baseline": "#8b93a1", "published": "#b0569e", "cfg": "#2f7de1", "search": "#1fa37a"}
"""Colour of each stage."""
GAIN_AXIS = "paired gain over the default"


def gain_figure(rows: Sequence[GainRow]) -> go.Figure:
    """The three gains with their intervals, best readable from the top."""
    figure = go.Figure(
        go.Scatter(
            x=[row.gain.mean for row in rows],
            y=[html.escape(row.label) for row in rows],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [row.gain.high - row.gain.mean for row in rows],
                "arrayminus": [row.gain.mean - row.gain.low for row in rows],
                "thickness": 2.5,
                "width": 6,
            },
            mode="markers",
            marker={
                "size": 12,
                "color": [STAGES["search"] if row.gain.low > 0 else STAGES["baseline"] for row in rows],
            },
            customdata=[[row.gain.low, row.gain.high, row.gain.pairs] for row in rows],
            hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
            "%{customdata[2]} pairs<extra></extra>",
        )
    )
    figure.add_vline(x=0, line={"dash": "dot", "width": 1.5, "color": STAGES["baseline"]})
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title=f"{GAIN_AXIS} ({UNIT})")
    return _framed(figure, height=120 + 55 * len(rows), legend=False)


def layer_figure(facts: LayerFacts) -> go.Figure:
    """Gain against layer, one panel a stack, one colour an operation, the preset's layers shaded."""
    stacks = [stack for stack in facts.depths if any(point.stack == stack for point in facts.points)]
    figure = make_subplots(
        rows=max(1, len(stacks)),
        cols=1,
        shared_yaxes="all",
        subplot_titles=[html.escape(f"{stack} blocks") for stack in stacks] or None,
        vertical_spacing=0.16,
    )
    for row, stack in enumerate(stacks, start=1):
        _add_stack(figure, facts, stack, row)
    # one legend entry an operation, whichever stack it comes up in first
    named: set[str] = set()
    for trace in figure.data:
        trace.showlegend = trace.name not in named
        named.add(trace.name)
    return _framed(figure, height=90 + 250 * max(1, len(stacks)))


def history_figure(points: Sequence[HistoryPoint]) -> go.Figure:
    """Mean gain of every configuration in order, and the best so far."""
    figure = go.Figure()
    for stage in dict.fromkeys(point.stage for point in points):
        mine = [point for point in points if point.stage == stage]
        figure.add_trace(
            go.Scatter(
                x=[point.number for point in mine],
                y=[point.gain for point in mine],
                error_y=_errors([point.error for point in mine]),
                mode="markers",
                name=html.escape(stage),
                marker={
                    "size": 7,
                    "color": STAGES.get(stage, STAGES["baseline"]),
                    "symbol": ["circle" if point.counts else "circle-open" for point in mine],
                },
                text=[f"{html.escape(point.label)}<br>{point.pairs} pairs" for point in mine],
                hovertemplate="#%{x}: %{y:.3f}<br>%{text}<extra></extra>",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=[point.number for point in points],
            y=[point.best for point in points],
            mode="lines",
            name="best so far",
            line={"shape": "hv", "width": 1.5, "color": STAGES["baseline"]},
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(title="configuration")
    figure.update_yaxes(title=GAIN_AXIS)
    return _framed(figure)


def scale_figure(points: Sequence[TermPoint]) -> go.Figure:
    """Gain against the scale of each term; the area of a dot grows with the number of pairs."""
    figure = _term_figure(points, [point.scale for point in points])
    figure.update_xaxes(title="stg_scale")
    return figure


def effect_figure(points: Sequence[TermPoint]) -> go.Figure:
    """Gain against how far the weak prediction is from the prompted one."""
    measured = [point for point in points if point.effect is not None]
    figure = _term_figure(measured, [point.effect or 0.0 for point in measured])
    figure.update_xaxes(title="effect of the skipped layers, ||c - p|| / ||c||")
    return figure


def _add_stack(figure: go.Figure, facts: LayerFacts, stack: str, row: int) -> None:
    for op in OPS:
        points = [point for point in facts.points if (point.stack, point.op) == (stack, op)]
        if points:
            figure.add_trace(_layer_trace(points, op), row=row, col=1)
    for layer in facts.chosen.get(stack, ()):
        figure.add_vrect(
            x0=layer - 0.45, x1=layer + 0.45, fillcolor="#1fa37a", opacity=0.18, line_width=0, row=row, col=1
        )
    figure.add_hline(y=0, line={"dash": "dot", "width": 1.5, "color": STAGES["baseline"]}, row=row, col=1)
    figure.update_xaxes(title="block", dtick=max(1, facts.depths[stack] // 16), row=row, col=1)
    figure.update_yaxes(title="paired gain", row=row, col=1)


def _layer_trace(points: Sequence[Layer], op: str) -> go.Scatter:
    shift = -0.12 if op == "attention" else 0.12
    return go.Scatter(
        x=[point.layer + shift for point in points],
        y=[point.gain for point in points],
        error_y=_errors([point.error for point in points]),
        mode="markers",
        name=op,
        legendgroup=op,
        marker={"size": 9, "color": OPS[op], "symbol": "circle" if op == "attention" else "diamond"},
        customdata=[[point.layer, point.scale, point.pairs] for point in points],
        hovertemplate=f"block %{{customdata[0]}}, {op}, scale %{{customdata[1]:.3g}}: "
        "%{y:.3f} (%{customdata[2]} pairs)<extra></extra>",
    )


def _term_figure(points: Sequence[TermPoint], x: Sequence[float]) -> go.Figure:
    figure = go.Figure()
    for term, op in sorted({(point.term, point.op) for point in points}):
        mine = [(at, point) for at, point in zip(x, points, strict=True) if (point.term, point.op) == (term, op)]
        figure.add_trace(
            go.Scatter(
                x=[at for at, _ in mine],
                y=[point.gain for _, point in mine],
                mode="markers",
                name=html.escape(f"{term}, {op}"),
                marker={
                    "size": [5 + 2.2 * math.sqrt(point.pairs) for _, point in mine],
                    "color": OPS.get(op),
                    "opacity": 0.75,
                    "symbol": "diamond" if term == "temporal" else "circle",
                },
                text=[f"{html.escape(point.label)}<br>{point.pairs} pairs" for _, point in mine],
                hovertemplate="%{x:.3g}: %{y:.3f}<br>%{text}<extra></extra>",
            )
        )
    figure.add_hline(y=0, line={"dash": "dot", "width": 1.5, "color": STAGES["baseline"]})
    figure.update_yaxes(title=GAIN_AXIS)
    return _framed(figure)


def _errors(errors: Sequence[float]) -> dict[str, object]:
    shown = [error if math.isfinite(error) else None for error in errors]
    return {"type": "data", "array": shown, "thickness": 1.2, "width": 0}


def _framed(figure: go.Figure, *, height: int = 360, legend: bool = True) -> go.Figure:
    return figure.update_layout(
        template="none",
        height=height,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=legend,
        legend={"orientation": "h", "y": 1.12, "x": 0},
        hoverlabel={"align": "left"},
        xaxis={"automargin": True},
        yaxis={"automargin": True},
    )
