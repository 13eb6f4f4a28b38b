"""Presets: one file that holds a guidance setting, all of its meaning, and the evidence for it."""

from __future__ import annotations

from stg_tune.preset.build import from_result
from stg_tune.preset.diff import Difference, diff
from stg_tune.preset.file import load, parse, remarks_on, save, validate
from stg_tune.preset.migrate import migrate
from stg_tune.preset.priors import find_published, open_preset, published, published_names
from stg_tune.preset.record import Evidence, GainInterval, Preset, ScorerGain

__all__ = [
    "Difference",
    "Evidence",
    "GainInterval",
    "Preset",
    "ScorerGain",
    "diff",
    "find_published",
    "from_result",
    "load",
    "migrate",
    "open_preset",
    "parse",
    "published",
    "published_names",
    "remarks_on",
    "save",
    "validate",
]
