"""``stg-tune doctor``: is everything here that a search needs?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import complain, say_json, say_table

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("doctor", help="versions, devices, weights, Ray, disk and network of this machine")
    parser.add_argument("--offline", action="store_true", help="do not ask the network")
    parser.add_argument("--start-ray", action="store_true", help="start Ray on this machine for a moment")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look at everything; 1 when something must be mended before a search can work."""
    from stg_tune.doctor import examine

    findings = list(examine(offline=arguments.offline, start_ray=arguments.start_ray))
    problems = [item for item in findings if item.state == "problem"]
    if arguments.json:
        say_json({"ok": not problems, "checks": [asdict(item) for item in findings]})
    else:
        say_table(("CHECK", "STATE", "FOUND"), [(item.name, item.state, item.found) for item in findings])
    for item in findings:
        if item.advice:
            complain(f"{item.name}: {item.advice}")
    return 1 if problems else 0
