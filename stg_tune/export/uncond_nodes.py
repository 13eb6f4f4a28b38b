"""Nodes that skip blocks of the negative pass: WanVideoWrapper, KJNodes, HunyuanVideoWrapper's SLG.

Read from kijai's ComfyUI-WanVideoWrapper (2025), ComfyUI-KJNodes at 3f20054, ComfyUI-HunyuanVideoWrapper at 3ce9640.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.export import comfyui, fields, layouts, windows
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import Window, from_window, need_branch, need_op, one_cfg, one_rescale, one_window
from stg_tune.export.timeline import term_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec, SkipTerm

_FAULTS = {
    "WanVideoSLG": "batched_cfg of the sampler must be off: with it nothing is skipped, in silence",
    "SkipLayerGuidanceWanVideo": "the node is deprecated, and raises unless TeaCacheKJ tells it the step",
}
_KIJAI = "https://github.com/kijai/ComfyUI-"


def _write(preset: Preset, journal: Journal, *, kind: str, family: str, stacks: Mapping[str, str], sampler: str) -> str:
    layouts.need_family(preset, journal, (family,))
    window = one_window(preset, journal)
    need_op(window.term, journal, ("residual",))
    need_branch(window, journal, "uncond")
    one_rescale(preset, window, journal, scope="none", space="prediction")
    start, stop = windows.to_inclusive(window.first, window.last, window.num_steps)
    if (start, stop) != (0.0, 1.0):
        journal.note(f"the window is exact for {window.num_steps} steps")
    if kind in _FAULTS:
        journal.note(_FAULTS[kind])
    layers = dict.fromkeys(stacks.values(), "") | _layers(window, stacks, journal)
    head = {"model": comfyui.MODEL} if sampler == "guider" else {}
    made = comfyui.node(kind, {**head, **layers, "start_percent": start, "end_percent": stop}, preset.name)
    if sampler == "guider":
        return comfyui.with_cfg(made, one_cfg(window, journal))
    fed = {"slg_args": ["stg", 0], "cfg": one_cfg(window, journal), "steps": window.num_steps}
    return fields.pretty({"stg": made, "sampler": comfyui.node(sampler, fed, "add the other inputs")}) + "\n"


def _layers(window: Window, stacks: Mapping[str, str], journal: Journal) -> dict[str, str]:
    strange = [stack for stack in window.term.skip_layers if stack not in stacks]
    if strange:
        journal.refuse(f"it skips {', '.join(stacks)}, not {', '.join(strange)}")
    return {stacks[stack]: fields.layers_text(indices) for stack, indices in window.term.skip_layers.items()}


def _read(
    text: str, preset: Preset, journal: Journal, *, kind: str, family: str, stacks: Mapping[str, str]
) -> GuidanceSpec:
    layouts.need_family(preset, journal, (family,))
    nodes = comfyui.nodes_of(text)
    inputs = comfyui.find(nodes, kind)
    steps = preset.generation.num_inference_steps
    held = windows.from_inclusive(
        fields.number(inputs, "start_percent", 0.0), fields.number(inputs, "end_percent", 1.0), steps
    )
    cfg_scale = comfyui.cfg_of(nodes, preset, journal)
    term = _read_term(inputs, stacks)
    return from_window(term, held, cfg_scale=cfg_scale, rescale=0.0, num_steps=steps, scope="none")


def _read_term(inputs: dict[str, Any], stacks: Mapping[str, str]) -> SkipTerm:
    layers = {stack: fields.indices_text(inputs.get(name, ""), name) for stack, name in stacks.items()}
    return term_of(layers, "residual", 1.0, "uncond")


def _target(name: str, repository: str, *, kind: str, family: str, stacks: Mapping[str, str], sampler: str) -> Target:
    def write(preset: Preset, journal: Journal) -> str:
        return _write(preset, journal, kind=kind, family=family, stacks=stacks, sampler=sampler)

    def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
        return _read(text, preset, journal, kind=kind, family=family, stacks=stacks)

    return Target(
        name=name,
        tool=f"{repository}, node {kind}",
        url=_KIJAI + repository,
        suffix=".json",
        families=(family,),
        says="residual, branch uncond (no scale, needs CFG), one window, no rescale",
        loses="the scale of the branch cond; a second term or window; another CFG scale outside; rescale",
        paste=comfyui.PASTE if sampler == "guider" else f"a workflow in API format; connect slg_args of your {sampler}",
        write=write,
        read=read,
    )


TARGETS = (
    _target(
        "wanvideowrapper",
        "WanVideoWrapper",
        kind="WanVideoSLG",
        family="wan",
        stacks={"blocks": "blocks"},
        sampler="WanVideoSampler",
    ),
    _target(
        "kjnodes",
        "KJNodes",
        kind="SkipLayerGuidanceWanVideo",
        family="wan",
        stacks={"blocks": "blocks"},
        sampler="guider",
    ),
    _target(
        "hunyuanvideowrapper-slg",
        "HunyuanVideoWrapper",
        kind="HunyuanVideoSLG",
        family="hunyuan-video",
        stacks={"double": "double_blocks", "single": "single_blocks"},
        sampler="HyVideoSampler",
    ),
)
