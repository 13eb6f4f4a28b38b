"""Facts -> Plotly figures of gains, layers, the course of the search and its terms."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from stg_tune.report.canvas import (
    GAIN_AXIS,
    GREEN,
    GREY,
    OPS,
    PURPLE,
    STAGE_SYMBOLS,
    STAGES,
    errors,
    framed,
    zero_line,
)
from stg_tune.report.words import UNIT, blocks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.report.facts import GainRow, HistoryPoint, LayerFacts, TermPoint
    from stg_tune.report.findings import Gain, Layer


def gain_figure(rows: Sequence[GainRow]) -> go.Figure:
    """The gains with their intervals, in the order of the rows from the top."""
    figure = go.Figure(
        go.Scatter(
            x=[row.gain.mean for row in rows],
            y=[_wrapped(row.label) for row in rows],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [row.gain.high - row.gain.mean for row in rows],
                "arrayminus": [row.gain.mean - row.gain.low for row in rows],
                "thickness": 2.5,
                "color": GREY,
                "width": 6,
            },
            mode="markers",
            marker={
                "size": 12,
                "color": [GREEN if row.gain.low > 0 else GREY for row in rows],
                "symbol": [_told(row.gain) for row in rows],
            },
            customdata=[[row.gain.low, row.gain.high, row.gain.pairs] for row in rows],
            hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
            "%{customdata[2]} pairs<extra></extra>",
        )
    )
    figure.add_vline(x=0, line={"dash": "dot", "width": 1.5, "color": GREY})
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title=f"{GAIN_AXIS}<br>({UNIT})")
    return framed(figure, height=130 + 55 * len(rows), legend=False)


def layer_figure(facts: LayerFacts) -> go.Figure:
    """Gain against layer, one panel a stack, one colour an operation, the preset's layers shaded."""
    stacks = [stack for stack in facts.depths if any(point.stack == stack for point in facts.points)]
    figure = make_subplots(
        rows=max(1, len(stacks)),
        cols=1,
        shared_yaxes="all",
        subplot_titles=[html.escape(blocks_of(stack)) for stack in stacks] or None,
        vertical_spacing=0.14 if len(stacks) < 3 else 0.28 / len(stacks),
    )
    for row, stack in enumerate(stacks, start=1):
        _add_stack(figure, facts, stack, row)
    figure.update_xaxes(title="block", row=max(1, len(stacks)), col=1)
    # one legend entry an operation, whichever stack it comes up in first
    named: set[str] = set()
    for trace in figure.data:
        trace.showlegend = trace.name not in named
        named.add(trace.name)
    panels = 250 * max(1, len(stacks))
    # above the title of the first panel, which stands where the legends of other figures are
    return framed(figure, height=90 + panels).update_layout(legend_y=1 + 26 / panels)


def history_figure(points: Sequence[HistoryPoint]) -> go.Figure:
    """Mean gain of every configuration against the work spent so far, and the best so far."""
    figure = go.Figure()
    for stage in dict.fromkeys(point.stage for point in points):
        figure.add_trace(_stage_trace(stage, [point for point in points if point.stage == stage]))
    if any(point.best > -math.inf for point in points):
        figure.add_trace(_best_trace([point for point in points if point.best > -math.inf]))
    figure.update_xaxes(title="work so far, in videos with the default setting")
    figure.update_yaxes(title=GAIN_AXIS)
    return framed(figure)


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


def _told(gain: Gain) -> str:
    """Filled when the interval is on one side of zero: the colour alone would not do."""
    return "circle" if gain.low > 0 or gain.high < 0 else "circle-open"


def _wrapped(label: str) -> str:
    return html.escape(label).replace(" vs ", "<br>vs ")


