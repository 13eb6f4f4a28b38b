"""``stg-tune models``: what can be tuned."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.cli.output import say, say_json, say_table

if TYPE_CHECKING:
    import argparse

    from stg_tune.models.base import ModelEntry


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("models", help="known models, their blocks, what they need")
    parser.add_argument("name", nargs="?", metavar="NAME", help="details of one model")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table, or one model."""
    if arguments.name:
        _show(models.entry(arguments.name), as_json=arguments.json)
    else:
        _list([models.entry(name) for name in models.names()], as_json=arguments.json)
    return 0


def _list(entries: list[ModelEntry], *, as_json: bool) -> None:
    if as_json:
        say_json([_plain(entry) for entry in entries])
        return
    rows = [
        (entry.name, _blocks(entry), "in the package" if entry.embedded else "download", entry.summary)
        for entry in entries
    ]
    say_table(("NAME", "BLOCKS", "WEIGHTS", "SUMMARY"), rows)


def _show(entry: ModelEntry, *, as_json: bool) -> None:
    if as_json:
        say_json(_plain(entry))
        return
    size = entry.defaults
    say(f"{entry.name}: {entry.summary}\n")
    rows = [
        ("family", entry.architecture.family),
        ("pipeline", entry.architecture.pipeline.replace(":", ".")),
        ("weights", entry.source),
        ("video", f"{size.num_frames} frames of {size.width}x{size.height} at {size.fps} per second"),
        ("defaults", f"{size.num_inference_steps} steps, cfg_scale {size.cfg_scale:g}"),
    ]
    rows += [(f"stack {name}", f"blocks 0 to {depth - 1}") for name, depth in entry.depths.items()]
    for name, value in rows:
        say(f"{name:16}{value}")


def _blocks(entry: ModelEntry) -> str:
    return ", ".join(f"{depth} {name}" for name, depth in entry.depths.items())


def _plain(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "summary": entry.summary,
        "family": entry.architecture.family,
        "pipeline": entry.architecture.pipeline,
        "source": entry.source,
        "embedded": entry.embedded,
        "depths": dict(entry.depths),
        "defaults": asdict(entry.defaults),
    }
