"""``stg-tune resume``: go on with a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.search import add_batch, add_placement, placement_of, say_outcome, say_stopped
from stg_tune.cli.stopping import held, terminable

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("resume", help="go on after Ctrl-C, a crash, or with a larger budget")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--budget",
        metavar="B",
        help="a larger budget for the whole run: medium, large, a number of evaluations, or a time (4h, 32gpuh)",
    )
    parser.add_argument(
        "--takeover",
        action="store_true",
        help="go on although driver.lock names a driver on another host, which is known to be gone: after a node was "
        "lost, or a pod was replaced by one of another name",
    )
    add_placement(parser)
    add_batch(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Go on until the budget is used up."""
    from stg_tune.search import load_run

    load_run(arguments.directory)  # a wrong folder is answered before anything heavy is imported
    from stg_tune.cli.progress import watching
    from stg_tune.tune import resume

    try:
        with terminable(), watching(quiet=arguments.quiet) as progress:
            outcome = resume(
                arguments.directory,
                budget=arguments.budget,
                progress=held(progress),
                placement=placement_of(arguments),
                takeover=arguments.takeover,
            )
    except KeyboardInterrupt as stop:
        return say_stopped(arguments.directory, stop)
    return say_outcome(outcome, arguments.directory, as_json=arguments.json)
