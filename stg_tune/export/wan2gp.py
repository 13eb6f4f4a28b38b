"""Wan2GP: the guidance keys of a settings file.

Read from deepbeepmeep/Wan2GP at 8681e9f, ``docs/SETTINGS.md``, ``wgp.py`` and ``models/ltx2``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.export import fields, layouts, windows
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import Window, from_window, need_branch, one_cfg, one_rescale, one_window
from stg_tune.export.timeline import term_of

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec

FAMILIES = ("wan", "ovi", "ltx2")
SETTINGS_VERSION = 2.56
OFF, SKIP_LAYERS, SKIP_ATTENTION = 0, 1, 2
"""``perturbation_switch``: off; the negative pass without blocks; an extra pass without self-attentions (LTX-2)."""

_CROSS_MODAL = "attentions between video and sound are turned off too, which a preset does not say"
_OLD = {f"slg_{name}": f"perturbation_{name}" for name in ("switch", "layers", "start_perc", "end_perc")}
"""Names of settings before version 2.54."""


def write(preset: Preset, journal: Journal) -> str:
    """The keys that a settings file needs for the guidance."""
    layouts.need_family(preset, journal, FAMILIES)
    window = one_window(preset, journal)
    switch = _switch(preset, window, journal)
    rescales = switch == SKIP_ATTENTION
    rescale = one_rescale(preset, window, journal, scope="all" if rescales else "none", space="x0")
    start, stop = _percents(window, journal)
    data: dict[str, Any] = {
        "settings_version": SETTINGS_VERSION,
        "num_inference_steps": window.num_steps,
        "guidance_scale": one_cfg(window, journal),
        "perturbation_switch": switch,
        "perturbation_layers": list(layouts.only_stack(window.term, journal, ("blocks",))),
        "perturbation_start_perc": start,
        "perturbation_end_perc": stop,
    }
    if rescales:
        journal.note("alt_guidance_scale 1 switches modality guidance off, of which a preset does not speak")
        data |= {"alt_guidance_scale": 1.0, "alt_scale": rescale}
    journal.note("add model_type, or put the keys into settings that you have saved")
    return fields.pretty(data) + "\n"


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A settings file, of which only the guidance is read, for the model of ``preset``."""
    layouts.need_family(preset, journal, FAMILIES)
    data = _renamed(fields.json_object(text, "Wan2GP settings"))
    steps = preset.generation.num_inference_steps
    cfg_scale = fields.number(data, "guidance_scale", preset.spec.cfg_scale)
    for name in ("apg_switch", "cfg_star_switch"):
        if fields.number(data, name, 0):
            journal.lose(f"{name} is left out: a preset has none")
    if preset.family == "ltx2" and fields.number(data, "alt_guidance_scale", 1) != 1:
        journal.lose("alt_guidance_scale (modality guidance) is left out: a preset has none")
    switch = fields.number(data, "perturbation_switch", OFF)
    if switch not in (OFF, SKIP_LAYERS, SKIP_ATTENTION):
        journal.refuse(f"perturbation_switch must be 0, 1 or 2, got {switch:g}")
    rescale = fields.number(data, "alt_scale", 0.0) if preset.family == "ltx2" else 0.0
    if switch == OFF:
        return from_window(None, None, cfg_scale=cfg_scale, rescale=rescale, num_steps=steps, scope="all")
    layers = fields.indices(data.get("perturbation_layers"), "perturbation_layers")
    held = windows.from_percent(
        _whole(data, "perturbation_start_perc", 0), _whole(data, "perturbation_end_perc", 100), steps
    )
    op = "attention_off" if preset.family == "ltx2" else "residual"
    if preset.family == "ltx2" and switch == SKIP_LAYERS:
        journal.lose(_CROSS_MODAL)
    term = term_of({"blocks": layers}, op, 1.0, "uncond" if switch == SKIP_LAYERS else "cond")
    return from_window(term, held, cfg_scale=cfg_scale, rescale=rescale, num_steps=steps, scope="all")


def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    """Older settings in the newer words; where both are given, the newer ones count."""
    return {_OLD[name]: value for name, value in data.items() if name in _OLD} | data


def _switch(preset: Preset, window: Window, journal: Journal) -> int:
    """The mode, with what it cannot say."""
    term = window.term
    if preset.family != "ltx2":
        if term.skip_op != "residual":
            journal.refuse(
                f"it does residual for {preset.family}, not {term.skip_op}: the numbers would mean something else"
            )
        need_branch(window, journal, "uncond")
        return SKIP_LAYERS
    if term.skip_op in ("attention", "attention_all"):
        journal.lose(f"the operation becomes attention_off: attentions add nothing, instead of {term.skip_op}")
    elif term.skip_op != "attention_off":
        journal.refuse(f"it does attention_off for ltx2, not {term.skip_op}: the numbers would mean something else")
    if term.branch == "uncond":
        need_branch(window, journal, "uncond")
        journal.lose(_CROSS_MODAL)
        return SKIP_LAYERS
    need_branch(window, journal, "cond")
    if term.stg_scale != 1:
        journal.lose(f"stg_scale {term.stg_scale:g} becomes 1: there is no scale")
    return SKIP_ATTENTION


def _percents(window: Window, journal: Journal) -> tuple[int, int]:
    found = windows.to_percent(window.first, window.last, window.num_steps)
    if found is not None:
        if found != (0, 100):
            journal.note(f"the window is exact for {window.num_steps} steps")
        return found
    journal.lose(f"steps {window.first} to {window.last} of {window.num_steps} are met to a percent only")
    return round(100 * window.first / window.num_steps), round(100 * (window.last + 1) / window.num_steps)


def _whole(data: dict[str, Any], key: str, default: int) -> int:
    value = fields.number(data, key, default)
    if value != int(value):
        raise StgTuneError(f"{key} must be a whole percent, got {value:g}")
    return int(value)


TARGET = Target(
    name="wan2gp",
    tool="Wan2GP, settings",
    url="https://github.com/deepbeepmeep/Wan2GP",
    suffix=".json",
    families=FAMILIES,
    says="Wan: residual, branch uncond (no scale, needs CFG); LTX-2: attention_off at scale 1; a window in percents",
    loses="the scale of the branch cond; a finer window; a second term or window; rescale (Wan); STG-A (LTX-2)",
    paste="Load Settings, or merge into a saved settings file",
    write=write,
    read=read,
)
