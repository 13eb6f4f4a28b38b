"""Mochi 1 as records: blocks, defaults, where the weights are (standard library only)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.models import folders
from stg_tune.models.base import GenerationDefaults, ModelEntry
from stg_tune.models.families import MOCHI

if TYPE_CHECKING:
    from pathlib import Path

PIPELINE_CLASS = "MochiPipeline"
"""``_class_name`` in the ``model_index.json`` of this family."""
REPOSITORY = "genmo/mochi-1-preview"
LEAST_STEPS = 2
"""The linear and the quadratic half of its schedule have a step each (``linear_quadratic_schedule`` of diffusers)."""

ENTRIES = (
    ModelEntry(
        name="mochi",
        architecture=MOCHI,
        depths={"blocks": 48},
        defaults=GenerationDefaults(
            height=480, width=848, num_frames=163, num_inference_steps=64, cfg_scale=4.5, fps=30
        ),
        source=f"{REPOSITORY} (revision main), Apache-2.0",
        loader="stg_tune.models.pipelines:load_published",
        repository=REPOSITORY,
        embedded=False,
        least_steps=LEAST_STEPS,
        summary="Mochi 1 preview (10 B parameters), text to video",
    ),
    ModelEntry(
        name="mochi-tiny",
        architecture=MOCHI,
        depths={"blocks": 12},
        defaults=GenerationDefaults(height=64, width=64, num_frames=19, num_inference_steps=16, cfg_scale=4.5, fps=8),
        batch=4,
        source="embedded",
        loader="stg_tune.models.pipelines:load_embedded",
        embedded=True,
        least_steps=LEAST_STEPS,
        summary="the same architecture, small, trained on moving handwritten digits; runs on two CPU cores",
    ),
)
"""The models of this family."""


def folder_entry(folder: Path) -> ModelEntry:
    """The record of a local diffusers folder; raises ``StgTuneError`` when its config states no depth."""
    depth = folders.number(folders.read(folder / "transformer" / "config.json"), "num_layers", folder / "transformer")
    depths = {"blocks": depth}
    model = next((entry for entry in ENTRIES if entry.depths == depths), ENTRIES[0])
    return replace(
        model,
        name=str(folder),
        depths=depths,
        source=str(folder),
        loader="stg_tune.models.pipelines:load_local",
        repository="",
        embedded=False,
        summary=f"local folder with a Mochi pipeline of {depth} blocks",
    )
