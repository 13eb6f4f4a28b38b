"""Command-line arguments: Lightricks' LTX-2, musubi-tuner, stable-diffusion.cpp.

Read from Lightricks/LTX-2 at 400fd31 (``utils/args.py``), kohya-ss/musubi-tuner (``wan_generate_video.py``) and
leejet/stable-diffusion.cpp (``stable-diffusion.cpp``, ``is_skiplayer_step``).
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.export import diffusers_ltx2, fields, layouts, windows
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
    from stg_tune.records import GuidanceSpec

MUSUBI_MODES = {"original": "crossed", "uncond": "uncond"}
"""``--slg_mode`` -> branch. ``original`` hands the negative prompt to the skipped pass."""


def write_ltx2(preset: Preset, journal: Journal) -> str:
    """Arguments of the LTX-2 pipelines."""
    found = diffusers_ltx2.setting(preset, journal)
    diffusers_ltx2.need_all_steps(found, journal)
    note_whole_batch(found.rescale, journal)
    journal.note(
        "sound: STG and modality guidance are off, CFG and rescale are the tool's; a preset speaks of the video"
    )
    arguments = [
        f"--num-inference-steps {preset.generation.num_inference_steps}",
        f"--video-cfg-guidance-scale {found.cfg_scale}",
        f"--video-stg-guidance-scale {found.stg_scale}",
        *([f"--video-stg-blocks {' '.join(map(str, found.blocks))}"] if found.blocks else []),
        f"--video-rescale-scale {found.rescale}",
        "--a2v-guidance-scale 1.0",
        "--video-skip-step 0",
        "--audio-stg-guidance-scale 0.0",
        "--v2a-guidance-scale 1.0",
    ]
    return " ".join(arguments) + "\n"


def read_ltx2(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """Such arguments, for the model of ``preset``."""
    layouts.need_family(preset, journal, diffusers_ltx2.FAMILIES)
    data = _arguments(text)
    if _number(data, "video-skip-step", 0):
        journal.lose("video-skip-step is left out: a preset does not leave out steps")
    if _number(data, "a2v-guidance-scale", 1) != 1:
        journal.lose("a2v-guidance-scale is left out: a preset has none")
    if any(name.startswith("audio-") for name in data):
        journal.note(diffusers_ltx2.SOUND_NOTE)
    steps = preset.generation.num_inference_steps
    return diffusers_ltx2.from_arguments(
        _layers(data, "video-stg-blocks"),
        (0, steps - 1),
        steps,
        stg_scale=_number(data, "video-stg-guidance-scale", 0),
        cfg=_number(data, "video-cfg-guidance-scale", preset.spec.cfg_scale),
        rescale=_number(data, "video-rescale-scale", 0),
        journal=journal,
    )


def write_musubi(preset: Preset, journal: Journal) -> str:
    """Arguments of ``wan_generate_video.py``."""
    window = _residual(preset, journal, ("wan",))
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
    _note(start, stop, window, journal)
    scale = "" if mode == "uncond" else f" --slg_scale {float(window.term.stg_scale)}"
    layers = ",".join(map(str, layouts.only_stack(window.term, journal, ("blocks",))))
    return (
        f"--infer_steps {window.num_steps} --guidance_scale {one_cfg(window, journal)} --slg_mode {mode} "
        f"--slg_layers {layers}{scale} --slg_start {start} --slg_end {stop}\n"
    )


def read_musubi(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """Such arguments, for the model of ``preset``."""
    layouts.need_family(preset, journal, ("wan",))
    data = _arguments(text)
    cfg_scale = _number(data, "guidance_scale", 5.0)
    mode = data.get("slg_mode", [""])
    if mode != [""] and (len(mode) != 1 or mode[0] not in MUSUBI_MODES):
        journal.refuse(f"slg_mode must be one of {', '.join(MUSUBI_MODES)}, got {' '.join(mode)[:40]!r}")
    steps = preset.generation.num_inference_steps
    layers = _layers(data, "slg_layers")
    if mode == [""] or not layers or cfg_scale == 1:
        return from_window(None, None, cfg_scale=cfg_scale, rescale=0.0, num_steps=steps, scope="none")
    branch = MUSUBI_MODES[mode[0]]
    term = term_of(
        {"blocks": layers}, "residual", 1.0 if branch == "uncond" else _number(data, "slg_scale", 3.0), branch
    )
    held = windows.from_floored(_number(data, "slg_start", 0.0), _number(data, "slg_end", 0.3), steps)
    return from_window(term, held, cfg_scale=cfg_scale, rescale=0.0, num_steps=steps, scope="none")


def write_sd_cpp(preset: Preset, journal: Journal) -> str:
    """Arguments of ``sd``."""
    window = _residual(preset, journal, ("sd3", "wan"))
    need_branch(window, journal, "cond")
    if window.term.stg_scale < 0:
        journal.refuse(f"stg_scale {window.term.stg_scale:g} is negative: sd takes 0 or more")
    start, stop = windows.to_counted(window.first, window.last, window.num_steps)
    _note(start, stop, window, journal)
    layers = ",".join(map(str, layouts.only_stack(window.term, journal, ("blocks",))))
    return (
        f"--steps {window.num_steps} --cfg-scale {one_cfg(window, journal)} --slg-scale {float(window.term.stg_scale)} "
        f"--skip-layers [{layers}] --skip-layer-start {start} --skip-layer-end {stop}\n"
    )


def read_sd_cpp(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """Such arguments, for the model of ``preset``."""
    layouts.need_family(preset, journal, ("sd3", "wan"))
    data = _arguments(text)
    if any(name.startswith("high-noise-") for name in data):
        journal.lose("the arguments of the high-noise expert are left out: a preset has one setting for both")
    layers = _layers(data, "skip-layers", default="7,8,9")
    steps = preset.generation.num_inference_steps
    held = windows.from_counted(_number(data, "skip-layer-start", 0.01), _number(data, "skip-layer-end", 0.2), steps)
    term = term_of({"blocks": layers}, "residual", max(_number(data, "slg-scale", 0.0), 0.0)) if layers else None
    cfg_scale = _number(data, "cfg-scale", 7.0)
    return from_window(term, held, cfg_scale=cfg_scale, rescale=0.0, num_steps=steps, scope="none")


def _residual(preset: Preset, journal: Journal, families: tuple[str, ...]) -> Window:
    layouts.need_family(preset, journal, families)
    window = one_window(preset, journal)
    need_op(window.term, journal, ("residual",))
    one_rescale(preset, window, journal, scope="none", space="prediction")
    return window


def _note(start: float, stop: float, window: Window, journal: Journal) -> None:
    if (start, stop) != (0.0, 1.0):
        journal.note(f"the window is exact for {window.num_steps} steps")


def _arguments(text: str) -> dict[str, list[str]]:
    """``--name value value`` as name -> values; nothing is run."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise StgTuneError(f"the arguments cannot be read: {error}") from None
    found: dict[str, list[str]] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            if name in found:
                raise StgTuneError(f"--{name[:60]} is given twice")
            found[name] = [value] if value else []
        elif name is not None:
            found[name].append(word)
    return found


