"""The page about scorers says what the code says."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stg_tune.evaluate.suites import SUITES
from stg_tune.score import conformance
from stg_tune.score.default import build
from stg_tune.score.published import FILES
from stg_tune.score.registry import DEFAULT, RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text(encoding="utf-8")


def _rows() -> dict[str, list[str]]:
    """First cell of a table's row -> the other cells."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_file_is_in_the_licence_table() -> None:
    for file in FILES:
        licence, size, checksum = _rows()[file.name]
        assert licence == file.licence
        assert size == "" if file.size is None else f"{file.size:,} bytes" in size
        assert file.sha256[: min(16, len(file.sha256))] in checksum
        assert ("pinned" in checksum) == (len(file.sha256) < 64)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_scorer_is_in_the_table(recipe: object, parts: object) -> None:
    default, better, *_ = _rows()[recipe.name]
    assert (default == "yes") == (recipe.name in DEFAULT)
    if recipe.name != "dynamic_degree":  # its network is too large for a test
        (kind,) = build([recipe.name], parts).kinds
        assert better == {"maximize": "more", "minimize": "less"}[kind.direction]


def test_nothing_non_commercial_is_installed_and_what_scorers_need_is_named_with_its_licence() -> None:
    wanted = [Requirement(line) for line in metadata.requires("stg-tune") or []]
    assert not {"pyiqa", "vbench"} & {need.name for need in wanted}
    for package in ("open_clip_torch", "lpips", "torchvision"):
        assert any(need.name.replace("-", "_") == package for need in wanted)
        assert re.search(rf"`{package}` \((MIT|BSD-\d-Clause)\)", PAGE)


def test_every_suite_is_in_the_table() -> None:
    for suite in SUITES:
        repeats, _, videos = _rows()[suite.name]
        assert repeats == suite.repeats
        assert f"{suite.samples:,}" in videos


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_the_example_of_a_scorer_passes_the_suite(check: object) -> None:
    (example,) = re.findall(r"```python\n(from stg_tune.records.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    check(names["build"](None))
