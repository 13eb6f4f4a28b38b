"""The targets, in the order of the documentation."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.export import (
    comfyui_core,
    comfyui_ltxvideo,
    comfyui_multimodal,
    diffusers_community,
    diffusers_guider,
    diffusers_ltx2,
    diffusers_python,
    hunyuanvideowrapper,
    ltx2_command,
    ltx_video,
    musubi_tuner,
    stable_diffusion_cpp,
    uncond_nodes,
    wan2gp,
)

if TYPE_CHECKING:
    from stg_tune.export.base import Target

_TARGETS: tuple[Target, ...] = (
    diffusers_guider.TARGET,
    diffusers_python.TARGET,
    diffusers_ltx2.ARGUMENTS,
    diffusers_ltx2.GUIDER,
    diffusers_community.TARGET,
    ltx_video.TARGET,
    *comfyui_ltxvideo.TARGETS,
    comfyui_multimodal.TARGET,
    *comfyui_core.TARGETS,
    *uncond_nodes.TARGETS,
    hunyuanvideowrapper.TARGET,
    wan2gp.TARGET,
    ltx2_command.TARGET,
    musubi_tuner.TARGET,
    stable_diffusion_cpp.TARGET,
)


def targets() -> tuple[Target, ...]:
    """Every target."""
    return _TARGETS


def target_names() -> list[str]:
    """What ``target`` takes."""
    return [item.name for item in _TARGETS]


def target(name: str) -> Target:
    """The target of a name; unknown: ``StgTuneError`` with close matches."""
    found = next((item for item in _TARGETS if item.name == name), None)
    if found is None:
        close = get_close_matches(name, target_names(), n=3)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise StgTuneError(f"there is no target {name[:60]!r}: {hint}Known: {', '.join(target_names())}")
    return found
