"""ComfyUI's own nodes: SkipLayerGuidanceDiT, its Simple form, SkipLayerGuidanceSD3, LTXVSpatioTemporalGuidance.

Read from Comfy-Org/ComfyUI at a125cd8, ``comfy_extras/nodes_slg.py``, ``nodes_sd3.py``, and a 2026 ``nodes_lt.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.export import comfyui, fields, layouts, windows
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import (
    Window,
    from_window,
    need_branch,
    need_op,
    note_whole_batch,
    one_cfg,
    one_rescale,
    one_window,
)
from stg_tune.export.timeline import term_of

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec, SkipTerm

URL = "https://github.com/Comfy-Org/ComfyUI"
DIT = tuple(family for family in layouts.COMFYUI if family != "sd3")
LTX = ("ltx", "ltx2")


def write_dit(preset: Preset, journal: Journal) -> str:
    """SkipLayerGuidanceDiT: a weak pass with the prompt, works at CFG 1 too."""
    window = _window(preset, journal, DIT)
    rescale = one_rescale(preset, window, journal, scope="window", space="x0")
    note_whole_batch(rescale, journal)
    inputs = {
        "model": comfyui.MODEL,
        **_stacks(preset, window.term, journal),
        "scale": _scale(window, journal, most=10),
        **_percents(window, preset, journal),
        "rescaling_scale": rescale,
    }
    return comfyui.with_cfg(comfyui.node("SkipLayerGuidanceDiT", inputs, preset.name), one_cfg(window, journal))


def read_dit(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A workflow with one SkipLayerGuidanceDiT."""
    layouts.need_family(preset, journal, DIT)
    nodes = comfyui.nodes_of(text)
    inputs = comfyui.find(nodes, "SkipLayerGuidanceDiT")
    term = term_of(_read_stacks(inputs, preset), "residual", max(fields.number(inputs, "scale"), 0.0))
    return _spec(nodes, inputs, term, preset, journal, rescale=fields.number(inputs, "rescaling_scale", 0.0))


def write_simple(preset: Preset, journal: Journal) -> str:
    """SkipLayerGuidanceDiTSimple: the negative pass is perturbed."""
    window = one_window(preset, journal)
    layouts.need_family(preset, journal, DIT)
    need_op(window.term, journal, ("residual",))
    need_branch(window, journal, "uncond")
    one_rescale(preset, window, journal, scope="none", space="x0")
    stacks = _stacks(preset, window.term, journal)
    inputs = {"model": comfyui.MODEL, **stacks, **_percents(window, preset, journal)}
    return comfyui.with_cfg(comfyui.node("SkipLayerGuidanceDiTSimple", inputs, preset.name), one_cfg(window, journal))


