"""``stg-tune report``: the dashboard of a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import say

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("report", help="write the dashboard of a run: one HTML file that needs no network")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE.html", help="where (default: DIR/report.html)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say where."""
    from stg_tune.outcome import report

    say(str(report(arguments.directory, arguments.out)))
    return 0
