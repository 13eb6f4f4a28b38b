"""diffusers community pipelines ``pipeline_stg_*``: keyword arguments.

Read from diffusers at 58eb52c, ``examples/community``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.export import fields, layouts
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import Window, from_window, need_branch, need_op, one_cfg, one_rescale, one_window
from stg_tune.export.timeline import term_of

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec

PIPELINES = {
    "mochi": "pipeline_stg_mochi",
    "cogvideox": "pipeline_stg_cogvideox",
    "ltx": "pipeline_stg_ltx",
    "hunyuan-video": "pipeline_stg_hunyuan_video",
    "wan": "pipeline_stg_wan",
}
FACTOR = 0.7
"""The one factor that ``do_rescaling=True`` has."""
_RESCALING = ("mochi", "cogvideox", "ltx")
_STACKS = ("blocks", "double")
_CRASHES = ("cogvideox", "hunyuan-video")
"""Families whose pipeline passes the blocks of diffusers 0.42.1 other arguments than they take."""


def write(preset: Preset, journal: Journal) -> str:
    """Name of the pipeline and arguments of its call, as JSON."""
    layouts.need_family(preset, journal, tuple(PIPELINES))
    window = one_window(preset, journal)
    need_branch(window, journal, "cond")
    need_op(window.term, journal, ("residual",))
    if not window.everywhere:
        journal.lose(
            f"the window (steps {window.first} to {window.last}) is left out: layers are skipped in every step"
        )
    cfg_scale = _cfg(preset, window, journal)
    rescale = _rescale(preset, window, journal)
    _note_faults(preset, window, journal)
    call = {
        "num_inference_steps": preset.generation.num_inference_steps,
        **({} if preset.family == "hunyuan-video" else {"guidance_scale": cfg_scale}),
        "stg_applied_layers_idx": list(layouts.only_stack(window.term, journal, _STACKS)),
        "stg_scale": float(window.term.stg_scale),
        **({"do_rescaling": rescale > 0} if preset.family in _RESCALING else {}),
    }
    return fields.pretty({"custom_pipeline": PIPELINES[preset.family], "call": call}) + "\n"


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """Such a file, or the arguments alone, for the model of ``preset``."""
    layouts.need_family(preset, journal, tuple(PIPELINES))
    data = fields.json_object(text, "pipeline arguments")
    name = fields.word(data, "custom_pipeline", PIPELINES[preset.family])
    if name != PIPELINES[preset.family]:
        journal.refuse(f"it is for {name[:60]!r}, but the model is of the family {preset.family}")
    call = data.get("call", data)
    if not isinstance(call, dict):
        journal.refuse(f"call must be an object, got {str(call)[:60]!r}")
    stack = "double" if preset.family == "hunyuan-video" else "blocks"
    layers = fields.indices(call.get("stg_applied_layers_idx"), "stg_applied_layers_idx")
    steps = preset.generation.num_inference_steps
    cfg_scale = (
        1.0 if preset.family == "hunyuan-video" else fields.number(call, "guidance_scale", preset.spec.cfg_scale)
    )
    rescales = preset.family in _RESCALING and fields.flag(call, "do_rescaling", default=False)
    return from_window(
        term_of({stack: layers}, "residual", fields.number(call, "stg_scale")),
        (0, steps - 1),
        cfg_scale=cfg_scale,
        rescale=FACTOR if rescales else 0.0,
        num_steps=steps,
        scope="all",
    )


def _note_faults(preset: Preset, window: Window, journal: Journal) -> None:
    journal.note("one prompt and one video in a call; the pipeline stays patched afterwards")
    if preset.family == "wan":
        journal.note("the pipeline cannot run Wan2.2 (TI2V-5B, A14B)")
    if preset.family in _CRASHES:
        journal.note("with diffusers 0.42.1 this pipeline raises TypeError in the first step; stg_tune.guided does not")
    last = preset.stacks.get("blocks", 0) - 1
    if preset.family == "mochi" and last in window.term.skip_layers.get("blocks", ()):
        journal.refuse(f"the pipeline does not skip the last block of mochi ({last}), and says nothing")


def _cfg(preset: Preset, window: Window, journal: Journal) -> float:
    scale = one_cfg(window, journal)
    if preset.family == "hunyuan-video" and scale != 1:
        journal.refuse("its HunyuanVideo pipeline has no CFG beside STG")
    if preset.family != "hunyuan-video" and scale <= 1:
        journal.refuse(f"it skips layers only with CFG above 1, not at {scale:g}")
    return scale


def _rescale(preset: Preset, window: Window, journal: Journal) -> float:
    if preset.family not in _RESCALING:
        return one_rescale(preset, window, journal, scope="none", space="prediction")
    factor = one_rescale(preset, window, journal, scope="all", space="prediction")
    if factor not in (0.0, FACTOR):
        journal.lose(
            f"rescale {factor:g} becomes {FACTOR if factor > FACTOR / 2 else 0:g}: it is either off or {FACTOR}"
        )
    return FACTOR if factor > FACTOR / 2 else 0.0


TARGET = Target(
    name="diffusers-community",
    tool="diffusers, community STG pipelines",
    url="https://github.com/huggingface/diffusers/tree/main/examples/community",
    suffix=".json",
    families=tuple(PIPELINES),
    says="residual, branch cond, no window, rescale 0 or 0.7",
    loses="a window; a second term; another CFG scale in some steps; a rescale other than 0.7 (Wan, HunyuanVideo: any)",
    paste='pipe = DiffusionPipeline.from_pretrained(checkpoint, custom_pipeline=...); pipe(prompt, **data["call"])',
    write=write,
    read=read,
)
