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
    "gain": "found and claimed at least 90 %",
    "cfg": "claims for STG at most 5 %",
    "trap": "claims at most 5 %",
    "medium": "coverage 93 to 97 %",
    "null medium": "claims at most 5 %",
    "few prompts": "claims at most 5 %",
}
"""Study -> what it must show; coverage and bias are asked of all."""
FOUND = 0.5
"""Part of the gain that can be had, in truth, from which on it is found."""

COLUMNS = (
    "study",
    "best gains (STG, CFG), motion, budget",
    "must show",
    "searches",
    "claims",
    "found",
    "found and claimed",
    "claims for STG",
    "false claims",
    "coverage of gain, CFG, STG",
    "stated - true",
    "of races to the end",
    "the same on the search pairs",
)
INTRODUCTION = """# Can a claim be believed?

Full searches on a simulated evaluator whose truth is known; one line a search in the `.jsonl` files, every number with
its interval in `summary.json`. Repeat with `python -m benchmarks.claims`, about a second a search, three where the
budget is medium; `--runs` and `--studies` for more searches of some.

"""
NOTES = """

Rates have exact 95 % intervals in brackets. *Found*: the winner's true gain is at least half of what can be had (STG
and CFG together). *False claims*: the gain is not above 0 in truth, or motion is below the
95 % that the guard asks for. *Coverage*: of the 95 % intervals. *Stated - true*: mean ± standard error, in brackets one
over the other; *of races to the end* leaves out those that stopped early because no improvement could come of them,
whose coverage and bias are in `summary.json`. The last column is what the pairs that found the winner would have
stated."""


def coverage(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How often the interval holds the truth."""
    return share(sum(line["low"] <= line["true"] <= line["high"] for line in lines), len(lines))


def share(hits: int, count: int) -> dict[str, float]:
    """A rate with its exact 95 % interval (Clopper and Pearson 1934); of nothing, nothing is known."""
    if not count:
        return {"rate": 0.0, "low": 0.0, "high": 1.0, "hits": 0, "count": 0}
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


def summarise(lines: Lines, available: float = 0.0) -> dict[str, Any]:
    """All numbers of one study.

    Args:
        lines: One a search.
        available: The true gain that can be had; 0: there is nothing to find.
    """
    count = len(lines)
    parts = {part: [line[part] for line in lines if line[part] is not None] for part in ("gain", "cfg", "stg")}
    claims = [line for line in lines if line["improved"]]
    wrong = [line for line in claims if line["gain"]["true"] <= 0 or line["kept_motion"] < 0.95]
    found = [line for line in lines if line["gain"] and line["gain"]["true"] >= FOUND * available > 0]
    whole = [line["gain"] for line in lines if line["gain"] and line["look"][0] == line["look"][1]]
    early = [line["gain"] for line in lines if line["gain"] and line["look"][0] < line["look"][1]]
    return {
        "searches": count,
        "claims": share(len(claims), count),
        "found": share(len(found), count),
        "found_and_claimed": share(sum(line["improved"] for line in found), count),
        "false_claims": share(len(wrong), count),
        "stg_claims": share(sum(line["stg_proved"] for line in lines), count),
        "coverage": {part: coverage(items) for part, items in parts.items() if items},
        "bias": {part: bias(items) for part, items in parts.items()},
        "whole": {"searches": len(whole), "bias": bias(whole), "coverage": coverage(whole)},
        "early": {"searches": len(early), "bias": bias(early), "coverage": coverage(early)},
        "in_sample_bias": bias([line["in_sample"] for line in lines if line["in_sample"] is not None]),
        "true_gain_found": round(fmean(line["gain"]["true"] if line["gain"] else 0.0 for line in lines), 4),
        "half_width": round(fmean((gain["high"] - gain["low"]) / 2 for gain in parts["gain"] or [_UNKNOWN]), 4),
        "stopped_early": share(sum(line["look"][0] < line["look"][1] for line in lines), count),
        "seconds_each": round(fmean(line["seconds"] for line in lines), 2),
    }


def write_table(out: Path, studies: Mapping[str, Lines], settings: Mapping[str, Any], source: str) -> None:
    """Write ``summary.json`` and ``README.md``."""
    found = {name: summarise(lines, settings[name]["stg"] + settings[name]["cfg"]) for name, lines in studies.items()}
    data = {"noise": source, "machine": machine(), "settings": dict(settings), "studies": found}
    (out / "summary.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(table(found, settings, source), encoding="utf-8")


def table(found: Mapping[str, Any], settings: Mapping[str, Any], source: str) -> str:
    """The table for people."""
    rows = (_row(name, item, settings[name]) for name, item in found.items())
    lines = (f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), *rows)
    return INTRODUCTION + "\n".join(lines) + NOTES + f"\n\nNoise: {source}.\n"


def _row(name: str, item: Mapping[str, Any], setting: Mapping[str, Any]) -> str:
    covered = ", ".join(_percent(item["coverage"][part]) for part in ("gain", "cfg", "stg") if part in item["coverage"])
    gaps = (item["bias"]["gain"], item["whole"]["bias"], item["in_sample_bias"])
    available = setting["stg"] + setting["cfg"] > 0
    cells = (
        name,
        f"{setting['stg']:g}, {setting['cfg']:g}, {setting['motion']:g}, {setting['budget']}",
        STUDY_BARS[name],
        str(item["searches"]),
        _percent(item["claims"]),
        *(_percent(item[name]) if available else "-" for name in ("found", "found_and_claimed")),
        _percent(item["stg_claims"]),
        _percent(item["false_claims"]),
        covered,
        *(f"{gap['mean']:+.4f} ± {gap['standard_error']:.4f} ({gap['errors']:+.1f})" for gap in gaps),
    )
    return "| " + " | ".join(cells) + " |"


def _percent(item: Mapping[str, float]) -> str:
    return f"{100 * item['rate']:.1f} % [{100 * item['low']:.1f}, {100 * item['high']:.1f}]"
