"""``stg-tune replay``: evaluate a stored row again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import number, say, say_json, say_table

if TYPE_CHECKING:
    import argparse

    from stg_tune.records import Evaluation
    from stg_tune.tune import Replayed

SAME, DIFFERENT = 0, 1
"""Exit codes."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("replay", help="evaluate a stored pair again and compare")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "config", metavar="CONFIG", help="default, winner, the number of a trial, or the beginning of a hash"
    )
    parser.add_argument(
        "pair",
        metavar="PAIR",
        help="the number of a search pair, h and the number of a held-out pair, or the beginning of a key",
    )
    parser.add_argument("-o", "--out", type=Path, metavar="FILE.mp4", help="write the video")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 when the scores are the same, 1 when they are not."""
    from stg_tune.search.stored import find_row

    find_row(arguments.directory, arguments.config, arguments.pair)  # wrong words are answered before torch is imported
    from stg_tune.search.workers.selftest import differences
    from stg_tune.tune import replay

    replayed = replay(arguments.directory, arguments.config, arguments.pair, out=arguments.out)
    found = differences(replayed.stored.evaluation, replayed.now)
    if arguments.json:
        say_json(_summary(replayed, found))
    else:
        _say(replayed, found)
        if arguments.out is not None:
            say(f"video: {arguments.out}")
    return DIFFERENT if found else SAME


def _say(replayed: Replayed, found: list[str]) -> None:
    stored, now = replayed.stored.evaluation, replayed.now
    say(f"configuration {stored.config}, pair {stored.pair.key}: {stored.pair.prompt!r}, seed {stored.pair.seed}")
    say(f"stored by {replayed.stored.worker}")
    say()
    rows = [
        (name, number(stored.scores.get(name), 6), number(now.scores.get(name), 6))
        for name in dict.fromkeys((*stored.scores, *now.scores))
    ]
    rows += [(f"error: {row.error}", *ends) for row, ends in ((stored, ("x", "")), (now, ("", "x"))) if row.error]
    say_table(("SCORER", "STORED", "NOW"), rows)
    say()
    say(f"not the same: {'; '.join(found)}" if found else "the same")


def _summary(replayed: Replayed, found: list[str]) -> dict[str, Any]:
    stored = replayed.stored
    return {
        "config": stored.evaluation.config,
        "spec": stored.task.spec.to_dict(),
        "pair": {"key": stored.evaluation.pair.key, **stored.evaluation.pair.to_dict()},
        "worker": stored.worker,
        "stored": _plain(stored.evaluation),
        "now": _plain(replayed.now),
        "same": not found,
        "differences": found,
    }


def _plain(row: Evaluation) -> dict[str, Any]:
    return {"scores": dict(row.scores), "unscored": dict(row.unscored), "error": row.error, "seconds": row.seconds}
