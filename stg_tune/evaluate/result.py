"""The small result of an evaluation, to be kept where its folder is not: ``summary.json`` and ``table.csv``."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.documents import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.evaluate.plan import EvaluationPlan
    from stg_tune.evaluate.rows import Row

SCHEMA = "stg-tune/evaluation-summary/1"
SUMMARY, TABLE = "summary.json", "table.csv"
_APART = ("schema", "suite", "model", "versions", "pairs")
_DIFFERENCES = ("difference", "difference_to_cfg_alone")


def write_result(plan: EvaluationPlan, table: Sequence[Row], folder: Path) -> None:
    """Write both files into the folder of the evaluation."""
    write_atomic(folder / SUMMARY, json.dumps(summary_of(plan, table), indent=1, allow_nan=False) + "\n")
    write_atomic(folder / TABLE, table_text(table))


def summary_of(plan: EvaluationPlan, table: Sequence[Row]) -> dict[str, Any]:
    """Everything but the single pairs; of a model in a folder, the folder's name alone."""
    given = plan.to_dict()
    pairs = json.dumps(given["pairs"], sort_keys=True)
    return {
        "schema": SCHEMA,
        "suite": plan.suite,
        "model": Path(plan.model).name,
        "plan": {
            **{name: value for name, value in given.items() if name not in _APART},
            "pairs": {"number": len(plan.pairs), "sha256": hashlib.sha256(pairs.encode()).hexdigest()},
        },
        "versions": dict(plan.versions),
        "failed": {row.arm.name: row.failed for row in table},
        "unscored": {
            arm.name: {row.kind.name: row.unscored for row in table if row.arm is arm and row.unscored}
            for arm in plan.arms
        },
        "rows": [row.to_dict() for row in table],
    }


def table_text(table: Sequence[Row]) -> str:
    """CSV, one line a metric and setting; what is unknown or unbounded is empty."""
    lines = [_flat(row.to_dict()) for row in table]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A difference in three columns."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name in _DIFFERENCES:
            parts = value or {}
            flat |= {name: parts.get("mean"), f"{name}_low": parts.get("low"), f"{name}_high": parts.get("high")}
        else:
            flat[name] = value
    return flat