def _number(data: dict[str, list[str]], name: str, default: float) -> float:
    values: list[Any] = data.get(name, [default])
    try:
        value = float(values[0]) if len(values) == 1 else None
    except ValueError:
        value = None
    return fields.number({name: value if value is not None else " ".join(map(str, values))[:60]}, name)


def _layers(data: dict[str, list[str]], name: str, default: str = "") -> tuple[int, ...]:
    text = ",".join(data.get(name, [default])).strip("[]")
    return fields.indices_text(text, name)


_TWO = "residual, no rescale, one window"
TARGETS = (
    Target(
        name="ltx-2",
        tool="Lightricks LTX-2, command line",
        url="https://github.com/Lightricks/LTX-2",
        suffix=".txt",
        families=diffusers_ltx2.FAMILIES,
        says="attention, branch cond, no window, rescale of x0",
        paste="behind the command of an LTX-2 pipeline",
        write=write_ltx2,
        read=read_ltx2,
    ),
    Target(
        name="musubi-tuner",
        tool="musubi-tuner, wan_generate_video.py",
        url="https://github.com/kohya-ss/musubi-tuner",
        suffix=".txt",
        families=("wan",),
        says=f"{_TWO}, branches crossed and uncond (from_guided is rewritten exactly)",
        paste="behind python wan_generate_video.py",
        write=write_musubi,
        read=read_musubi,
    ),
    Target(
        name="stable-diffusion.cpp",
        tool="stable-diffusion.cpp, sd",
        url="https://github.com/leejet/stable-diffusion.cpp",
        suffix=".txt",
        families=("sd3", "wan"),
        says=f"{_TWO}, branch cond",
        paste="behind sd",
        write=write_sd_cpp,
        read=read_sd_cpp,
    ),
)
