"""diffusers LTX-2: keyword arguments of the standard pipelines, and ``LTX2Guidance`` for the modular ones.

Read from diffusers 0.42.1, ``pipelines/ltx2/pipeline_ltx2*.py`` and ``guiders/ltx2_guidance.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.export import fields, layouts, ltx2, windows
from stg_tune.export.base import Journal, Target

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec

ALMOST_ZERO = 1e-9
"""An audio scale of 0 is replaced by the video's (``audio_stg_scale or stg_scale``)."""
_PERTURBABLE = ("2.3", "2.4", "2.5")
"""Versions whose checkpoints are converted for diffusers with perturbable attention."""


def write(preset: Preset, journal: Journal) -> str:
    """Keyword arguments as JSON."""
    found = ltx2.setting(preset, journal)
    ltx2.need_all_steps(found, journal)
    if found.stg_scale < 0:
        journal.refuse(f"stg_scale {found.stg_scale:g} is negative: the pipeline then skips nothing")
    _note_attention(found, preset, journal)
    journal.note(
        "sound: STG and modality guidance are off, CFG and rescale are the pipeline's; a preset speaks of the video"
    )
    arguments = {
        "num_inference_steps": preset.generation.num_inference_steps,
        "guidance_scale": found.cfg_scale,
        "stg_scale": found.stg_scale,
        "modality_scale": 1.0,
        "guidance_rescale": found.rescale,
        "audio_stg_scale": ALMOST_ZERO if found.stg_scale else 0.0,
        "audio_modality_scale": 1.0,
        "spatio_temporal_guidance_blocks": list(found.blocks) or None,
    }
    return fields.pretty(arguments) + "\n"


def write_guider(preset: Preset, journal: Journal) -> str:
    """``guider_config.json`` for the video guider of the modular pipeline."""
    found = ltx2.setting(preset, journal)
    if (found.start, found.stop) != (0.0, 1.0):
        if found.cfg_scale != 1:
            journal.lose("outside its window LTX2Guidance has no CFG either")
        journal.note(f"the window is exact for {preset.generation.num_inference_steps} steps")
    _note_attention(found, preset, journal)
    journal.note("sound has a guider of its own; LTX2Guidance of this file is for the video")
    arguments = {
        "_class_name": "LTX2Guidance",
        "_diffusers_version": "0.42.1",
        "guidance_scale": found.cfg_scale,
        "stg_scale": found.stg_scale,
        "modality_scale": 1.0,
        "guidance_rescale": found.rescale,
        "spatio_temporal_guidance_blocks": list(found.blocks) or None,
        "start": found.start,
        "stop": found.stop,
        "enabled": True,
    }
    return fields.pretty(arguments) + "\n"


def _note_attention(found: ltx2.Setting, preset: Preset, journal: Journal) -> None:
    if found.stg_scale and not any(version in preset.checkpoint for version in _PERTURBABLE):
        journal.note(
            "checkpoints of LTX-2.0 are converted without perturbable attention, so nothing would be skipped: load the "
            "transformer with perturbed_attn=True"
        )


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """Keyword arguments, or the configuration of ``LTX2Guidance``, for the model of ``preset``."""
    layouts.need_family(preset, journal, ltx2.FAMILIES)
    data = fields.json_object(text, "LTX-2 arguments")
    if fields.word(data, "_class_name", "LTX2Guidance") != "LTX2Guidance":
        journal.refuse(f"_class_name must be LTX2Guidance, got {str(data['_class_name'])[:60]!r}")
    if fields.number(data, "modality_scale", 1.0) != 1:
        journal.lose(f"modality_scale {data['modality_scale']:g} is left out: a preset has none")
    if any(name.startswith("audio_") for name in data):
        journal.note(ltx2.SOUND_NOTE)
    steps = preset.generation.num_inference_steps
    held = windows.from_floored(fields.number(data, "start", 0.0), fields.number(data, "stop", 1.0), steps)
    blocks = fields.indices(data.get("spatio_temporal_guidance_blocks") or [], "spatio_temporal_guidance_blocks")
    return ltx2.from_arguments(
        blocks,
        held,
        steps,
        stg_scale=fields.number(data, "stg_scale", 0.0),
        cfg=_cfg(data),
        rescale=_rescale(data),
        journal=journal,
    )


def _cfg(data: dict[str, Any]) -> float:
    return fields.number(data, "guidance_scale", 1.0)


def _rescale(data: dict[str, Any]) -> float:
    return fields.number(data, "guidance_rescale", 0.0)


_SAYS = "attention, branch cond, no window, rescale of x0"
ARGUMENTS = Target(
    name="diffusers-ltx2",
    tool="diffusers, LTX-2 pipelines",
    url="https://github.com/huggingface/diffusers",
    suffix=".json",
    families=ltx2.FAMILIES,
    says=_SAYS,
    loses="a window; a second term; another CFG scale in some steps; rescale of the prediction",
    paste='pipe(prompt, **json.load(open("FILE")))',
    write=write,
    read=read,
)
GUIDER = Target(
    name="diffusers-ltx2-guider",
    tool="diffusers, LTX2Guidance of the modular pipeline",
    url="https://github.com/huggingface/diffusers",
    suffix=".json",
    families=ltx2.FAMILIES,
    says=f"{_SAYS.replace('no window', 'one window (without CFG outside)')}",
    loses="CFG outside the window; a second term or window; rescale of the prediction",
    paste="a folder of its own as guider_config.json: LTX2Guidance.from_pretrained(folder)",
    write=write_guider,
    read=read,
)
