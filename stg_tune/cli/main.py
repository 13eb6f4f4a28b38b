"""``stg-tune``: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

import stg_tune
from stg_tune.cli import (
    compare,
    completion,
    doctor,
    evaluate,
    export,
    generate,
    models,
    presets,
    replay,
    report,
    resume,
    score,
    search,
    serve,
    show,
    vote,
    weights,
)
from stg_tune.cli.output import complain
from stg_tune.cli.stopping import code_of, terminable
from stg_tune.cli.tree import Parser, explain
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

DONE, FIXABLE, USAGE, NO_GAIN = 0, 1, 2, 3
"""Exit codes: done; the user can fix it; wrong usage; finished without an improvement."""

COMMANDS = (
    models,
    search,
    resume,
    show,
    report,
    serve,
    vote,
    compare,
    generate,
    score,
    evaluate,
    replay,
    presets,
    export,
    weights,
    doctor,
    completion,
)
"""Modules with ``add(commands)``, in the order of ``--help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``argv`` defaults to the process's own arguments."""
    warnings.showwarning = _show_warning
    try:
        arguments = parser().parse_args(argv)
        with terminable():
            status: int = arguments.run(arguments)
        sys.stdout.flush()
    except StgTuneError as error:
        complain(str(error))
        return FIXABLE
    except KeyboardInterrupt as stop:
        complain("stopped")
        return code_of(stop)
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        sys.stderr.close()
        return DONE
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else USAGE
    return status


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(prog="stg-tune", description=stg_tune.__doc__)
    top.add_argument("--version", action="version", version=f"stg-tune {stg_tune.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    explain(top)
    return top


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if category is UserWarning:  # what a library says to its developers is not for the user of a command
        complain(f"warning: {message}")
