"""Stable Video Diffusion as records: blocks, defaults, where the weights are (standard library only)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.models import folders
from stg_tune.models.base import GenerationDefaults, ModelEntry
from stg_tune.models.families import SVD

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PIPELINE_CLASS = "StableVideoDiffusionPipeline"
"""``_class_name`` in the ``model_index.json`` of this family."""
REPOSITORY = "stabilityai/stable-video-diffusion-img2vid-xt"
_FILES = "stg_tune.generate.images:from_file"

ENTRIES = (
    ModelEntry(
        name="svd",
        architecture=SVD,
        depths={"spatial": 16, "temporal": 16},
        defaults=GenerationDefaults(
            height=576, width=1024, num_frames=25, num_inference_steps=25, cfg_scale=3.0, fps=7
        ),
        source=f"{REPOSITORY} (revision main), Stability AI community licence",
        loader="stg_tune.models.pipelines:load_published",
        repository=REPOSITORY,
        embedded=False,
        summary="Stable Video Diffusion XT (1.5 B parameters), image to video: a prompt is the path of a picture",
        image_source=_FILES,
    ),
    ModelEntry(
        name="svd-tiny",
        architecture=SVD,
        depths={"spatial": 9, "temporal": 9},
        defaults=GenerationDefaults(height=64, width=64, num_frames=9, num_inference_steps=8, cfg_scale=3.0, fps=4),
        batch=4,
        source="embedded",
        loader="stg_tune.models.pipelines:load_embedded",
        embedded=True,
        summary="the same architecture, small, continues a picture of a handwritten digit; runs on two CPU cores",
        image_source="stg_tune.embedded.digits:first_frame",
    ),
)
"""The models of this family."""


def folder_entry(folder: Path) -> ModelEntry:
    """The record of a local diffusers folder; raises ``StgTuneError`` when its config is not that of the family."""
    depth = unet_depth(folders.read(folder / "unet" / "config.json"), folder / "unet")
    depths = {"spatial": depth, "temporal": depth}
    return replace(
        next((entry for entry in ENTRIES if entry.depths == depths), ENTRIES[0]),
        name=str(folder),
        depths=depths,
        source=str(folder),
        loader="stg_tune.models.pipelines:load_local",
        repository="",
        embedded=False,
        summary=f"local folder with a Stable Video Diffusion pipeline of {depth}+{depth} blocks",
        image_source=_FILES,
    )


def unet_depth(config: dict[str, object], where: Path) -> int:
    """Spatial blocks of the U-Net that a config describes; there are as many temporal ones.

    A level has ``layers_per_block`` on the way down and one more on the way up, the middle has one, and each holds
    ``transformer_layers_per_block``; a level whose type names no attention has none.
    """
    down, up = folders.words(config, "down_block_types", where), folders.words(config, "up_block_types", where)
    layers, inner = (folders.numbers(config, name, len(down), where) for name in _COUNTS)
    levels = list(zip(down, layers, inner, strict=True))
    count = sum(layer * depth for kind, layer, depth in levels if "CrossAttn" in kind)
    count += sum((layer + 1) * depth for kind, layer, depth in _rising(up, layers, inner) if "CrossAttn" in kind)
    return count + inner[-1]


_COUNTS = ("layers_per_block", "transformer_layers_per_block")


def _rising(up: Sequence[str], layers: Sequence[int], inner: Sequence[int]) -> list[tuple[str, int, int]]:
    return list(zip(up, reversed(layers), reversed(inner), strict=True))
