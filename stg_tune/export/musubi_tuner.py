"""musubi-tuner: arguments of ``wan_generate_video.py``.

Read from kohya-ss/musubi-tuner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.export import arguments, layouts, windows
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import from_window, one_cfg
from stg_tune.export.timeline import term_of

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec

MODES = {"original": "crossed", "uncond": "uncond"}
"""``--slg_mode`` -> branch. ``original`` hands the negative prompt to the skipped pass."""


def write(preset: Preset, journal: Journal) -> str:
    """Arguments of ``wan_generate_video.py``."""
    window = arguments.residual_window(preset, journal, ("wan",))
    if window.cfg_scale == 1:
        journal.refuse("it skips layers only in steps with CFG, and CFG is 1")
    if window.term.branch == "from_guided":
        journal.refuse("terms that are orthogonal to each other and taken from the CFG result cannot be said")
    if window.term.branch == "cond":
        journal.lose(
            "the weak prediction sees the negative prompt (branch crossed), so the scale guides by the text too"
        )
    mode = "uncond" if window.term.branch == "uncond" else "original"
    start, stop = windows.to_floored(window.first, window.last, window.num_steps)
    arguments.note_window(start, stop, window, journal)
    scale = "" if mode == "uncond" else f" --slg_scale {float(window.term.stg_scale)}"
    layers = ",".join(map(str, layouts.only_stack(window.term, journal, ("blocks",))))
    return (
        f"--infer_steps {window.num_steps} --guidance_scale {one_cfg(window, journal)} --slg_mode {mode} "
        f"--slg_layers {layers}{scale} --slg_start {start} --slg_end {stop}\n"
    )


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """Such arguments, for the model of ``preset``."""
    layouts.need_family(preset, journal, ("wan",))
    data = arguments.parse(text)
    cfg_scale = arguments.number(data, "guidance_scale", 5.0)
    mode = data.get("slg_mode", [""])
    if mode != [""] and (len(mode) != 1 or mode[0] not in MODES):
        journal.refuse(f"slg_mode must be one of {', '.join(MODES)}, got {' '.join(mode)[:40]!r}")
    steps = preset.generation.num_inference_steps
    layers = arguments.layers(data, "slg_layers")
    if mode == [""] or not layers or cfg_scale == 1:
        return from_window(None, None, cfg_scale=cfg_scale, rescale=0.0, num_steps=steps, scope="none")
    branch = MODES[mode[0]]
    term = term_of(
        {"blocks": layers}, "residual", 1.0 if branch == "uncond" else arguments.number(data, "slg_scale", 3.0), branch
    )
    held = windows.from_floored(arguments.number(data, "slg_start", 0.0), arguments.number(data, "slg_end", 0.3), steps)
    return from_window(term, held, cfg_scale=cfg_scale, rescale=0.0, num_steps=steps, scope="none")


TARGET = Target(
    name="musubi-tuner",
    tool="musubi-tuner, wan_generate_video.py",
    url="https://github.com/kohya-ss/musubi-tuner",
    suffix=".txt",
    families=("wan",),
    says=f"{arguments.SAYS}, branches crossed and uncond (from_guided is rewritten exactly)",
    loses="the branch cond (it becomes crossed); a second term or window; another CFG scale outside; rescale",
    paste="behind python wan_generate_video.py",
    write=write,
    read=read,
)
