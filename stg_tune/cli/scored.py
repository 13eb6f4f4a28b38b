"""How ``stg-tune score`` says what it has found: a table, CSV or JSON."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stg_tune.cli.output import number, say, say_json, say_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stg_tune.records import Score, ScoreKind

Form = Literal["table", "csv", "json"]


@dataclass(frozen=True, kw_only=True)
class ScoredFile:
    """One video and its scores."""

    file: Path
    """As the user named it."""
    scores: Mapping[str, Score]
    """Name -> score, in the order of the report."""
    num_frames: int
    """Frames of the video."""
    frames_seen: Mapping[str, int]
    """Name -> how many of them were looked at."""
    clips: Mapping[str, str]
    """Name -> the CLIP behind the number (``vit-l-14``, ``vit-b-32``), for scorers that exist with several."""


def say_scored(results: Sequence[ScoredFile], form: Form) -> None:
    """All files."""
    if form == "json":
        say_json([_plain(result) for result in results])
    elif form == "csv":
        _csv(results)
    else:
        _table(results)


def say_scorers(*, as_json: bool) -> None:
    """What can be asked for by name, and what cannot, with the reason."""
    from stg_tune.score.registry import DEFAULT, EXACT_CLIP, recipes, unavailable

    known = recipes().values()
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "name": r.name,
                "available": True,
                "default": r.name in DEFAULT,
                "files": r.needs(EXACT_CLIP),
                "summary": r.summary,
            }
            for r in known
        ]
        absent = unavailable().items()
        say_json([*rows, *({"name": name, "available": False, "reason": reason} for name, reason in absent)])
        return
    lines = [
        (r.name, "yes" if r.name in DEFAULT else "", ", ".join(r.needs(EXACT_CLIP)) or "-", r.summary) for r in known
    ]
    lines += [(name, "not available", "-", "see below") for name in unavailable()]
    say_table(("SCORER", "DEFAULT", "FILES", "WHAT"), lines)
    for reason in unavailable().values():
        say(f"\n{reason}")


def _table(results: Sequence[ScoredFile]) -> None:
    kinds = [score.kind for score in results[0].scores.values()]
    say_table(
        ("FILE", *(kind.name.upper() for kind in kinds)),
        [(str(one.file), *(number(score.value) for score in one.scores.values())) for one in results],
    )
    say()
    for kind in kinds:
        say(f"{kind.name}: {kind.unit}, {'more' if kind.direction == 'maximize' else 'less'} is better")
    for one in results:
        for score in one.scores.values():
            if score.value is None:
                say(f"{one.file}: no {score.kind.name}: {score.reason}")


def _csv(results: Sequence[ScoredFile]) -> None:
    rows = [_line(one, name, score) for one in results for name, score in one.scores.items()]
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)  # a float is written by repr, None as nothing


def _line(one: ScoredFile, name: str, score: Score) -> dict[str, Any]:
    kind, (low, high) = score.kind, _range(score.kind)
    return {
        "file": one.file,
        "scorer": name,
        "value": score.value,
        "direction": kind.direction,
        "unit": kind.unit,
        "low": low,
        "high": high,
        "weights": kind.weights,
        "clip": one.clips.get(name),
        "frames": one.frames_seen[name],
        "num_frames": one.num_frames,
        "reason": score.reason,
    }


def _plain(one: ScoredFile) -> dict[str, Any]:
    kinds = {name: score.kind for name, score in one.scores.items()}
    return {
        "file": str(one.file),
        "num_frames": one.num_frames,
        "scores": {name: score.value for name, score in one.scores.items()},
        "unscored": {name: score.reason for name, score in one.scores.items() if score.value is None},
        "direction": {name: kind.direction for name, kind in kinds.items()},
        "unit": {name: kind.unit for name, kind in kinds.items()},
        "low": {name: _range(kind)[0] for name, kind in kinds.items()},
        "high": {name: _range(kind)[1] for name, kind in kinds.items()},
        "weights": {name: kind.weights for name, kind in kinds.items()},
        "clip": {name: one.clips.get(name) for name in kinds},
        "frames": dict(one.frames_seen),
    }


def _range(kind: ScoreKind) -> tuple[float | None, float | None]:
    """``None`` where there is no end."""
    return kind.low if math.isfinite(kind.low) else None, kind.high if math.isfinite(kind.high) else None
