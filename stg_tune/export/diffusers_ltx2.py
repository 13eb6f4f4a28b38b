"""diffusers LTX-2: keyword arguments of the standard pipelines, and ``LTX2Guidance`` for the modular ones.

Read from diffusers 0.42.1, ``pipelines/ltx2/pipeline_ltx2*.py`` and ``guiders/ltx2_guidance.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stg_tune.export import fields, layouts, windows
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import from_window, need_branch, need_op, one_cfg, one_rescale, one_window
from stg_tune.export.timeline import spans, term_of

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec

FAMILIES = ("ltx2",)
ALMOST_ZERO = 1e-9
"""An audio scale of 0 is replaced by the video's (``audio_stg_scale or stg_scale``)."""
SOUND_NOTE = "the settings of sound are not read; a preset speaks of the video"
_PERTURBABLE = ("2.3", "2.4", "2.5")
"""Versions whose checkpoints are converted for diffusers with perturbable attention."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an LTX-2 pipeline can be told."""

    cfg_scale: float
    """CFG of the video."""
    stg_scale: float
    """0: nothing is skipped."""
    blocks: tuple[int, ...]
    """Blocks whose self-attentions pass their values through."""
    rescale: float
    """Of x0, 0 is off."""
    start: float = 0.0
    """As ``LTX2Guidance`` counts."""
    stop: float = 1.0
    """As ``LTX2Guidance`` counts."""


def setting(preset: Preset, journal: Journal) -> Setting:
    """One setting for all steps, also for Lightricks' own command line."""
    layouts.need_family(preset, journal, FAMILIES)
    runs = spans(preset, journal)
    if len(runs) == 1 and not runs[0].terms:
        return Setting(cfg_scale=runs[0].cfg_scale, stg_scale=0.0, blocks=(), rescale=runs[0].rescale)
    window = one_window(preset, journal)
    need_branch(window, journal, "cond")
    need_op(window.term, journal, ("attention", "attention_all"))
    start, stop = windows.to_floored(window.first, window.last, window.num_steps)
    return Setting(
        cfg_scale=one_cfg(window, journal),
        stg_scale=float(window.term.stg_scale),
        blocks=layouts.only_stack(window.term, journal, ("blocks",)),
        rescale=one_rescale(preset, window, journal, scope="all", space="x0"),
        start=start,
        stop=stop,
    )


def need_all_steps(found: Setting, journal: Journal) -> None:
    """A tool without windows acts in every step."""
    if (found.start, found.stop) != (0.0, 1.0):
        journal.lose(f"the window from {found.start:g} to {found.stop:g} is left out: layers are skipped in every step")


def write(preset: Preset, journal: Journal) -> str:
    """Keyword arguments as JSON."""
    found = setting(preset, journal)
    need_all_steps(found, journal)
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
    found = setting(preset, journal)
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


def _note_attention(found: Setting, preset: Preset, journal: Journal) -> None:
    if found.stg_scale and not any(version in preset.checkpoint for version in _PERTURBABLE):
        journal.note(
            "checkpoints of LTX-2.0 are converted without perturbable attention, so nothing would be skipped: load the "
            "transformer with perturbed_attn=True"
        )


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """Keyword arguments, or the configuration of ``LTX2Guidance``, for the model of ``preset``."""
    layouts.need_family(preset, journal, FAMILIES)
    data = fields.json_object(text, "LTX-2 arguments")
    if fields.word(data, "_class_name", "LTX2Guidance") != "LTX2Guidance":
        journal.refuse(f"_class_name must be LTX2Guidance, got {str(data['_class_name'])[:60]!r}")
    if fields.number(data, "modality_scale", 1.0) != 1:
        journal.lose(f"modality_scale {data['modality_scale']:g} is left out: a preset has none")
    if any(name.startswith("audio_") for name in data):
        journal.note(SOUND_NOTE)
    steps = preset.generation.num_inference_steps
    held = windows.from_floored(fields.number(data, "start", 0.0), fields.number(data, "stop", 1.0), steps)
    blocks = fields.indices(data.get("spatio_temporal_guidance_blocks") or [], "spatio_temporal_guidance_blocks")
    return from_arguments(
        blocks,
        held,
        steps,
        stg_scale=fields.number(data, "stg_scale", 0.0),
        cfg=_cfg(data),
        rescale=_rescale(data),
        journal=journal,
    )


def from_arguments(
    blocks: tuple[int, ...],
    held: windows.Steps | None,
    num_steps: int,
    *,
    stg_scale: float,
    cfg: float,
    rescale: float,
    journal: Journal,
) -> GuidanceSpec:
    """The specification of an LTX-2 setting."""
    if held not in (None, (0, num_steps - 1)) and cfg != 1:
        journal.refuse("outside its window LTX2Guidance has no CFG: write that preset by hand")
    term = term_of({"blocks": blocks}, "attention", stg_scale) if blocks and stg_scale else None
    return from_window(term, held, cfg_scale=cfg, rescale=rescale, num_steps=num_steps, scope="all")


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
    families=FAMILIES,
    says=_SAYS,
    paste='pipe(prompt, **json.load(open("FILE")))',
    write=write,
    read=read,
)
GUIDER = Target(
    name="diffusers-ltx2-guider",
    tool="diffusers, LTX2Guidance of the modular pipeline",
    url="https://github.com/huggingface/diffusers",
    suffix=".json",
    families=FAMILIES,
    says=f"{_SAYS.replace('no window', 'one window (without CFG outside)')}",
    paste="a folder of its own as guider_config.json: LTX2Guidance.from_pretrained(folder)",
    write=write_guider,
    read=read,
)
