"""ComfyUI-LTXVideo for LTX-2: the nodes GuiderParameters and MultimodalGuider.

Read from Lightricks/ComfyUI-LTXVideo at aceeae9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.export import comfyui, fields, layouts, ltx2
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import note_whole_batch

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec

VIDEO = "VIDEO"
"""The modality that a preset speaks of; the other one is sound."""


def write(preset: Preset, journal: Journal) -> str:
    """Parameters of the video, and the guider that they are connected to."""
    found = ltx2.setting(preset, journal)
    ltx2.need_all_steps(found, journal)
    journal.note("sound has GuiderParameters of its own; of these a preset does not speak")
    journal.note(comfyui.BYPASS_NOTE)
    note_whole_batch(found.rescale, journal)
    parameters = {
        "modality": VIDEO,
        "cfg": found.cfg_scale,
        "stg": found.stg_scale,
        "perturb_attn": bool(found.blocks),
        "rescale": found.rescale,
        "modality_scale": 1.0,
        "skip_step": 0,
        "cross_attn": True,
    }
    links = {"model": comfyui.MODEL, "positive": comfyui.POSITIVE, "negative": comfyui.NEGATIVE}
    guider = {**links, "parameters": ["video", 0], "skip_blocks": fields.layers_text(found.blocks)}
    nodes = {
        "video": comfyui.node("GuiderParameters", parameters, preset.name),
        "guider": comfyui.node("MultimodalGuider", guider, "guider"),
    }
    return fields.pretty(nodes) + "\n"


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A workflow with one MultimodalGuider, of which the video is read, for the model of ``preset``."""
    layouts.need_family(preset, journal, ltx2.FAMILIES)
    nodes = comfyui.nodes_of(text)
    guider, video = comfyui.find(nodes, "MultimodalGuider"), _video(nodes)
    for name, usual in (("modality_scale", 1.0), ("skip_step", 0.0)):
        if fields.number(video, name, usual) != usual:
            journal.lose(f"{name} is left out: a preset has none")
    if not fields.flag(video, "cross_attn", default=True):
        journal.lose("cross_attn is left out: a preset has none")
    perturbs = fields.flag(video, "perturb_attn", default=True)
    steps = preset.generation.num_inference_steps
    return ltx2.from_arguments(
        fields.indices_text(guider.get("skip_blocks", ""), "skip_blocks"),
        (0, steps - 1),
        steps,
        stg_scale=fields.number(video, "stg", 1.0) if perturbs else 0.0,
        cfg=fields.number(video, "cfg", 3.0),
        rescale=fields.number(video, "rescale", 0.0),
        journal=journal,
    )


def _video(nodes: comfyui.Nodes) -> dict[str, Any]:
    found = [item["inputs"] for item in nodes.values() if item["class_type"] == "GuiderParameters"]
    found = [inputs for inputs in found if inputs.get("modality") == VIDEO]
    if len(found) != 1:
        raise StgTuneError(
            f"workflow: exactly one node GuiderParameters with modality {VIDEO} is expected, found {len(found)}"
        )
    inputs: dict[str, Any] = found[0]
    return inputs


TARGET = Target(
    name="comfyui-ltxvideo-multimodal",
    tool="ComfyUI-LTXVideo, nodes GuiderParameters and MultimodalGuider",
    url="https://github.com/Lightricks/ComfyUI-LTXVideo",
    suffix=".json",
    families=ltx2.FAMILIES,
    says="attention, branch cond, no window, rescale of x0",
    loses="a window; a second term; another CFG scale in some steps; rescale of the prediction",
    paste=comfyui.PASTE,
    write=write,
    read=read,
)
