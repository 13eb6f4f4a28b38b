"""The page about scorers says what the code says."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import stg_tune
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
        if file.size is not None:
            assert size.startswith(f"{file.size:,} bytes")
        else:
            assert size == (f"about {file.about / 1e6:.3g} MB" if file.about else "not stated")
        assert file.sha256[: min(16, len(file.sha256))] in checksum
        assert ("pinned" in checksum) == (len(file.sha256) < 64)


def test_the_page_names_the_checksums_that_are_open() -> None:
    (sentences,) = re.findall(r"^\*Open\* are.*?looked up\.", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", sentences)) == {file.name for file in FILES if file.stated is None}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_scorer_is_in_the_table(recipe: object, parts: object) -> None:
    default, better, *_ = _rows()[recipe.name]
    assert (default == "yes") == (recipe.name in DEFAULT)
    if recipe.name != "dynamic_degree":  # its network is too large for a test
        (kind,) = build([recipe.name], parts).kinds
        assert better == {"maximize": "more", "minimize": "less"}[kind.direction]


NON_COMMERCIAL = re.compile(
    r"non[-_ ]?commercial|polyform|s-lab|research[-_ ](use )?only|\bCC[-_ ]BY[-_ ]NC|\bNC\b", flags=re.IGNORECASE
)


def terms(package: metadata.PackageMetadata) -> str:
    """All that its metadata says about its licence."""
    classifiers = [line for line in package.get_all("Classifier") or [] if line.startswith("License")]
    text = "\n".join([package.get("License-Expression") or "", package.get("License") or "", *classifiers])
    # a clause of the GPL about offers of source, in packages that quote it whole for a library of their wheels
    return re.sub(r"only\s+occasionally\s+and\s+noncommercially", "", text)


def required(name: str, extras: frozenset[str] = frozenset()) -> dict[str, metadata.Distribution]:
    """Everything that is installed because ``name`` needs it, by its normal name."""
    found: dict[str, metadata.Distribution] = {}
    waiting, seen = [(name, extras)], set()
    while waiting:
        package, wanted = waiting.pop()
        try:
            distribution = metadata.distribution(package)
        except metadata.PackageNotFoundError:  # for another system
            continue
        found[canonicalize_name(package)] = distribution
        for need in map(Requirement, distribution.requires or []):
            key = canonicalize_name(need.name), frozenset(need.extras)
            marked = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *wanted))
            if marked and key not in seen:
                seen.add(key)
                waiting.append(key)
    return found


def test_nothing_non_commercial_is_installed() -> None:
    packages = required("stg-tune")
    assert {"torch", "open-clip-torch", "timm", "lpips", "scipy", "ray", "diffusers", "regex"} <= packages.keys()
    assert not {"pyiqa", "vbench"} & packages.keys()
    for name, distribution in packages.items():
        assert not NON_COMMERCIAL.search(terms(distribution.metadata)), name


@pytest.mark.parametrize(
    "words",
    [
        "PolyForm-Noncommercial-1.0.0",
        "CC BY-NC 4.0",
        "cc-by-nc-sa-4.0",
        "Free for non-commercial use",
        "License :: Free for non-commercial use",
        "NonCommercial",
        "LicenseRef-S-Lab",
    ],
)
def test_non_commercial_terms_would_be_found(words: str) -> None:
    assert NON_COMMERCIAL.search(words)
    assert not NON_COMMERCIAL.search(
        "BSD-3-Clause AND MIT; NCSA; LicenseRef-NVIDIA-Proprietary; commercial use allowed"
    )


def test_every_package_that_a_scorer_needs_is_named_with_its_licence() -> None:
    rows = _rows()
    networks = {"torch", "torchvision", "numpy", "open-clip-torch", "lpips"}
    imported = networks | {"safetensors", "huggingface-hub", "av", "pillow"}
    of_them = [metadata.requires(name) or [] for name in ("open-clip-torch", "lpips")]
    further = {need.name for line in of_them for need in map(Requirement, line) if need.marker is None}
    direct = {canonicalize_name(Requirement(line).name) for line in metadata.requires("stg-tune") or []}
    named = {canonicalize_name(name): cells[0] for name, cells in rows.items()}
    assert imported <= direct
    for name in imported | {canonicalize_name(name) for name in further}:
        stated = terms(metadata.metadata(name))
        families = set(re.findall(r"BSD|MIT|Apache|MPL|CNRI", named[name]))
        assert families & set(re.findall(r"BSD|MIT|Apache|MPL|CNRI", stated)), (name, named[name], stated)


def test_what_ships_and_what_is_proprietary_is_named() -> None:
    weights = Path(stg_tune.__file__).parent / "embedded" / "weights"
    for folder in ("scorers", "judge"):
        assert (weights / folder).is_dir()
        assert f"`stg_tune/embedded/weights/{folder}`) | Apache-2.0 |" in PAGE
    assert "NVIDIA's libraries" in PAGE
    assert "its repository states BSD-2-Clause" in PAGE


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
