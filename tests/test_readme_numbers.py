"""Numbers in README.md and docs/ that name their source are the numbers in the source.

Beside the number stands a comment that Markdown does not show:

    claims 1.5 %<!-- from results/statistics/summary.json: studies.null.claims.rate --> of the time
    a gain of 0.31<!-- from results/transfer/transfer.csv: condition=new prompts, setting=tuned, gain -->

JSON: keys and list indices with dots between them. CSV: conditions that one row meets, then a column. A number with
``%`` is a hundred times the one in the source; decimals are rounded as written.
"""

import csv
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
NUMBER = re.compile(r"([+\-−]?\d[\d,]*(?:\.(\d+))?)( ?%)?\**<!-- from ([^\s:]+): ([^>]+?) -->")
MARK = "<!-- from "


def value_in(path, address):
    if path.suffix == ".csv":
        *conditions, column = (part.strip() for part in address.split(","))
        wanted = dict(part.split("=", 1) for part in conditions)
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if wanted.items() <= row.items()]
        if len(rows) != 1:
            raise LookupError(f"{len(rows)} rows meet {wanted}")
        return float(rows[0][column])
    data = json.loads(path.read_text(encoding="utf-8"))
    for key in address.split("."):
        data = data[int(key)] if isinstance(data, list) else data[key]
    return float(data)


def wrong_numbers(text, root):
    """One sentence for every marked number that is not what its source says."""
    found = list(NUMBER.finditer(text))
    if len(found) != text.count(MARK):
        yield f"{text.count(MARK) - len(found)} marks have no number before them, or are misspelt"
    for match in found:
        shown, decimals, percent, file, address = match.groups()
        number = float(shown.replace(",", "").replace("−", "-")) / (100 if percent else 1)
        half = 0.5 * 10 ** -(len(decimals or "") + (2 if percent else 0))
        try:
            value = value_in(root / file, address)
        except (OSError, LookupError, ValueError, TypeError) as error:
            yield f"{shown}: {file} has no {address} ({type(error).__name__}: {error})"
            continue
        if abs(value - number) > half * (1 + 1e-9):
            yield f"{shown}{percent or ''} is {value:g} in {file} at {address}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_marked_numbers_are_those_of_their_sources(page):
    assert list(wrong_numbers(page.read_text(encoding="utf-8"), ROOT)) == []


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "a.json").write_text('{"x": [{"rate": 0.0149}], "n": 1200}')
    (tmp_path / "b.csv").write_text("who,where,gain\nme,here,0.3149\nme,there,-0.2\n")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "1.5 %<!-- from a.json: x.0.rate -->",
        "1%<!-- from a.json: x.0.rate -->",
        "**0.015**<!-- from a.json: x.0.rate -->",
        "1,200<!-- from a.json: n -->",
        "+0.31<!-- from b.csv: who=me, where=here, gain -->",
        "−0.20<!-- from b.csv: where=there, gain -->",
    ],
)
def test_what_agrees(text, sources):
    assert list(wrong_numbers(text, sources)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1.6 %<!-- from a.json: x.0.rate -->", "1.6 % is 0.0149 in a.json"),
        ("0.2<!-- from b.csv: where=there, gain -->", "is -0.2"),
        ("1<!-- from a.json: y -->", "KeyError"),
        ("1<!-- from gone.json: y -->", "FileNotFoundError"),
        ("1<!-- from b.csv: who=me, gain -->", "2 rows meet"),
        ("many<!-- from a.json: n -->", "1 marks have no number"),
    ],
)
def test_what_differs_is_told(text, said, sources):
    (found,) = wrong_numbers(text, sources)
    assert said in found
