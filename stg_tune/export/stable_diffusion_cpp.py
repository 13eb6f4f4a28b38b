"""stable-diffusion.cpp: arguments of ``sd``.

Read from leejet/stable-diffusion.cpp, ``stable-diffusion.cpp``, ``is_skiplayer_step``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.export import arguments, layouts, windows
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import from_window, need_branch, one_cfg
from stg_tune.export.timeline import term_of

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec


def write(preset: Preset, journal: Journal) -> str:
    """Arguments of ``sd``."""
    window = arguments.residual_window(preset, journal, ("sd3", "wan"))
    need_branch(window, journal, "cond")
    if window.term.stg_scale < 0:
        journal.refuse(f"stg_scale {window.term.stg_scale:g} is negative: sd takes 0 or more")
    start, stop = windows.to_counted(window.first, window.last, window.num_steps)
    arguments.note_window(start, stop, window, journal)
    layers = ",".join(map(str, layouts.only_stack(window.term, journal, ("blocks",))))
    return (
        f"--steps {window.num_steps} --cfg-scale {one_cfg(window, journal)} --slg-scale {float(window.term.stg_scale)} "
        f"--skip-layers [{layers}] --skip-layer-start {start} --skip-layer-end {stop}\n"
    )


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """Such arguments, for the model of ``preset``."""
    layouts.need_family(preset, journal, ("sd3", "wan"))
    data = arguments.parse(text)
    if any(name.startswith("high-noise-") for name in data):
        journal.lose("the arguments of the high-noise expert are left out: a preset has one setting for both")
    layers = arguments.layers(data, "skip-layers", default="7,8,9")
    steps = preset.generation.num_inference_steps
    held = windows.from_counted(
        arguments.number(data, "skip-layer-start", 0.01), arguments.number(data, "skip-layer-end", 0.2), steps
    )
    term = (
        term_of({"blocks": layers}, "residual", max(arguments.number(data, "slg-scale", 0.0), 0.0)) if layers else None
    )
    cfg_scale = arguments.number(data, "cfg-scale", 7.0)
    return from_window(term, held, cfg_scale=cfg_scale, rescale=0.0, num_steps=steps, scope="none")


TARGET = Target(
    name="stable-diffusion.cpp",
    tool="stable-diffusion.cpp, sd",
    url="https://github.com/leejet/stable-diffusion.cpp",
    suffix=".txt",
    families=("sd3", "wan"),
    says=f"{arguments.SAYS}, branch cond",
    loses="a second term or window; another CFG scale outside; rescale",
    paste="behind sd",
    write=write,
    read=read,
)
