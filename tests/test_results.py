"""``results/README.md`` names every committed result, and nothing that is not there."""

import csv
import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "results"
LINE = re.compile(r"^\| (`[^|]*?) \|", re.M)
PENDING = "(not there yet)"
EVALUATIONS = sorted(RESULTS.glob("evaluation/*/*.json"))


def _patterns(first_column: str) -> list[str]:
    """Patterns of one line: ``a/MODEL.json``, ``.md`` names ``a/*.json`` and ``a/*.md``."""
    found: list[str] = []
    for name in re.findall(r"`([^`]+)`", first_column):
        whole = f"{found[0].rsplit('.', 1)[0]}{name}" if name.startswith(".") else name
        found.append(re.sub(r"MODEL|SUITE|TABLE|RUN|(?<=seed)N", "*", whole))
    return found


def _lines() -> dict[str, bool]:
    """Pattern -> whether its files are said to be there."""
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    return {pattern: PENDING not in line for line in LINE.findall(text) for pattern in _patterns(line)}


def _files() -> list[str]:
    names = (path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*") if path.is_file())
    return sorted(name for name in names if name != "README.md")


def test_every_file_is_named() -> None:
    assert _files()
    assert [name for name in _files() if not any(fnmatch(name, pattern) for pattern in _lines())] == []


def test_what_is_named_is_there_and_what_is_there_is_not_called_missing() -> None:
    there = {pattern: any(fnmatch(name, f"{pattern.rstrip('/')}*") for name in _files()) for pattern in _lines()}
    assert there == _lines()


@pytest.mark.parametrize("file", EVALUATIONS, ids=lambda file: f"{file.parent.name} {file.stem}")
def test_an_evaluation_is_of_its_model_and_suite_and_its_table_says_the_same(file: Path) -> None:
    told = json.loads(file.read_text(encoding="utf-8"))
    assert (told["model"], told["suite"]) == (file.parent.name, file.stem)
    with file.with_suffix(".csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [(row["metric"], row["arm"]) for row in rows] == [(row["metric"], row["arm"]) for row in told["rows"]]
    assert [float(row["mean"]) for row in rows] == [row["mean"] for row in told["rows"]]
    assert {row["failed"] for row in rows} == {"0"}
    gaps = [row[name] for row in told["rows"] for name in ("difference", "difference_to_cfg_alone") if row[name]]
    assert gaps
    assert all(gap["low"] <= gap["mean"] <= gap["high"] for gap in gaps)
