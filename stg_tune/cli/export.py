"""``stg-tune export`` and ``stg-tune import``: presets in the files of other tools."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.cli.output import complain, say, say_json, say_table
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from stg_tune.preset import Preset

MAX_BYTES = 1_000_000
"""Larger files are refused unread."""
SIGMAS = "noise level of each step: linear-quadratic, uniform, uniform:SHIFT, or numbers with commas"


def add(commands: Any) -> None:
    """Register both commands."""
    writing = commands.add_parser("export", help="write a preset for another tool")
    writing.add_argument(
        "preset", nargs="?", metavar="PRESET", help="preset file, or a published preset such as mochi/published"
    )
    writing.add_argument("--to", metavar="TARGET", help="what to write; --list shows all")
    writing.add_argument("--list", action="store_true", help="show the targets, and stop")
    writing.add_argument("--json", action="store_true", help="with --list: print JSON")
    writing.set_defaults(run=run_export)
    reading = commands.add_parser("import", help="read another tool's file as a preset")
    reading.add_argument("file", type=Path, metavar="FILE", help="file of the other tool")
    reading.add_argument("--from", dest="source", required=True, metavar="TARGET", help="what it is; see export --list")
    model = reading.add_mutually_exclusive_group(required=True)
    model.add_argument("--like", metavar="PRESET", help="a preset of the same model: blocks, steps, schedule")
    model.add_argument("--model", metavar="M", help="a name that `stg-tune models` lists")
    reading.add_argument("--name", default="", metavar="N", help="name of the new preset")
    reading.set_defaults(run=run_import)
    for command in (writing, reading):
        command.add_argument("-o", "--out", type=Path, metavar="FILE", help="where to write (default: standard output)")
        command.add_argument("--lossy", action="store_true", help="go on although something comes out different")
        command.add_argument("--steps", type=int, metavar="N", help="number of steps (default: the preset's)")
        command.add_argument("--sigmas", metavar="S", help=SIGMAS)


def run_export(arguments: argparse.Namespace) -> int:
    """Write the file to ``--out`` or standard output; losses and notes go to standard error."""
    if arguments.list:
        _list(as_json=arguments.json)
        return 0
    if arguments.preset is None or arguments.to is None:
        raise StgTuneError("give a preset and a target: stg-tune export PRESET --to TARGET (stg-tune export --list)")
    from stg_tune.export import export, target
    from stg_tune.preset import open_preset

    chosen = target(arguments.to)
    made = export(_scheduled(open_preset(arguments.preset), arguments), chosen.name, lossy=arguments.lossy)
    _write(made.text, arguments.out)
    _tell(made.losses, made.notes)
    if arguments.out:
        say(f"{arguments.out}: {chosen.tool}; goes into {chosen.paste}")
    return 0


def run_import(arguments: argparse.Namespace) -> int:
    """Write the preset to ``--out`` or standard output."""
    from stg_tune.documents import read_limited
    from stg_tune.export import import_, target
    from stg_tune.preset import save

    source = target(arguments.source)
    text = read_limited(arguments.file, MAX_BYTES, f"{source.name} file")
    like = _scheduled(_like(arguments), arguments)
    made = import_(text, source.name, like, name=arguments.name, lossy=arguments.lossy)
    _tell(made.losses, made.notes)
    if arguments.out is None:
        say_json(made.preset.to_dict())
    else:
        save(made.preset, arguments.out)
        say(f"{arguments.out}: {made.preset.name}")
    return 0


def _like(arguments: argparse.Namespace) -> Preset:
    from stg_tune.preset import Preset, open_preset
    from stg_tune.records import GuidanceSpec

    if arguments.like:
        return open_preset(arguments.like)
    entry = models.entry(arguments.model)
    return Preset(
        name=entry.name,
        family=entry.architecture.family,
        model=entry.name,
        checkpoint="embedded" if entry.embedded else entry.source,
        revision="",
        stacks=entry.depths,
        spec=GuidanceSpec(cfg_scale=entry.defaults.cfg_scale),
        generation=entry.defaults,
    )


def _scheduled(preset: Preset, arguments: argparse.Namespace) -> Preset:
    """The preset with ``--steps`` and ``--sigmas``."""
    from stg_tune.preset.schedules import parse

    steps = preset.generation.num_inference_steps if arguments.steps is None else arguments.steps
    if not 1 <= steps <= 10_000:
        raise StgTuneError(f"--steps must be from 1 to 10000, got {steps}")
    generation = replace(preset.generation, num_inference_steps=steps)
    kept = preset.sigmas if steps == preset.generation.num_inference_steps else ()
    sigmas = kept if arguments.sigmas is None else parse(arguments.sigmas, steps)
    return replace(preset, generation=generation, sigmas=sigmas)


def _list(*, as_json: bool) -> None:
    from stg_tune.export import targets

    if as_json:
        say_json(
            [
                {
                    "name": item.name,
                    "tool": item.tool,
                    "url": item.url,
                    "families": list(item.families),
                    "says": item.says,
                    "loses": item.loses,
                    "paste": item.paste,
                    "import": item.read is not None,
                }
                for item in targets()
            ]
        )
        return
    rows = [(item.name, "both" if item.read else "export", ", ".join(item.families), item.says) for item in targets()]
    say_table(("TARGET", "WAYS", "FAMILIES", "SAYS"), rows)


def _write(text: str, out: Path | None) -> None:
    from stg_tune.documents import write_atomic

    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text)


def _tell(losses: Iterable[str], notes: Iterable[str]) -> None:
    for loss in losses:
        complain(f"lost: {loss}")
    for note in notes:
        complain(f"note: {note}")
