"""``stg-tune vote``: which of two settings do people prefer, when they do not know which is which?"""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import complain, say, say_json
from stg_tune.cli.serve import add_port, checked_port, serve_until_stopped
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from stg_tune.vote import Tally, Vote, VoteFile

PAIRS = 8
"""Pairs that a finished run has filmed."""
MAX_NAME = 100


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("vote", help="blind vote between default and tuned, or any two presets")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="P",
        help="twice: two preset files or published presets (default: the model's default and what the run has found)",
    )
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"held-out pairs (default: {PAIRS})")
    parser.add_argument("--voter", metavar="NAME", help="who votes (default: your user name)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides order and sides (default: 0)")
    add_port(parser)
    parser.add_argument("--result", action="store_true", help="print what the votes say so far, and stop")
    parser.add_argument("--json", action="store_true", help="with --result: print JSON")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write all votes to a .csv or .json file, and stop")
    parser.add_argument(
        "--into-preset",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="FILE",
        help="write win rates, votes and voters into the evidence of a preset (default: DIR/preset.json), and stop",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Open the booth, or print or write what is in the box."""
    from stg_tune.search import load_run

    load_run(arguments.directory)
    from stg_tune.vote import VoteFile

    file = VoteFile(arguments.directory / "votes.json")
    if arguments.export:
        _export(file, arguments.export)
    elif arguments.into_preset is not None:
        _into_preset(arguments.directory, arguments.into_preset)
    elif arguments.result or arguments.json:
        _say_result(file, as_json=arguments.json)
    else:
        _open_booth(file, arguments)
    return 0


def _open_booth(file: VoteFile, arguments: argparse.Namespace) -> None:
    port, voter = checked_port(arguments), _voter(arguments.voter)
    file.votes()  # a damaged file is answered before anything is filmed
    from stg_tune.film import ballot_of
    from stg_tune.vote import Booth
    from stg_tune.web import LocalServer

    ballot = ballot_of(arguments.directory, presets=arguments.preset, pairs=arguments.pairs, tell=complain)

    def booth(token: str) -> Booth:
        return Booth(ballot, file, voter=voter, seed=arguments.seed, token=token)

    with LocalServer(booth, port=port) as server:
        say(f"{voter} votes on {len(ballot.items)} pairs; every answer is kept at once in {file.path}")
        serve_until_stopped(server, open_page=arguments.open)
    _say_result(file, as_json=False)


def _voter(name: str | None) -> str:
    voter = (getpass.getuser() if name is None else name).strip()
    if not 1 <= len(voter) <= MAX_NAME or not voter.isprintable():
        raise StgTuneError(f"--voter must have 1 to {MAX_NAME} printable characters, got {voter[:MAX_NAME]!r}")
    return voter


def say_votes(directory: Path) -> None:
    """What the votes of a run say, if there are any; a damaged file is one remark."""
    from stg_tune.vote import VoteFile

    file = VoteFile(directory / "votes.json")
    try:
        if file.path.exists():
            say("\nBlind votes")
            _say_result(file, as_json=False)
    except StgTuneError as error:
        complain(str(error))


def _say_result(file: VoteFile, *, as_json: bool) -> None:
    words, results = file.settings(), list(_tallies(file.votes()))
    if as_json:
        say_json({"settings": dict(words), "results": [item.to_dict() for item in results]})
        return
    if not results:
        say("no votes yet")
    compared = None
    for item in results:
        if (item.a, item.b) != compared:
            compared = item.a, item.b
            say(f"{item.b} ({words.get(item.b, '?')}) against {item.a} ({words.get(item.a, '?')})")
        say(f"  {item.words()}")


def _tallies(votes: tuple[Vote, ...]) -> Iterator[Tally]:
    """Each comparison in the direction in which it was voted on first."""
    from stg_tune.vote import tally

    seen: set[frozenset[str]] = set()
    for vote in votes:
        if frozenset((vote.a, vote.b)) not in seen:
            seen.add(frozenset((vote.a, vote.b)))
            yield from tally(votes, vote.a, vote.b)


def _into_preset(directory: Path, target: Path) -> None:
    from stg_tune import preset
    from stg_tune.outcome import with_votes

    file = directory / "preset.json" if target == Path() else target
    counted = with_votes(preset.load(file), directory)
    preset.save(counted, file)
    votes = counted.evidence.votes if counted.evidence else ()
    say(f"{file}: evidence of {sum(item.wins + item.losses + item.ties for item in votes)} votes")


def _export(file: VoteFile, target: Path) -> None:
    from stg_tune.documents import write_atomic
    from stg_tune.vote import to_csv

    votes, kind = file.votes(), target.suffix.lower()
    if kind not in (".csv", ".json"):
        raise StgTuneError(f"--export {target}: only .csv and .json are written; type --export votes.csv")
    plain = [asdict(vote) for vote in votes]
    write_atomic(target, to_csv(votes) if kind == ".csv" else json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    say(f"{target}: {len(votes)} votes")
