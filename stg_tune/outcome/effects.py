"""How far skipping moves the prediction in every step, measured while the winner is filmed; kept beside the videos."""

from __future__ import annotations

import json
import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

from stg_tune.documents import read_limited, write_atomic
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stg_tune.records import GuidanceSpec

MAX_BYTES = 1_000_000

EffectSteps = dict[str, tuple[float | None, ...]]
"""Term -> ``||c - p|| / ||c||`` of each step; ``None``: not active in that step."""


def write_effects(
    path: Path, spec: GuidanceSpec, num_steps: int, series: Sequence[Mapping[str, Sequence[float]]]
) -> None:
    """Keep the mean over several videos.

    Args:
        path: ``DIR/effects.json``.
        spec: The setting they were made with.
        num_steps: Denoising steps.
        series: For each video, term -> effect in each step in which the term was active, in their order. A term that
            was not measured in every such step is left out.
    """
    terms = {}
    for term, active in active_steps(spec, num_steps).items():
        known = [video[term] for video in series if len(video.get(term, ())) == len(active)]
        if known and active:
            means = dict(zip(active, map(fmean, zip(*known, strict=True)), strict=True))
            terms[term] = [means.get(step) for step in range(num_steps)]
    if terms:
        write_atomic(path, json.dumps({"config": spec.hash(), "terms": terms}) + "\n")


def read_effects(path: Path, spec: GuidanceSpec) -> EffectSteps:
    """What ``write_effects`` has kept; nothing when there is no file, or one about another setting.

    Raises:
        StgTuneError: The file is damaged.
    """
    if not path.exists():
        return {}
    try:
        data = json.loads(read_limited(path, MAX_BYTES, "effects file"))
        if data["config"] != spec.hash():
            return {}
        return {str(term): tuple(map(_known, values)) for term, values in data["terms"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StgTuneError(
            f"{path} is damaged ({type(error).__name__}: {error}): delete it, the report does without"
        ) from None


def active_steps(spec: GuidanceSpec, num_steps: int) -> dict[str, list[int]]:
    """Term -> steps ``i`` with ``start <= i / num_steps < stop`` of a segment that names it."""
    found: dict[str, list[int]] = {}
    for segment in spec.segments:
        steps = [step for step in range(num_steps) if segment.start <= step / num_steps < segment.stop]
        for term in segment.terms:
            if term.stg_scale:
                found.setdefault(term.name, []).extend(steps)
    return found


def _known(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
