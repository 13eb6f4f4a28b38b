"""Figures show the facts: the numbers in the traces are those of the facts."""

from dataclasses import replace

import pytest

from stg_tune.report import Findings
from stg_tune.report.canvas import MOST_BARS
from stg_tune.report.facts import gain_rows, history_facts, layer_facts, term_facts
from stg_tune.report.figures import effect_figure, gain_figure, history_figure, layer_figure, scale_figure


def test_gains_carry_their_intervals(findings: Findings) -> None:
    trace = gain_figure(gain_rows(findings)).data[0]
    assert list(trace.x) == [0.62, 0.2, 0.42, -0.5]
    assert trace.error_x.array == pytest.approx([0.21, 0.15, 0.28, 0.2])
    assert trace.error_x.arrayminus == pytest.approx([0.21, 0.15, 0.45, 0.2])
    assert list(trace.marker.symbol) == ["circle", "circle", "circle-open", "circle"]


def test_layers_have_a_panel_a_stack_and_one_legend_entry_an_operation(findings: Findings) -> None:
    figure = layer_figure(layer_facts(findings))
    assert [trace.name for trace in figure.data if trace.showlegend] == ["attention", "residual", "published"]
    single = [trace for trace in figure.data if trace.name != "published"]
    assert [len(trace.x) for trace in single] == [8, 8, 8, 8]
    assert figure.layout.xaxis.range == (-0.6, 7.6)  # blocks that were not measured have their place too
    stars = [list(trace.x) for trace in figure.data if trace.name == "published"]
    assert stars == [[5], [2, 3]]
    shaded = [(shape.x0 + shape.x1) / 2 for shape in figure.layout.shapes if shape.type == "rect"]
    assert shaded == pytest.approx([3, 4])


def test_a_lone_stack_keeps_its_own_panel(findings: Findings) -> None:
    facts = layer_facts(findings)
    only = facts._replace(points=tuple(point for point in facts.points if point.stack == "temporal"))
    figure = layer_figure(only)
    assert [note.text for note in figure.layout.annotations] == ["temporal blocks"]


def test_a_single_value_has_no_error_bar(findings: Findings) -> None:
    points = tuple(point._replace(error=float("inf")) for point in history_facts(findings)[:1])
    assert list(history_figure(points).data[0].error_y.array) == [None]


def test_history_has_a_trace_a_stage_and_the_best(findings: Findings) -> None:
    figure = history_figure(history_facts(findings))
    assert [trace.name for trace in figure.data] == ["baseline", "cfg", "search", "best so far"]
    symbols = list(figure.data[2].marker.symbol)
    assert (symbols.count("circle-open"), symbols.count("x-thin-open")) == (1, 1)


def test_thousands_of_points_have_no_error_bars(findings: Findings) -> None:
    points = history_facts(findings)[-1:] * (MOST_BARS + 1)
    assert history_figure(points).data[0].error_y.array is None


def test_scale_and_effect_show_every_term_that_has_them(findings: Findings) -> None:
    points = term_facts(findings)
    assert sum(len(trace.x) for trace in scale_figure(points).data) == len(points)
    without = tuple(point._replace(effect=None) for point in points[:3]) + points[3:]
    assert sum(len(trace.x) for trace in effect_figure(without).data) == len(points) - 3


def test_text_from_outside_is_escaped(findings: Findings) -> None:
    trials = tuple(replace(trial, stage="<b>x</b>") for trial in findings.trials[:1])
    figure = history_figure(history_facts(replace(findings, trials=trials)))
    assert figure.data[0].name == "&lt;b&gt;x&lt;/b&gt;"
