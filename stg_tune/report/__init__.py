"""Findings -> facts -> Plotly figures -> one self-contained page (Plotly is imported when a page is made)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.report.findings import Clip, Finalist, Findings, Gain, Layer, Scorer, Trial

if TYPE_CHECKING:
    from stg_tune.report.page import render, write_report

__all__ = ["Clip", "Finalist", "Findings", "Gain", "Layer", "Scorer", "Trial", "render", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in ("render", "write_report"):
        raise AttributeError(f"module 'stg_tune.report' has no attribute {name!r}")
    from stg_tune.report import page

    return getattr(page, name)
