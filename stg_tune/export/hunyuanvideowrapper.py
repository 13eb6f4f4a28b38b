"""HunyuanVideoWrapper: the node HyVideoSTG, one single-stream block, no CFG.

Read from kijai/ComfyUI-HunyuanVideoWrapper at 3ce9640, ``nodes.py`` and ``hyvideo/modules/models.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.export import comfyui, fields, layouts, windows
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import from_window, need_branch, need_op, one_cfg, one_rescale, one_window
from stg_tune.export.timeline import term_of

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec, SkipOp

FAMILIES = ("hunyuan-video",)
_MODES: dict[str, SkipOp] = {"STG-A": "attention_with_text", "STG-R": "residual"}


def write(preset: Preset, journal: Journal) -> str:
    """HyVideoSTG in API format."""
    layouts.need_family(preset, journal, FAMILIES)
    window = one_window(preset, journal)
    need_branch(window, journal, "cond")
    op = need_op(window.term, journal, tuple(_MODES.values()))
    if one_cfg(window, journal) != 1:
        journal.refuse("it cannot run STG together with CFG")
    if not 0 <= window.term.stg_scale <= 10:
        journal.refuse(f"stg_scale {window.term.stg_scale:g} cannot be entered: the node takes 0 to 10")
    one_rescale(preset, window, journal, scope="none", space="prediction")
    layers = layouts.only_stack(window.term, journal, ("single",))
    for layer in layers[1:]:
        journal.lose(f"single block {layer} is left out: the node skips one block")
    if op == "attention_with_text":
        journal.note("STG-A needs attention_mode sdpa")
    start, stop = windows.to_inclusive(window.first, window.last, window.num_steps)
    inputs = {
        "stg_mode": next(mode for mode, name in _MODES.items() if name == op),
        "stg_block_idx": layers[0],
        "stg_scale": float(window.term.stg_scale),
        "stg_start_percent": start,
        "stg_end_percent": stop,
    }
    return fields.pretty({"stg": comfyui.node("HyVideoSTG", inputs, preset.name)}) + "\n"


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A workflow with one HyVideoSTG."""
    layouts.need_family(preset, journal, FAMILIES)
    inputs = comfyui.find(comfyui.nodes_of(text), "HyVideoSTG")
    mode = fields.word(inputs, "stg_mode")
    if mode not in _MODES:
        journal.refuse(f"stg_mode must be one of {', '.join(_MODES)}, got {mode[:40]!r}")
    layers = fields.indices([inputs.get("stg_block_idx")], "stg_block_idx")
    steps = preset.generation.num_inference_steps
    start, stop = fields.number(inputs, "stg_start_percent", 0.0), fields.number(inputs, "stg_end_percent", 1.0)
    off = layers[0] == -1
    term = None if off else term_of({"single": layers}, _MODES[mode], fields.number(inputs, "stg_scale"))
    held = windows.from_inclusive(start, stop, steps)
    return from_window(term, held, cfg_scale=1.0, rescale=0.0, num_steps=steps, scope="none")


TARGET = Target(
    name="hunyuanvideowrapper",
    tool="HunyuanVideoWrapper, node HyVideoSTG",
    url="https://github.com/kijai/ComfyUI-HunyuanVideoWrapper",
    suffix=".json",
    families=FAMILIES,
    says="residual or attention_with_text of one single block, branch cond, no CFG, one window, no rescale",
    loses="further blocks; a second term or window; rescale",
    paste="a workflow in API format; connect stg_args of your HyVideoSampler",
    write=write,
    read=read,
)
