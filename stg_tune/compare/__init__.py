"""Two settings on the same new pairs: which is better, by how much, and how sure that is."""

from __future__ import annotations

from stg_tune.compare.plan import PAIRS, ComparisonPlan, ComparisonRequest, Contender, draft_comparison, new_pairs
from stg_tune.compare.run import Comparison, compare, run_comparison

__all__ = [
    "PAIRS",
    "Comparison",
    "ComparisonPlan",
    "ComparisonRequest",
    "Contender",
    "compare",
    "draft_comparison",
    "new_pairs",
    "run_comparison",
]
