"""Presets: one file that holds a guidance setting, all of its meaning, and the evidence for it."""

from __future__ import annotations

from stg_tune.preset.build import from_result
from stg_tune.preset.file import load, parse, save, validate
from stg_tune.preset.record import Evidence, GainInterval, Preset, ScorerGain

__all__ = ["Evidence", "GainInterval", "Preset", "ScorerGain", "from_result", "load", "parse", "save", "validate"]
