"""``stg-tune report``: the dashboard of a run as one HTML file, or several runs laid over each other."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import say
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse

PREVIEW = 256
"""Height of a clip that had to be made smaller, in pixels."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "report", help="write the dashboard of a run, or compare several: one HTML file that needs no network"
    )
    parser.add_argument("directory", type=Path, nargs="+", metavar="DIR", help="folder of a run; several: compare them")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE.html",
        help="where (default: DIR/report.html, of several DIR/comparison.html in the first)",
    )
    parser.add_argument(
        "--assets", action="store_true", help="put the videos, as they are, into a folder beside the page"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say where."""
    from stg_tune.outcome import comparison, report

    if len(arguments.directory) == 1:
        say(str(report(arguments.directory[0], arguments.out, assets=arguments.assets, shrink=smaller)))
        return 0
    if arguments.assets:
        raise StgTuneError("--assets goes with one run: a comparison shows no videos; leave it out")
    say(str(comparison(arguments.directory, arguments.out)))
    return 0


def smaller(path: Path) -> bytes:
    """The video as an MP4 of at most ``PREVIEW`` lines, which takes less room in a page."""
    from stg_tune.video import read_video, shrunk, write_mp4

    with tempfile.TemporaryDirectory(prefix="stg-tune-") as folder:
        return write_mp4(shrunk(read_video(path), PREVIEW), Path(folder) / "small.mp4").read_bytes()
