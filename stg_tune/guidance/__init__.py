"""Spatiotemporal Skip Guidance (arXiv:2411.18664) for pipelines as they are."""

from stg_tune.guidance.effects import GuidedRun
from stg_tune.guidance.runtime import guided

__all__ = ["GuidedRun", "guided"]
