"""Lightricks' LTX-2: command-line arguments.

Read from Lightricks/LTX-2 at 400fd31, ``utils/args.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.export import arguments, layouts, ltx2
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import note_whole_batch

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec


def write(preset: Preset, journal: Journal) -> str:
    """Arguments of the LTX-2 pipelines."""
    found = ltx2.setting(preset, journal)
    ltx2.need_all_steps(found, journal)
    note_whole_batch(found.rescale, journal)
    journal.note(
        "sound: STG and modality guidance are off, CFG and rescale are the tool's; a preset speaks of the video"
    )
    words = [
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
    return " ".join(words) + "\n"


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """Such arguments, for the model of ``preset``."""
    layouts.need_family(preset, journal, ltx2.FAMILIES)
    data = arguments.parse(text)
    if arguments.number(data, "video-skip-step", 0):
        journal.lose("video-skip-step is left out: a preset does not leave out steps")
    if arguments.number(data, "a2v-guidance-scale", 1) != 1:
        journal.lose("a2v-guidance-scale is left out: a preset has none")
    if any(name.startswith("audio-") for name in data):
        journal.note(ltx2.SOUND_NOTE)
    steps = preset.generation.num_inference_steps
    return ltx2.from_arguments(
        arguments.layers(data, "video-stg-blocks"),
        (0, steps - 1),
        steps,
        stg_scale=arguments.number(data, "video-stg-guidance-scale", 0),
        cfg=arguments.number(data, "video-cfg-guidance-scale", preset.spec.cfg_scale),
        rescale=arguments.number(data, "video-rescale-scale", 0),
        journal=journal,
    )


TARGET = Target(
    name="ltx-2",
    tool="Lightricks LTX-2, command line",
    url="https://github.com/Lightricks/LTX-2",
    suffix=".txt",
    families=ltx2.FAMILIES,
    says="attention, branch cond, no window, rescale of x0",
    loses="a window; a second term; another CFG scale in some steps; rescale of the prediction",
    paste="behind the command of an LTX-2 pipeline",
    write=write,
    read=read,
)
