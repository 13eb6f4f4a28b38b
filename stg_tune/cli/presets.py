"""``stg-tune presets``: list, show, compare and check preset files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import say, say_json, say_table
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from stg_tune.preset import Difference, GainInterval, Preset, VoteCount

FOLDERS = ("runs", "results/presets")
"""Where ``list`` looks when it is not told."""
NAMED = "preset file, or a published preset such as mochi/published"
SNIFF = 200
"""Bytes of a file in which a preset names its schema; other JSON files are passed over."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("presets", help="list, show, compare and check presets")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="presets in folders")
    places = f"{' and '.join(FOLDERS)}, and what others have published"
    listing.add_argument("folders", nargs="*", type=Path, metavar="DIR", help=f"default: {places}")
    listing.set_defaults(run=run_list)
    showing = actions.add_parser("show", help="a preset and its evidence")
    showing.add_argument("preset", metavar="PRESET", help=NAMED)
    showing.set_defaults(run=run_show)
    comparing = actions.add_parser("diff", help="what differs between two presets")
    comparing.add_argument("left", metavar="PRESET", help=NAMED)
    comparing.add_argument("right", metavar="PRESET", help="the other one")
    comparing.set_defaults(run=run_diff)
    for action in (listing, showing, comparing):
        action.add_argument("--json", action="store_true", help="print JSON")
    checking = actions.add_parser("validate", help="check preset files")
    checking.add_argument("presets", nargs="+", metavar="PRESET", help=NAMED)
    checking.set_defaults(run=run_validate)


def run_list(arguments: argparse.Namespace) -> int:
    """One line a preset; a file that claims to be one and is not gets its reason in place of a setting."""
    folders = arguments.folders or [Path(folder) for folder in FOLDERS]
    rows = [(str(file), *_cells(file)) for folder in folders for file in _candidates(folder)]
    if not arguments.folders:
        rows += _published()
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
    from stg_tune.preset import open_preset

    preset = open_preset(arguments.preset)
    if arguments.json:
        say_json(preset.to_dict())
        return 0
    for name, value in _facts(preset):
        say(f"{name:14}{value}")
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Field by field; what does not change the result comes last."""
    from stg_tune.preset import diff, open_preset

    left, right = open_preset(arguments.left), open_preset(arguments.right)
    found = sorted(diff(left, right), key=lambda item: not item.changes_result)
    if arguments.json:
        say_json([asdict(item) for item in found])
        return 0
    for item in found:
        say(f"{item.field}: {_value(item.left)} -> {_value(item.right)}")
    say(_judgement(found))
    return 0


def run_validate(arguments: argparse.Namespace) -> int:
    """Check every file; the first that is no preset ends it with one message."""
    from stg_tune.preset import open_preset, remarks_on

    for file in arguments.presets:
        remarks = remarks_on(open_preset(file))
        say(f"{file}: valid")
        for remark in remarks:
            say(f"{file}: {remark}")
    return 0


def _candidates(folder: Path) -> Iterator[Path]:
    from stg_tune.preset.record import SCHEMA

    for file in sorted(folder.rglob("*.json")):
        if not file.is_file():  # a pipe would be waited for
            continue
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


def _published() -> list[tuple[str, str, str, str]]:
    from stg_tune.preset import find_published, published_names
    from stg_tune.report.facts import describe

    presets = ((name, find_published(name)) for name in published_names())
    return [(name, preset.model, "-", describe(preset.spec)) for name, preset in presets]


def _judgement(found: list[Difference]) -> str:
    if not found:
        return "the presets are equal"
    return "the results differ" if any(item.changes_result for item in found) else "the results are the same"


def _value(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _facts(preset: Preset) -> Iterator[tuple[str, str]]:
    from stg_tune.report.facts import describe

    yield "preset", preset.name
    yield "model", f"{preset.model} ({preset.family}), {preset.checkpoint} {preset.revision}".rstrip()
    yield "setting", describe(preset.spec)
    branches = {term.branch for segment in preset.spec.segments for term in segment.terms} - {"cond"}
    if branches:
        yield "branch", ", ".join(sorted(branches))
    yield "hash", preset.hash()
    if preset.source:
        yield "source", preset.source
    for note in preset.notes:
        yield "note", note
    evidence = preset.evidence
    if evidence is None:
        yield "evidence", "none"
        return
    yield "evidence", f"{evidence.reason} ({evidence.date}, {evidence.evaluations} evaluations)"
    yield "gain", f"{_gain(evidence.gain)} over {describe(evidence.baseline)}"
    yield "CFG's part", f"{_gain(evidence.cfg_gain)} by {describe(evidence.best_cfg)}"
    yield "STG's part", _gain(evidence.stg_gain)
    if evidence.warning:
        yield "warning", evidence.warning
    for guard in evidence.guard_values:
        side = "at most" if guard.rule == "at_most_fraction" else "at least"
        yield "guard", f"{guard.name}: {_gain(guard.value)}, allowed {side} {guard.limit:+.3g}"
    for scorer in evidence.scorers:
        yield scorer.name, f"{scorer.baseline:.4g} -> {scorer.value:.4g} {scorer.unit}"
    for item in evidence.votes:
        yield f"vote {item.question}", _vote(item)


def _vote(item: VoteCount) -> str:
    return (
        f"{item.rate:.0%} [{item.low:.0%}, {item.high:.0%}] prefer it to the default (ties count half); "
        f"{item.wins} for, {item.losses} against, {item.ties} ties; voters {item.voters}, pairs {item.pairs}"
    )


def _gain(gain: GainInterval | None) -> str:
    if gain is None:
        return "-"
    low, high = ("?" if end is None else f"{end:+.2f}" for end in (gain.low, gain.high))
    return f"{gain.mean:+.2f} [{low}, {high}]"
