"""The page over all tables of ``stg_tune.embedded.paper_tables``: which findings of the paper hold at this size."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

from stg_tune.documents import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Finding = Mapping[str, Any]
    Findings = Mapping[str, Any]  # table -> findings; "command" -> what makes them again

TITLES = {
    "table1-guidance": "Tables 1 and 2: CFG with and without STG",
    "table3-operations": "Table 3: whole blocks (STG-R) or attention alone (STG-A)",
    "table4-terms": "Table 4: spatial, temporal, both",
    "eq20-eq21": "Eq. 20 or eq. 21",
    "figure4-diversity": "Figure 4: quality and spread over the scales",
    "high-scales": "Rescale and Restart at high scales",
}
"""Table -> its heading, in the order of the page."""
MEASURES = {
    "joint": "joint distance",
    "spread": "spread",
    "aesthetic": "aesthetic",
    "imaging_quality": "imaging quality",
}
HEAD = """# The paper's findings on the embedded models

Each claim of [arXiv:2411.18664](https://arxiv.org/abs/2411.18664) is a comparison of two settings on the same
captions and seeds; the seeds are new: neither a search nor the choice of layers has used them. *Holds*: the 95 %
bootstrap interval of the difference lies on the side that the paper claims; *does not hold*: on the other;
*undecided*: it covers zero. The intervals stand one by one, so that one claim in forty would hold by chance were
there no difference anywhere. The joint distance is the Frechet distance of the independent judge's features and the
caption together ([arXiv:1907.08175](https://arxiv.org/abs/1907.08175)), lower is better; spread is the variance of
its features that captions do not explain, so how far videos of one caption differ, 1 as in real videos. Layers and
strengths are the best of `results/embedded/MODEL/layers.csv`, the tuned setting is the preset. Every arm and measure
is in the `.csv` files beside this page.
"""
RULE = "|---|---|---|---|---|"
DIGITS = 3


def write_page(folder: Path) -> None:
    """Make ``README.md`` of the tables in ``folder``."""
    write_atomic(folder / "README.md", page(folder))


def page(folder: Path) -> str:
    """The page as text, from what the files say."""
    found = {path.parent.name: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/findings.json"))}
    made = "\n".join(f"    {tables['command']}" for tables in found.values())
    sections = [_section(name, found, folder) for name in TITLES if any(name in tables for tables in found.values())]
    return "\n".join([HEAD, "Repeat with\n", made, "", _overview(found), *sections])


def _overview(found: Mapping[str, Findings]) -> str:
    """Claim beside model -> the verdicts, in one table."""
    models = list(found)
    texts = dict.fromkeys(
        (name, item["claim"]) for name in TITLES for tables in found.values() for item in tables.get(name, ())
    )
    rows = ["## In short", "", f"| claim | {' | '.join(models)} |", "|---" * (len(models) + 1) + "|"]
    for name, text in texts:
        cells = [_words([item for item in found[model].get(name, ()) if item["claim"] == text]) for model in models]
        rows.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def _words(items: Sequence[Finding]) -> str:
    """One verdict, or several with how often each was given; ``-`` where a model has no such table."""
    counts = {
        word: sum(item["verdict"] == word for item in items) for word in dict.fromkeys(i["verdict"] for i in items)
    }
    if len(counts) == 1:
        return str(*counts)
    return ", ".join(f"{word} ({count} of {len(items)})" for word, count in counts.items()) or "-"


def _section(name: str, found: Mapping[str, Findings], folder: Path) -> str:
    """One table: every comparison with its numbers."""
    rows = [f"## {TITLES[name]}", "", "| model, claim | comparison | measure | difference | verdict |", RULE]
    for model, tables in found.items():
        videos = _videos(folder / model / f"{name}.csv") if name in tables else 0
        for item in tables.get(name, ()):
            arms = f"{item['arm']} - {item['other']}"
            cells = (f"{model}: {item['claim']}", arms, MEASURES.get(item["measure"], item["measure"]))
            rows.append(f"| {' | '.join(cells)} | {_interval(item)}, {videos} videos | {item['verdict']} |")
    return "\n".join([*rows, ""])


def _interval(item: Finding) -> str:
    mean, low, high = (f"{item[key]:+.{DIGITS}g}" for key in ("difference", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _videos(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as file:
        return int(next(csv.DictReader(file))["videos"])
