"""What all figures share: colours that colour-blind readers tell apart, error bars, the frame."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go

# Okabe and Ito (https://jfly.uni-koeln.de/color/), a little lighter or darker so that they stand on white and on black
BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY = (
    "#2f7de1",
    "#d98200",
    "#0f9d74",
    "#c06a9c",
    "#d55e00",
    "#56b4e9",
    "#8b93a1",
)
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
"""Colours of models, stacks and the like, in order."""
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star")
"""Symbols that go with them: colour is never the only difference."""
OPS = {"attention": BLUE, "residual": ORANGE}
"""Colour of each skip operation."""
STAGES = {"baseline": GREY, "published": PURPLE, "cfg": BLUE, "search": GREEN}
"""Colour of each stage."""
STAGE_SYMBOLS = {"baseline": "square", "published": "star", "cfg": "diamond", "search": "circle"}
DIVERGING = ((0.0, "#a6480a"), (0.25, "#e8a566"), (0.5, "#d9dce1"), (0.75, "#6fa8dc"), (1.0, "#1c57a5"))
"""Loss (brown) to gain (blue), grey at zero."""
GAIN_AXIS = "paired gain over the default"
MOST_BARS = 400
"""Points a trace with error bars may have; more are a grey mass that takes seconds to draw."""


def errors(values: Sequence[float]) -> dict[str, object] | None:
    """Error bars of one standard error; a point whose error is unknown has none."""
    if len(values) > MOST_BARS:
        return None
    shown = [value if math.isfinite(value) else None for value in values]
    return {"type": "data", "array": shown, "thickness": 1.2, "width": 0}


def zero_line(figure: go.Figure, **place: int) -> None:
    """The level of the default."""
    figure.add_hline(y=0, line={"dash": "dot", "width": 1.5, "color": GREY}, **place)


def framed(figure: go.Figure, *, height: int = 360, legend: bool = True) -> go.Figure:
    """Size, margins, no background: colours of text and grid are left to the page, which knows the theme."""
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True, title_standoff=14)
    return figure.update_layout(
        template="none",
        height=height + 26,
        margin={"l": 60, "r": 20, "t": 66, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=legend,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hoverlabel={"align": "left"},
    )
