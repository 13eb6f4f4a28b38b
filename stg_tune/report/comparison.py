"""Several runs on one page: score against relative depth, verdicts beside each other."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import plotly.graph_objects as go

from stg_tune.report.canvas import GREEN, SERIES, SYMBOLS, errors, framed, zero_line
from stg_tune.report.facts import verdict
from stg_tune.report.markup import anchor, plot, section, table
from stg_tune.report.page import assemble, write_page
from stg_tune.report.words import UNIT, describe, judged, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stg_tune.report.findings import Findings, Gain, Layer


class DepthLine(NamedTuple):
    """One stack of one run."""

    run: str
    stack: str
    op: str
    points: tuple[Layer, ...]
    depth: int
    """Blocks of the stack."""
    chosen: tuple[int, ...]
    """Layers that the tuned setting skips with this operation."""

    def relative(self, layer: int) -> float:
        """0 for the first block, 1 for the last."""
        return layer / (self.depth - 1) if self.depth > 1 else 0.5


def write_comparison(runs: Sequence[Findings], path: str | Path) -> Path:
    """Write the page; a run's name is its model, numbered when two runs have the same.

    Raises:
        StgTuneError: the file cannot be written.
    """
    return write_page(render_comparison(runs), Path(path))


def render_comparison(runs: Sequence[Findings]) -> str:
    """The page as text; everything that comes from outside is escaped."""
    names = run_names(runs)
    parts = {"Verdicts": _verdicts(names, runs)}
    for number, op in enumerate(dict.fromkeys(layer.op for run in runs for layer in run.layers), start=1):
        lines = tuple(line for line in depth_lines(names, runs) if line.op == op)
        taken = anchor(op) in map(anchor, parts)
        word = f"{op.capitalize()} {number}" if taken else op.capitalize()
        parts[word] = _depth_section(op, word, lines)
    return assemble(f"Comparison of {plural(len(runs), 'run')}", parts)


def run_names(runs: Sequence[Findings]) -> tuple[str, ...]:
    """The models, told apart by a number where they are the same."""
    models = [run.model for run in runs]
    return tuple(
        f"{model} #{1 + models[:index].count(model)}" if models.count(model) > 1 else model
        for index, model in enumerate(models)
    )


def depth_lines(names: Sequence[str], runs: Sequence[Findings]) -> Iterator[DepthLine]:
    """Every (run, stack, operation) that was screened."""
    for name, run in zip(names, runs, strict=True):
        for stack, op in dict.fromkeys((layer.stack, layer.op) for layer in run.layers):
            points = sorted(
                (one for one in run.layers if (one.stack, one.op) == (stack, op)), key=lambda one: one.layer
            )
            depth = run.depths.get(stack, 1 + points[-1].layer)
            yield DepthLine(name, stack, op, tuple(points), depth, _chosen(run, stack, op))


def depth_figure(lines: Sequence[DepthLine]) -> go.Figure:
    """Gain against relative depth: a colour a run, a symbol a stack, a ring around the layers that were chosen."""
    figure = go.Figure()
    runs, stacks = (
        list(dict.fromkeys(values)) for values in zip(*((one.run, one.stack) for one in lines), strict=True)
    )
    for line in lines:
        colour = SERIES[runs.index(line.run) % len(SERIES)]
        ring = [3 if point.layer in line.chosen else 0 for point in line.points]
        figure.add_trace(
            go.Scatter(
                x=[line.relative(point.layer) for point in line.points],
                y=[point.gain for point in line.points],
                error_y=errors([point.error for point in line.points]),
                mode="lines+markers",
                name=html.escape(f"{line.run}, {line.stack}"),
                line={"color": colour, "width": 1.2, "dash": ("solid", "dash", "dot")[stacks.index(line.stack) % 3]},
                marker={
                    "size": [12 if width else 7 for width in ring],
                    "symbol": SYMBOLS[stacks.index(line.stack) % len(SYMBOLS)],
                    "line": {"width": ring, "color": GREEN},
                },
                text=[f"block {point.layer} of {line.depth}, {point.pairs} pairs" for point in line.points],
                hovertemplate="%{y:.3f}<br>%{text}<extra>%{fullData.name}</extra>",
            )
        )
    zero_line(figure)
    figure.update_xaxes(title="relative depth (0: first block, 1: last)", range=[-0.04, 1.04])
    figure.update_yaxes(title="paired gain of the single block")
    return framed(figure, height=460)


def _depth_section(op: str, word: str, lines: Sequence[DepthLine]) -> str:
    note = (
        "Screens of single layers, each over the same setting of its model without the skip, in standard deviations of "
        "that model's default. Bars are one standard error; rings mark the layers of the tuned setting."
    )
    drawn = plot(f"depth-{word}", depth_figure(lines), f"Gain against relative depth for {op}")
    return section(f"Score against relative depth: {op}", word, drawn, note=note)


def _verdicts(names: Sequence[str], runs: Sequence[Findings]) -> str:
    heads = ("run", "verdict", "gain of tuned", "STG over CFG", "cost", "setting")
    rows = [
        (
            name,
            verdict(run).headline,
            _gain(run.tuned_gain),
            _gain(run.stg_gain),
            f"{run.cost:.2f} ×" if run.cost else "-",
            describe(run.tuned) if run.tuned else "-",
        )
        for name, run in zip(names, runs, strict=True)
    ]
    note = f"Gains on held-out pairs, in {UNIT} of each model's own default: they compare settings, not models."
    return section("Verdicts", "verdicts", table(heads, rows), note=note)


def _gain(gain: Gain | None) -> str:
    return "-" if gain is None else judged(gain)


def _chosen(run: Findings, stack: str, op: str) -> tuple[int, ...]:
    segments = run.tuned.segments if run.tuned else ()
    terms = (term for segment in segments for term in segment.terms if term.stg_scale and term.skip_op == op)
    return tuple(sorted({layer for term in terms for layer in term.skip_layers.get(stack, ())}))
