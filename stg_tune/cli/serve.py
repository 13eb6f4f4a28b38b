"""``stg-tune serve``: the report of a run as a page that follows it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import say
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse

    from stg_tune.web import LocalServer


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("serve", help="the report as a page that follows the run, on 127.0.0.1")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of the run")
    add_port(parser)
    parser.set_defaults(run=run)


def add_port(parser: argparse.ArgumentParser) -> None:
    """The options of commands that serve pages."""
    parser.add_argument(
        "--port", type=int, metavar="N", help="port on 127.0.0.1; 0: any (default: first free of 8808-)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def checked_port(arguments: argparse.Namespace) -> int | None:
    """The port that was asked for, if one was."""
    port: int | None = arguments.port
    if port is not None and not 0 <= port <= 65535:
        raise StgTuneError(f"--port must be from 0 to 65535, got {port}")
    return port


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from stg_tune.search import load_run

    port = checked_port(arguments)
    load_run(arguments.directory)  # a wrong folder is answered here, not in the browser
    from stg_tune.cli.report import smaller
    from stg_tune.serve import LivePage, LiveSite, make_page
    from stg_tune.web import LocalServer

    made = LivePage(arguments.directory, make=partial(make_page, shrink=smaller))
    with made as live, LocalServer(lambda token: LiveSite(live), port=port) as server:
        serve_until_stopped(server, open_page=arguments.open)
    return 0


def serve_until_stopped(server: LocalServer, *, open_page: bool) -> None:
    """Say where the page is and answer until Ctrl-C, which is the usual end and no error."""
    say(f"{server.url} (Ctrl-C ends it)")
    if open_page:
        import webbrowser

        webbrowser.open(server.url)
    try:
        server.wait()
    except KeyboardInterrupt:
        say("stopped")
