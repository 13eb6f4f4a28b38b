"""The files of the scorers on this machine: found, fetched, verified, pinned. No torch, and nothing is unpickled."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stg_tune.errors import NotReachableError, StgTuneError
from stg_tune.score import downloads
from stg_tune.score.pins import Pins
from stg_tune.score.published import FILES, HubFile, PackageFile, PublishedFile, WebFile, record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FOLDER_VARIABLE = "STG_TUNE_WEIGHTS"
"""Environment variable that names a local folder, as ``--weights`` does."""

State = Literal["verified", "damaged", "missing"]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A file whose checksum was compared."""

    record: PublishedFile
    """What it is."""
    path: Path
    """Where it lies."""
    sha256: str
    """64 hex digits over its bytes."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What ``stg-tune weights verify`` says about one file."""

    record: PublishedFile
    """What it is."""
    state: State
    """Whether it is there and right."""
    path: Path | None = None
    """Where it lies."""
    sha256: str = ""
    """64 hex digits, or empty when it is missing."""
    problem: str = ""
    """What is wrong with it."""


class Library:
    """Finds each file in the local folders, else in the usual caches, else downloads it there.

    The caches are the hub's (``HF_HOME``) for files of the hub and torch's (``TORCH_HOME``) for all others, so that
    copies which other programs have downloaded are found. ``HF_HUB_OFFLINE`` forbids downloads of both kinds.

    Args:
        folder: Local folder that comes before the one which the environment variable ``STG_TUNE_WEIGHTS`` names.
        files: The records.
        pins: Where checksums of first use are kept; ``None``: beside the hub's cache.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        files: tuple[PublishedFile, ...] = FILES,
        pins: Pins | None = None,
    ) -> None:
        named = os.environ.get(FOLDER_VARIABLE)
        self.folders = tuple(Path(one).expanduser() for one in (folder, named) if one)
        self.files = files
        self._pins = pins or Pins(downloads.hub_home() / "stg-tune" / "pins.json")

    def record(self, name: str) -> PublishedFile:
        """The record called ``name``; an unknown name raises ``StgTuneError`` with close matches."""
        return record(name, self.files)

    def find(self, name: str) -> Path | None:
        """Where the file lies, not verified; ``None`` when it is not on this machine. No network."""
        wanted = self.record(name)
        places = [*(folder / wanted.file for folder in self.folders), _cached(wanted)]
        return next((place for place in places if place is not None and place.is_file()), None)

    def pinned(self, name: str) -> str | None:
        """The checksum that was kept at first use, if the publisher states none and the file was used here."""
        return self._pins.of(self.record(name).name) or None

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that are not on this machine."""
        return [name for name in names if self.find(name) is None]

    def get(self, name: str) -> Verified:
        """The file, verified; it is not downloaded.

        Raises:
            NotReachableError: It is not on this machine.
            StgTuneError: Its size or checksum is wrong.
        """
        path = self.find(name)
        if path is None:
            raise NotReachableError(self.where_to_put([name], "it is not on this machine"))
        return self._verified(self.record(name), path)

    def fetch(self, names: Sequence[str], tell: Callable[[str], None] = lambda _: None) -> list[Verified]:
        """Download what is missing and verify everything; a download that is wrong is removed.

        Args:
            names: Which files.
            tell: Called with one line before each download.

        Raises:
            NotReachableError: Some files could not be had; the message names all of them and where they belong.
            StgTuneError: A file is not what its record says.
        """
        for name in self.missing(names):
            wanted = self.record(name)
            tell(f"{name}: {wanted.source.address}")
            try:
                self._download(wanted)
            except StgTuneError:
                raise
            except Exception as error:
                # huggingface_hub raises the errors of whichever HTTP client it is built on
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
                raise NotReachableError(self.where_to_put(self.missing(names), reason)) from error
        return [self.get(name) for name in names]

    def standing(self, name: str) -> Standing:
        """Is the file there, and is it right? Reads all of it; no network, no exception."""
        wanted, path = self.record(name), self.find(name)
        if path is None:
            return Standing(record=wanted, state="missing")
        try:
            verified = self._verified(wanted, path)
        except StgTuneError as error:
            return Standing(record=wanted, state="damaged", path=path, problem=str(error))
        return Standing(record=wanted, state="verified", path=path, sha256=verified.sha256)

    def where_to_put(self, names: Sequence[str], reason: str) -> str:
        """The message for files that cannot be had: which, from where, under which name."""
        wanted = [self.record(name) for name in names]
        lines = "\n".join(f"  {file.file}  from {file.source.address}  ({file.licence})" for file in wanted)
        return (
            f"weights of scorers are missing ({reason}).\nNeeded:\n{lines}\n"
            f"With a connection, type: stg-tune weights fetch {' '.join(names)} (a download goes on where it stopped). "
            f"Without one, save the files under these names in one folder and set {FOLDER_VARIABLE}=DIR (or give "
            "--weights DIR to score, search, compare, evaluate or weights)."
        )

    def _download(self, wanted: PublishedFile) -> None:
        downloads.refuse_offline()
        if isinstance(wanted.source, HubFile):
            downloads.from_hub(wanted.source)
        elif isinstance(wanted.source, WebFile):
            downloads.from_web(wanted.source, size=wanted.size)
        else:
            raise FileNotFoundError(f"the package {wanted.source.package} is not installed or lacks the file")
        path = _cached(wanted)
        if path is None:
            raise FileNotFoundError(f"{wanted.file} vanished from the cache")
        try:
            self._verified(wanted, path)
        except StgTuneError:
            path.resolve().unlink(missing_ok=True)  # another process may have found out, too
            raise

    def _verified(self, wanted: PublishedFile, path: Path) -> Verified:
        size = path.stat().st_size
        if wanted.size is not None and size != wanted.size:
            raise StgTuneError(f"{wanted.name}: {path} has {size} bytes in place of {wanted.size}. {_remedy(wanted)}")
        sha256 = downloads.sha256_of(path)
        expected = wanted.sha256 if len(wanted.sha256) == 64 else self._pins.of(wanted.name) or wanted.sha256
        if not sha256.startswith(expected):
            raise StgTuneError(
                f"{wanted.name}: {path} has the SHA-256 {sha256}, expected {expected} ({wanted.checksum_from}). "
                f"{_remedy(wanted)}"
            )
        if len(wanted.sha256) < 64:
            self._pins.keep(wanted.name, sha256)
        return Verified(record=wanted, path=path, sha256=sha256)


def _remedy(wanted: PublishedFile) -> str:
    return f"It is not used. Remove it, then type: stg-tune weights fetch {wanted.name}"


def _cached(wanted: PublishedFile) -> Path | None:
    if isinstance(wanted.source, HubFile):
        return downloads.in_hub_cache(wanted.source)
    if isinstance(wanted.source, WebFile):
        return downloads.web_cache() / wanted.file
    return _in_package(wanted.source)


def _in_package(source: PackageFile) -> Path | None:
    found = importlib.util.find_spec(source.package)  # finds the folder without importing the package
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / source.path
