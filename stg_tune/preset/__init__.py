"""Presets: one file that holds a guidance setting, all of its meaning, and the evidence for it."""

from __future__ import annotations

from stg_tune.preset.build import from_result
from stg_tune.preset.diff import Difference, diff
from stg_tune.preset.evidence import Evidence, GainInterval, GuardValue, ScorerGain, VoteCount
from stg_tune.preset.file import load, parse, remarks_on, save, validate
from stg_tune.preset.migrate import migrate
from stg_tune.preset.priors import (
    bare_spec,
    find_published,
    known_depths,
    open_for,
    open_preset,
    prior_for,
    published,
    published_names,
    spec_for,
)
from stg_tune.preset.record import Preset
from stg_tune.preset.siblings import carried_over

__all__ = [
    "Difference",
    "Evidence",
    "GainInterval",
    "GuardValue",
    "Preset",
    "ScorerGain",
    "VoteCount",
    "bare_spec",
    "carried_over",
    "diff",
    "find_published",
    "from_result",
    "known_depths",
    "load",
    "migrate",
    "open_for",
    "open_preset",
    "parse",
    "prior_for",
    "published",
    "published_names",
    "remarks_on",
    "save",
    "spec_for",
    "validate",
]
