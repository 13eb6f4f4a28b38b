"""Findings -> facts -> Plotly figures -> one self-contained page (Plotly is imported when a page is made)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stg_tune.report.findings import (
    Arm,
    Ballot,
    Clip,
    Finalist,
    Findings,
    Gain,
    Guard,
    Knob,
    Layer,
    PairGain,
    Scorer,
    Trial,
)

if TYPE_CHECKING:
    from stg_tune.report.comparison import write_comparison
    from stg_tune.report.page import render, write_report

__all__ = [
    "Arm",
    "Ballot",
    "Clip",
    "Finalist",
    "Findings",
    "Gain",
    "Guard",
    "Knob",
    "Layer",
    "PairGain",
    "Scorer",
    "Trial",
    "render",
    "write_comparison",
    "write_report",
]

_HOMES = {"render": "page", "write_report": "page", "write_comparison": "comparison"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stg_tune.report' has no attribute {name!r}")
    return getattr(import_module(f"stg_tune.report.{_HOMES[name]}"), name)
