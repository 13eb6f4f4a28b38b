"""Runs over each other: depth is relative, models keep their names, nothing of the content becomes markup."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from stg_tune.report import Findings, write_comparison
from stg_tune.report.comparison import depth_figure, depth_lines, render_comparison, run_names


def test_the_same_model_twice_is_numbered(findings: Findings) -> None:
    other = replace(findings, model="mochi")
    assert run_names((findings, other, findings)) == ("open-sora-tiny #1", "mochi", "open-sora-tiny #2")


def test_depth_runs_from_zero_to_one_whatever_the_number_of_blocks(findings: Findings) -> None:
    deep = replace(findings, model="deep", depths={"spatial": 15, "temporal": 8})
    lines = list(depth_lines(("shallow", "deep"), (findings, deep)))
    assert len(lines) == 8
    first, second = (
        next(line for line in lines if line.run == run and line.stack == "spatial") for run in ("shallow", "deep")
    )
    assert [first.relative(layer) for layer in (0, 7)] == [0.0, 1.0]
    assert second.relative(7) == 0.5


def test_chosen_layers_wear_a_ring_only_with_their_operation(findings: Findings) -> None:
    lines = {(line.stack, line.op): line for line in depth_lines(("run",), (findings,))}
    assert lines["spatial", "attention"].chosen == (3, 4)
    assert lines["spatial", "residual"].chosen == lines["temporal", "attention"].chosen == ()
    trace = depth_figure((lines["spatial", "attention"],)).data[0]
    assert [width > 0 for width in trace.marker.line.width] == [False, False, False, True, True, False, False, False]
    assert trace.x == pytest.approx([layer / 7 for layer in range(8)])


def test_a_page_for_finished_and_unfinished_runs(findings: Findings, tmp_path: Path) -> None:
    going = replace(
        findings, model="<b>evil</b>", finished=False, tuned=None, tuned_gain=None, stg_gain=None, layers=()
    )
    page = write_comparison((findings, going), tmp_path / "both.html").read_text(encoding="utf-8")
    assert "<b>evil" not in page
    assert "&lt;b&gt;evil&lt;/b&gt;" in page
    assert "Not finished" in page
    assert "+0.62 [+0.41, +0.83], better" in page
    assert page.count('data-figure="figure-depth-') == 2


def test_runs_without_a_screen_still_have_their_verdicts(findings: Findings) -> None:
    page = render_comparison((replace(findings, layers=()),) * 2)
    assert "open-sora-tiny #2" in page
    assert "figure-depth" not in page


def test_names_of_others_become_neither_markup_nor_places(findings: Findings) -> None:
    evil = '"><script>x</script>'
    layers = [
        *(replace(layer, op="Verdicts") for layer in findings.layers[:2]),
        *(replace(layer, op=evil) for layer in findings.layers[:2]),
    ]
    page = render_comparison((replace(findings, layers=tuple(layers)),) * 2)
    assert "<script>x" not in page
    places = re.findall(r' id="([^"]*)"', page)
    assert len(set(places)) == len(places)
    assert all(re.fullmatch(r"[a-z0-9-]+", place) for place in places)
    links = re.findall(r'href="#([^"]*)"', page)
    assert {"verdicts", "verdicts-1", "script-x-script"} <= set(links) <= set(places)
    assert set(re.findall(r'data-figure="([^"]*)"', page)) <= set(places)
