"""The numbers and the table of ``benchmarks.claims``: error rates, power, coverage and bias, each with its interval."""

from __future__ import annotations

import json
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from scipy.special import betaincinv

from benchmarks.machine import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Lines = list[dict[str, Any]]

STUDY_BARS = {
    "null": "claims at most 5 %",
    "gain": "power at least 90 %",
    "cfg": "claims for STG at most 5 %",
    "trap": "claims at most 5 %",
    "medium": "coverage 93 to 97 %",
}
"""Study -> what it must show; coverage and bias are asked of all."""

COLUMNS = (
    "study",
    "best gains (STG, CFG), motion, budget",
    "must show",
    "searches",
    "claims",
    "claims for STG",
    "false claims",
    "coverage of gain, CFG, STG",
    "stated - true",
    "the same on the search pairs",
)
INTRODUCTION = """# Can a claim be believed?

Full searches on a simulated evaluator whose truth is known; one line a search in the `.jsonl` files, every number with
its interval in `summary.json`. Repeat with `python -m benchmarks.claims`, one to two seconds a search.

"""
NOTES = """

Rates have exact 95 % intervals in brackets. *False claims*: the gain is not above 0 in truth, or motion is below the
95 % that the guard asks for. *Coverage*: of the 95 % intervals. *Stated - true*: mean ± standard error, in brackets one
over the other. The last column is what the pairs that chose the winner would have stated."""


def share(hits: int, count: int) -> dict[str, float]:
    """A rate with its exact 95 % interval (Clopper and Pearson 1934)."""
    low = float(betaincinv(hits, count - hits + 1, 0.025)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 0.975)) if hits < count else 1.0
    return {"rate": hits / count, "low": round(low, 4), "high": round(high, 4), "hits": hits, "count": count}


def bias(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of (stated - true) with its standard error; ``errors`` is one over the other."""
    gaps = [line["mean"] - line["true"] for line in lines]
    if not gaps:
        return {"mean": 0.0, "standard_error": float("inf"), "errors": 0.0}
    mean, error = fmean(gaps), stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("inf")
    errors = mean / error if error else 0.0
    return {"mean": round(mean, 5), "standard_error": round(error, 5), "errors": round(errors, 2)}


_UNKNOWN = {"low": 0.0, "high": 0.0}


def summarise(lines: Lines) -> dict[str, Any]:
    """All numbers of one study."""
    count = len(lines)
    parts = {part: [line[part] for line in lines if line[part] is not None] for part in ("gain", "cfg", "stg")}
    claims = [line for line in lines if line["improved"]]
    wrong = [line for line in claims if line["gain"]["true"] <= 0 or line["kept_motion"] < 0.95]
    covered = {
        part: sum(item["low"] <= item["true"] <= item["high"] for item in found) for part, found in parts.items()
    }
    return {
        "searches": count,
        "claims": share(len(claims), count),
        "false_claims": share(len(wrong), count),
        "stg_claims": share(sum(line["stg_proved"] for line in lines), count),
        "coverage": {part: share(covered[part], len(found)) for part, found in parts.items() if found},
        "bias": {part: bias(found) for part, found in parts.items()},
        "in_sample_bias": bias([line["in_sample"] for line in lines if line["in_sample"] is not None]),
        "true_gain_found": round(fmean(line["gain"]["true"] if line["gain"] else 0.0 for line in lines), 4),
        "half_width": round(fmean((gain["high"] - gain["low"]) / 2 for gain in parts["gain"] or [_UNKNOWN]), 4),
        "stopped_early": share(sum(line["look"][0] < line["look"][1] for line in lines), count),
        "seconds_each": round(fmean(line["seconds"] for line in lines), 2),
    }


def write_table(out: Path, studies: Mapping[str, Lines], settings: Mapping[str, Any], source: str) -> None:
    """Write ``summary.json`` and ``README.md``."""
    found = {name: summarise(lines) for name, lines in studies.items()}
    data = {"noise": source, "machine": machine(), "settings": dict(settings), "studies": found}
    (out / "summary.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(table(found, settings, source), encoding="utf-8")


def table(found: Mapping[str, Any], settings: Mapping[str, Any], source: str) -> str:
    """The table for people."""
    rows = (_row(name, item, settings[name]) for name, item in found.items())
    lines = (f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), *rows)
    return INTRODUCTION + "\n".join(lines) + NOTES + f"\n\nNoise: {source}.\n"


def _row(name: str, item: Mapping[str, Any], setting: Mapping[str, Any]) -> str:
    coverage = ", ".join(
        _percent(item["coverage"][part]) for part in ("gain", "cfg", "stg") if part in item["coverage"]
    )
    gap, naive = item["bias"]["gain"], item["in_sample_bias"]
    cells = (
        name,
        f"{setting['stg']:g}, {setting['cfg']:g}, {setting['motion']:g}, {setting['budget']}",
        STUDY_BARS[name],
        str(item["searches"]),
        _percent(item["claims"]),
        _percent(item["stg_claims"]),
        _percent(item["false_claims"]),
        coverage,
        f"{gap['mean']:+.4f} ± {gap['standard_error']:.4f} ({gap['errors']:+.1f})",
        f"{naive['mean']:+.4f} ± {naive['standard_error']:.4f} ({naive['errors']:+.1f})",
    )
    return "| " + " | ".join(cells) + " |"


def _percent(item: Mapping[str, float]) -> str:
    return f"{100 * item['rate']:.1f} % [{100 * item['low']:.1f}, {100 * item['high']:.1f}]"
