"""``stg-tune presets``: list, show and check preset files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import say, say_json, say_table
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from stg_tune.preset import GainInterval, Preset

FOLDERS = ("runs", "results/presets")
"""Where ``list`` looks when it is not told."""
SNIFF = 200
"""Bytes of a file in which a preset names its schema; other JSON files are passed over."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("presets", help="list, show and check preset files")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="presets in folders")
    listing.add_argument("folders", nargs="*", type=Path, metavar="DIR", help=f"default: {' and '.join(FOLDERS)}")
    listing.set_defaults(run=run_list)
    showing = actions.add_parser("show", help="a preset and its evidence")
    showing.add_argument("preset", type=Path, metavar="PRESET", help="preset file")
    showing.set_defaults(run=run_show)
    for action in (listing, showing):
        action.add_argument("--json", action="store_true", help="print JSON")
    checking = actions.add_parser("validate", help="check preset files")
    checking.add_argument("presets", nargs="+", type=Path, metavar="PRESET", help="preset file")
    checking.set_defaults(run=run_validate)


def run_list(arguments: argparse.Namespace) -> int:
    """One line a preset; a file that claims to be one and is not gets its reason in place of a setting."""
    folders = arguments.folders or [Path(folder) for folder in FOLDERS]
    rows = [(str(file), *_cells(file)) for folder in folders for file in _candidates(folder)]
    heads = ("PRESET", "MODEL", "GAIN", "SETTING")
    if arguments.json:
        say_json([dict(zip(map(str.lower, heads), row, strict=True)) for row in rows])
    elif rows:
        say_table(heads, rows)
    else:
        say(f"no presets in {', '.join(map(str, folders))}")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Setting and evidence."""
    from stg_tune.preset import load

    preset = load(arguments.preset)
    if arguments.json:
        say_json(preset.to_dict())
        return 0
    for name, value in _facts(preset):
        say(f"{name:14}{value}")
    return 0


def run_validate(arguments: argparse.Namespace) -> int:
    """Check every file; the first that is no preset ends it with one message."""
    from stg_tune.preset import validate

    for file in arguments.presets:
        remarks = validate(file)
        say(f"{file}: valid")
        for remark in remarks:
            say(f"{file}: {remark}")
    return 0


def _candidates(folder: Path) -> Iterator[Path]:
    from stg_tune.preset.record import SCHEMA

    for file in sorted(folder.rglob("*.json")):
        try:
            with file.open("rb") as opened:
                if SCHEMA.encode() in opened.read(SNIFF):
                    yield file
        except OSError:  # not readable for this user: nothing to list
            continue


def _cells(file: Path) -> tuple[str, str, str]:
    from stg_tune.preset import load
    from stg_tune.report.facts import describe

    try:
        preset = load(file)
    except StgTuneError as error:
        return "-", "-", f"not valid: {error}"
    return preset.model, _gain(preset.evidence.gain if preset.evidence else None), describe(preset.spec)


def _facts(preset: Preset) -> Iterator[tuple[str, str]]:
    from stg_tune.report.facts import describe

    yield "preset", preset.name
    yield "model", f"{preset.model} ({preset.family}), {preset.checkpoint} {preset.revision}".rstrip()
    yield "setting", describe(preset.spec)
    evidence = preset.evidence
    if evidence is None:
        yield "evidence", "none"
        return
    yield "evidence", f"{evidence.reason} ({evidence.date}, {evidence.evaluations} evaluations)"
    yield "gain", f"{_gain(evidence.gain)} over {describe(evidence.baseline)}"
    yield "CFG's part", f"{_gain(evidence.cfg_gain)} by {describe(evidence.best_cfg)}"
    yield "STG's part", _gain(evidence.stg_gain)
    for scorer in evidence.scorers:
        yield scorer.name, f"{scorer.baseline:.4g} -> {scorer.value:.4g} {scorer.unit}"


def _gain(gain: GainInterval | None) -> str:
    if gain is None:
        return "-"
    low, high = ("?" if end is None else f"{end:+.2f}" for end in (gain.low, gain.high))
    return f"{gain.mean:+.2f} [{low}, {high}]"