def read_simple(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A workflow with one SkipLayerGuidanceDiTSimple."""
    layouts.need_family(preset, journal, DIT)
    nodes = comfyui.nodes_of(text)
    inputs = comfyui.find(nodes, "SkipLayerGuidanceDiTSimple")
    return _spec(nodes, inputs, term_of(_read_stacks(inputs, preset), "residual", 1.0, "uncond"), preset, journal)


def write_sd3(preset: Preset, journal: Journal) -> str:
    """SkipLayerGuidanceSD3."""
    window = _window(preset, journal, ("sd3",))
    one_rescale(preset, window, journal, scope="none", space="x0")
    layers = layouts.only_stack(window.term, journal, ("blocks",))
    inputs = {"model": comfyui.MODEL, "layers": fields.layers_text(layers), "scale": _scale(window, journal, most=10)}
    inputs |= _percents(window, preset, journal)
    return comfyui.with_cfg(comfyui.node("SkipLayerGuidanceSD3", inputs, preset.name), one_cfg(window, journal))


def read_sd3(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A workflow with one SkipLayerGuidanceSD3."""
    layouts.need_family(preset, journal, ("sd3",))
    nodes = comfyui.nodes_of(text)
    inputs = comfyui.find(nodes, "SkipLayerGuidanceSD3")
    layers = fields.indices_text(inputs.get("layers"), "layers")
    return _spec(
        nodes, inputs, term_of({"blocks": layers}, "residual", fields.number(inputs, "scale")), preset, journal
    )


def write_stg(preset: Preset, journal: Journal) -> str:
    """LTXVSpatioTemporalGuidance."""
    window = one_window(preset, journal)
    layouts.need_family(preset, journal, LTX)
    need_branch(window, journal, "cond")
    need_op(window.term, journal, ("attention", "attention_all"))
    one_rescale(preset, window, journal, scope="none", space="x0")
    if preset.family == "ltx2":
        journal.note("sound is guided with the same scale; a preset speaks of the video")
    layers = layouts.only_stack(window.term, journal, ("blocks",))
    journal.note(comfyui.BYPASS_NOTE)
    scale = _scale(window, journal, most=100)
    inputs = {"model": comfyui.MODEL, "scale": scale, "blocks": fields.layers_text(layers)}
    inputs |= _percents(window, preset, journal)
    return comfyui.with_cfg(comfyui.node("LTXVSpatioTemporalGuidance", inputs, preset.name), one_cfg(window, journal))


def read_stg(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A workflow with one LTXVSpatioTemporalGuidance."""
    layouts.need_family(preset, journal, LTX)
    nodes = comfyui.nodes_of(text)
    inputs = comfyui.find(nodes, "LTXVSpatioTemporalGuidance")
    layers = fields.indices_text(inputs.get("blocks"), "blocks")
    return _spec(
        nodes, inputs, term_of({"blocks": layers}, "attention", fields.number(inputs, "scale")), preset, journal
    )


def _window(preset: Preset, journal: Journal, families: tuple[str, ...]) -> Window:
    layouts.need_family(preset, journal, families)
    window = one_window(preset, journal)
    need_branch(window, journal, "cond")
    need_op(window.term, journal, ("residual",))
    return window


def _scale(window: Window, journal: Journal, *, most: float) -> float:
    """ComfyUI does not run a node with a value outside the range of its input."""
    if not 0 <= window.term.stg_scale <= most:
        journal.refuse(f"stg_scale {window.term.stg_scale:g} cannot be entered: the node takes 0 to {most:g}")
    return float(window.term.stg_scale)


def _percents(window: Window, preset: Preset, journal: Journal) -> dict[str, float]:
    bounds = windows.to_inclusive(window.first, window.last, window.num_steps)
    comfyui.note_window(bounds, preset, journal)
    return {"start_percent": bounds[0], "end_percent": bounds[1]}


def _stacks(preset: Preset, term: SkipTerm, journal: Journal) -> dict[str, str]:
    names = layouts.COMFYUI[preset.family]
    if not set(term.skip_layers) <= set(names):
        journal.refuse(f"it skips {', '.join(names)} of {preset.family}, not {', '.join(term.skip_layers)}")
    inputs = {names[stack]: fields.layers_text(indices) for stack, indices in term.skip_layers.items()}
    return {"double_layers": "", "single_layers": ""} | inputs


def _read_stacks(inputs: dict[str, Any], preset: Preset) -> dict[str, tuple[int, ...]]:
    names = layouts.COMFYUI[preset.family]
    return {stack: fields.indices_text(inputs.get(name, ""), name) for stack, name in names.items()}


def _spec(
    nodes: comfyui.Nodes,
    inputs: dict[str, Any],
    term: SkipTerm,
    preset: Preset,
    journal: Journal,
    *,
    rescale: float = 0.0,
) -> GuidanceSpec:
    steps = preset.generation.num_inference_steps
    start, stop = fields.number(inputs, "start_percent", 0.0), fields.number(inputs, "end_percent", 1.0)
    comfyui.note_window((start, stop), preset, journal)
    held = windows.from_inclusive(start, stop, steps)
    cfg_scale = comfyui.cfg_of(nodes, preset, journal)
    return from_window(term, held, cfg_scale=cfg_scale, rescale=rescale, num_steps=steps, scope="window")


def _target(name: str, kind: str, families: tuple[str, ...], says: str, loses: str, write: Any, read: Any) -> Target:
    return Target(
        name=name,
        tool=f"ComfyUI, node {kind}",
        url=URL,
        suffix=".json",
        families=families,
        says=says,
        loses=loses,
        paste=comfyui.PASTE,
        write=write,
        read=read,
    )


TARGETS = (
    _target(
        "comfyui-slg",
        "SkipLayerGuidanceDiT",
        DIT,
        "residual, branch cond, one window, rescale of x0 in the window",
        "a second term or window; another CFG scale outside; rescale of the prediction, or outside the window",
        write_dit,
        read_dit,
    ),
    _target(
        "comfyui-slg-simple",
        "SkipLayerGuidanceDiTSimple",
        DIT,
        "residual, branch uncond, one window, no rescale",
        "the scale of the branch cond; a second term or window; another CFG scale outside; rescale",
        write_simple,
        read_simple,
    ),
    _target(
        "comfyui-sd3",
        "SkipLayerGuidanceSD3",
        ("sd3",),
        "residual, branch cond, one window, no rescale",
        "a second term or window; another CFG scale outside; rescale",
        write_sd3,
        read_sd3,
    ),
    _target(
        "comfyui-stg",
        "LTXVSpatioTemporalGuidance",
        LTX,
        "attention, branch cond, one window, no rescale",
        "a second term or window; another CFG scale outside; rescale",
        write_stg,
        read_stg,
    ),
)
