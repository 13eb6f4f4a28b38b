"""``stg-tune weights``: the files behind the scorers of real models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import complain, say, say_json, say_table
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse

    from stg_tune.score.library import Library, Standing
    from stg_tune.score.published import PublishedFile


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("weights", help="list, fetch or verify the files behind the scorers")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, run, words in (
        ("list", run_list, "source, licence, size and checksum of every file, and whether it is on this machine"),
        ("fetch", run_fetch, "download and verify files (default: those of the default scorers)"),
        ("verify", run_verify, "compare files on this machine with their checksums (default: all that are there)"),
    ):
        action = actions.add_parser(name, help=words, description=words)
        action.add_argument("names", nargs="*", metavar="NAME", help="a name that `stg-tune weights list` shows")
        action.add_argument("--weights", type=Path, metavar="DIR", help="local folder with the files")
        action.add_argument("--json", action="store_true", help="print JSON")
        if name == "fetch":
            action.add_argument("--fast", action="store_true", help="the files of `stg-tune score --fast`")
        action.set_defaults(run=run)


def run_list(arguments: argparse.Namespace) -> int:
    """Everything that is known about the files; nothing is read or asked."""
    library = _library(arguments)
    names = arguments.names or [file.name for file in library.files]
    if arguments.json:
        say_json([_plain(library, name) for name in names])
        return 0
    rows = [_row(library, name) for name in names]
    say_table(("NAME", "HERE", "SIZE", "SHA-256", "REVISION", "LICENCE", "SOURCE"), rows)
    say("\n~: rounded by the publisher. A checksum that ends in `...` is known to its first digits, `open` not at all:")
    say("it is kept at first use, and then no other file is taken. Whole checksums: stg-tune weights list --json")
    return 0


def run_fetch(arguments: argparse.Namespace) -> int:
    """Download what is missing, verify all of it."""
    library = _library(arguments)
    names = arguments.names or _default_files(fast=arguments.fast)
    for name in names:
        library.record(name)  # a wrong name is answered before anything is downloaded
    files = library.fetch(names, complain)
    if arguments.json:
        say_json([{"name": f.record.name, "path": str(f.path), "sha256": f.sha256} for f in files])
    else:
        say_table(("NAME", "SHA-256", "FILE"), [(f.record.name, f.sha256[:16], str(f.path)) for f in files])
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Read the files; a damaged one, or a missing one that was named, is an error."""
    library = _library(arguments)
    names = arguments.names or [file.name for file in library.files if library.find(file.name)]
    standings = [library.standing(name) for name in names]
    if arguments.json:
        say_json([_verdict(standing) for standing in standings])
    elif standings:
        say_table(("NAME", "STATE", "SHA-256"), [(s.record.name, s.state, s.sha256[:16] or "-") for s in standings])
    else:
        say("no file is on this machine; type: stg-tune weights fetch")
    problems = [standing.problem for standing in standings if standing.state == "damaged"]
    absent = [standing.record.name for standing in standings if standing.state == "missing"]
    if absent:
        problems.append(library.where_to_put(absent, "they are not on this machine"))
    if problems:
        raise StgTuneError("\n".join(problems))
    return 0


def _library(arguments: argparse.Namespace) -> Library:
    from stg_tune.score.library import Library

    return Library(arguments.weights)


def _default_files(*, fast: bool) -> list[str]:
    from stg_tune.score.registry import DEFAULT, EXACT_CLIP, FAST_CLIP, files_of

    return files_of(DEFAULT, FAST_CLIP if fast else EXACT_CLIP)


def _row(library: Library, name: str) -> tuple[str, ...]:
    file, here = library.record(name), "yes" if library.find(name) else "no"
    return name, here, _size(file), _checksum(library, file), _revision(file), file.licence, file.source.address


def _size(file: PublishedFile) -> str:
    """In thousands or millions of bytes."""
    size = file.size or file.about
    if size is None:
        return "-"
    amount = f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"
    return amount if file.size else f"~{amount}"


def _checksum(library: Library, file: PublishedFile) -> str:
    whole = file.stated or library.pinned(file.name)
    if whole:
        return whole[:16]
    return f"{file.sha256}..." if file.sha256 else "open"


def _revision(file: PublishedFile) -> str:
    """Twelve digits of a commit, ``newest``, the version of a package, or a dash where the file's name says it."""
    from stg_tune.score.published import PackageFile

    if isinstance(file.source, PackageFile):
        return _version(file.source.package)
    return "newest" if file.source.revision == "main" else file.source.revision[:12] or "-"


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _plain(library: Library, name: str) -> dict[str, Any]:
    file, found = library.record(name), library.find(name)
    return {
        "name": name,
        "file": file.file,
        "source": file.source.address,
        "revision": getattr(file.source, "revision", None) or None,
        "licence": file.licence,
        "commercial_use": file.commercial,
        "size": file.size,
        "size_about": file.about,
        "sha256": file.stated,
        "sha256_begins": file.sha256 or None,
        "pinned": library.pinned(name),
        "checksum_from": file.checksum_from,
        "path": str(found) if found else None,
    }


def _verdict(standing: Standing) -> dict[str, Any]:
    path = str(standing.path) if standing.path else None
    return {
        "name": standing.record.name,
        "state": standing.state,
        "path": path,
        "sha256": standing.sha256 or None,
        "problem": standing.problem or None,
    }
