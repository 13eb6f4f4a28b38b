"""Presets in the files of other tools, and back: exactly, or with every loss named, or not at all (no torch)."""

from __future__ import annotations

from stg_tune.export.base import Exported, Imported, Target
from stg_tune.export.convert import export, import_
from stg_tune.export.registry import target, target_names, targets

__all__ = ["Exported", "Imported", "Target", "export", "import_", "target", "target_names", "targets"]
