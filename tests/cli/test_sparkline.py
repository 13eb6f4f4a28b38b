"""Score against layer in characters."""

from dataclasses import replace
from pathlib import Path

import pytest

from stg_tune.cli.sparkline import BLOCKS, DIGITS, layer_lines, levels_for
from stg_tune.outcome import findings_of
from stg_tune.records import GuidanceSpec, Segment, SkipTerm
from stg_tune.report import Findings, Layer
from stg_tune.search import snapshot


def layer(number: int, gain: float, op: str = "attention", stack: str = "spatial") -> Layer:
    return Layer(stack=stack, layer=number, op=op, scale=1.0, gain=gain, error=0.1, pairs=4)


@pytest.fixture(scope="module")
def findings(finished_run: Path) -> Findings:
    return findings_of(snapshot(finished_run))


def tuned(*layers: int) -> GuidanceSpec:
    term = SkipTerm(name="spatial", skip_layers={"spatial": layers}, skip_op="attention", stg_scale=1.0)
    return GuidanceSpec(cfg_scale=2.0, segments=(Segment(terms=(term,)),))


def test_every_layer_has_its_place(findings: Findings) -> None:
    own = replace(
        findings,
        layers=(layer(0, -1.0), layer(2, 1.0), layer(3, 0.0), layer(1, 0.5, "residual")),
        depths={"spatial": 5},
        tuned=tuned(2, 3),
    )
    assert layer_lines(own, "0123456789") == [
        "Score against layer, -1.00 to +1.00; ^: layers of the tuned setting",
        "  spatial attention  0.95.  best: 2 (+1.00)",
        "                       ^^",
        "  spatial residual   .7...  best: 1 (+0.50)",
    ]


def test_equal_gains_and_no_screen(findings: Findings) -> None:
    flat = replace(findings, layers=(layer(0, 0.3), layer(1, 0.3)), depths={"spatial": 2}, tuned=None)
    assert layer_lines(flat, "123")[1] == "  spatial attention  22  best: 0 (+0.30)"
    assert layer_lines(replace(findings, layers=())) == []


def test_a_real_screen_marks_the_best_layer(findings: Findings) -> None:
    text = "\n".join(layer_lines(findings))
    assert "spatial" in text
    assert "temporal" in text
    assert "best: 4" in text
    assert "^" in text
    assert "█" in text


@pytest.mark.parametrize(("encoding", "levels"), [("utf-8", BLOCKS), ("ascii", DIGITS), (None, DIGITS), ("x", DIGITS)])
def test_a_terminal_gets_what_it_can_show(encoding: str | None, levels: str) -> None:
    assert levels_for(encoding) == levels
