"""The table of families and operations in ``docs/guidance.md`` against what the runtime accepts and refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
from stg_tune.guidance.families import architecture_of
from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm

PAGE = Path(__file__).parents[3] / "docs" / "guidance.md"
LIKE_ATTENTION = ("attention", "attention_all", "attention_with_text", "attention_off", "attention_input")


def table():
    """Family -> column -> cell."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("| family | `residual`"))
    rows = []
    for line in lines[head:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    columns, _, *families = rows
    return {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in families}


def setting(column, stack, index):
    """What a column of the table means, for one stack."""
    ops = LIKE_ATTENTION if column == "attention" else (column,)
    if column in ("restart", "rescale of x0"):
        ops = ("residual",)
    sigma = {"blur_sigma": 1.0} if column == "salient_blur" else {}
    terms = tuple(SkipTerm(name=op, skip_layers={stack: (index,)}, skip_op=op, stg_scale=1.0, **sigma) for op in ops)
    clean = column == "rescale of x0"
    again = Restart(start=0.0, stop=0.5) if column == "restart" else None
    spec = GuidanceSpec(cfg_scale=3.0, segments=(Segment(terms=terms, rescale=0.5 * clean),), restart=again)
    return SimpleNamespace(spec=spec, combine_space="sample") if clean else spec


def accepts(pipe, column, stack, index):
    try:
        with guided(pipe, setting(column, stack, index)):
            return True
    except StgTuneError:
        return False


def test_the_page_says_what_each_family_can_do(cases):
    found, stated = {}, table()
    for case in cases:
        pipe = case.pipe()
        family = architecture_of(pipe).family
        if family in found:
            continue
        row = found[family] = {}
        for column in stated["mochi"]:
            able = [stack for stack, (index, *_) in case.layers.items() if accepts(pipe, column, stack, index)]
            row[column] = "no" if not able else "yes" if len(able) == len(case.layers) else ", ".join(able)
    assert found == stated
    assert {cell for row in stated.values() for cell in row.values()} > {"yes", "no"}


def test_a_refusal_says_what_to_use_instead(cases):
    made = next(case for case in cases if case.name == "hunyuan-video")
    for op in ("feed_forward", "attention_projected_input"):
        with (
            pytest.raises(StgTuneError, match=f"{op}' in stack 'single', but .* use skip_op 'residual'"),
            guided(made.pipe(), setting(op, "single", 0)),
        ):
            pass