def _add_stack(figure: go.Figure, facts: LayerFacts, stack: str, row: int) -> None:
    operations = dict.fromkeys([*OPS, *(point.op for point in facts.points)])
    for op in operations:
        points = [point for point in facts.points if (point.stack, point.op) == (stack, op)]
        if points:
            figure.add_trace(_layer_trace(points, op), row=row, col=1)
    if any(place[0] == stack for places in facts.published.values() for place in places):
        figure.add_trace(_published_trace(facts, stack), row=row, col=1)
    for layer in facts.chosen.get(stack, ()):
        figure.add_vrect(x0=layer - 0.45, x1=layer + 0.45, fillcolor=GREEN, opacity=0.18, line_width=0, row=row, col=1)
    zero_line(figure, row=row, col=1)
    depth = facts.depths[stack]
    figure.update_xaxes(dtick=max(1, depth // 16), range=[-0.6, depth - 0.4], row=row, col=1)
    figure.update_yaxes(title="paired gain", row=row, col=1)


def _layer_trace(points: Sequence[Layer], op: str) -> go.Scatter:
    shift = -0.12 if op == "attention" else 0.12
    return go.Scatter(
        x=[point.layer + shift for point in points],
        y=[point.gain for point in points],
        error_y=errors([point.error for point in points]),
        mode="markers",
        name=html.escape(op),
        legendgroup=op,
        marker={"size": 9, "color": OPS.get(op, GREY), "symbol": "circle" if op == "attention" else "diamond"},
        customdata=[[point.layer, point.scale, point.pairs, _error(point.error)] for point in points],
        hovertemplate=f"block %{{customdata[0]}}, {html.escape(op)}, scale %{{customdata[1]:.3g}}: "
        "%{y:.3f} ± %{customdata[3]} (%{customdata[2]} pairs)<extra></extra>",
    )


def _published_trace(facts: LayerFacts, stack: str) -> go.Scatter:
    """Stars at the bottom: the screen may never have measured that block with that operation."""
    named = [
        (layer, f"{html.escape(name)}: {html.escape(op)} of block {layer}")
        for name, places in facts.published.items()
        for at, op, layer in places
        if at == stack
    ]
    floor = min((point.gain for point in facts.points if point.stack == stack), default=0.0)
    return go.Scatter(
        x=[layer for layer, _ in named],
        y=[min(floor, 0.0)] * len(named),
        mode="markers",
        name="published",
        legendgroup="published",
        marker={"size": 13, "color": PURPLE, "symbol": "star"},
        text=[text for _, text in named],
        hovertemplate="%{text}<extra></extra>",
    )


def _error(error: float) -> str:
    return f"{error:.3f}" if math.isfinite(error) else "unknown"


def _stage_trace(stage: str, points: Sequence[HistoryPoint]) -> go.Scatter:
    symbol = STAGE_SYMBOLS.get(stage, "circle")
    return go.Scatter(
        x=[point.spent for point in points],
        y=[point.gain for point in points],
        error_y=errors([point.error for point in points]),
        mode="markers",
        name=html.escape(stage),
        marker={
            "size": 7,
            "color": STAGES.get(stage, GREY),
            "symbol": [
                symbol if point.counts else "x-thin-open" if point.pruned else f"{symbol}-open" for point in points
            ],
        },
        text=[f"#{point.number}, {html.escape(point.label)}<br>{_seen(point)}" for point in points],
        hovertemplate="%{y:.3f} after %{x:.0f} videos<br>%{text}<extra></extra>",
    )


def _seen(point: HistoryPoint) -> str:
    return f"{point.pairs} pairs{', stopped early' if point.pruned else ''}"


def _best_trace(points: Sequence[HistoryPoint]) -> go.Scatter:
    return go.Scatter(
        x=[point.spent for point in points],
        y=[point.best for point in points],
        mode="lines",
        name="best so far",
        line={"shape": "hv", "width": 1.5, "color": GREY},
        hoverinfo="skip",
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
    zero_line(figure)
    figure.update_yaxes(title=GAIN_AXIS)
    return framed(figure)
