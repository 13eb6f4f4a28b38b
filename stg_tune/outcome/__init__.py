"""What a search found, in the forms that report and preset take: the two do not know each other (no torch)."""

from __future__ import annotations

from stg_tune.outcome.effects import write_effects
from stg_tune.outcome.findings import findings_of
from stg_tune.outcome.keeping import keep_preset
from stg_tune.outcome.page import CLIPS, clip_of, comparison, filmed_pairs, filmed_settings, look, report
from stg_tune.outcome.provenance import provenance
from stg_tune.outcome.votes import with_votes

__all__ = [
    "CLIPS",
    "clip_of",
    "comparison",
    "filmed_pairs",
    "filmed_settings",
    "findings_of",
    "keep_preset",
    "look",
    "provenance",
    "report",
    "with_votes",
    "write_effects",
]
