"""What an exporter is: a record with two pure functions, and a journal of what the other tool cannot say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec


@dataclass
class Journal:
    """Filled while a preset is written for, or read from, another tool."""

    losses: list[str] = field(default_factory=list)
    """What comes out different: such a conversion is done with ``lossy`` only."""
    notes: list[str] = field(default_factory=list)
    """What the user should know although the same comes out, or what a known fault of the tool changes."""

    def lose(self, text: str) -> None:
        """Write down a loss, once."""
        if text not in self.losses:
            self.losses.append(text)

    def note(self, text: str) -> None:
        """Write down a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def refuse(self, text: str) -> NoReturn:
        """There is no file that comes near.

        Raises:
            StgTuneError: Always.
        """
        raise StgTuneError(text)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One file format of one tool."""

    name: str
    """What ``--to`` and ``--from`` take."""
    tool: str
    """The tool and the part of it, for people."""
    url: str
    """Where the tool is."""
    suffix: str
    """Usual end of a file's name."""
    families: tuple[str, ...]
    """Model families that the tool can skip layers of."""
    says: str
    """What can be said: operation, branch, windows, rescale."""
    loses: str
    """What of a preset cannot be said: a file without it is written with ``lossy`` only."""
    paste: str
    """Where the content goes."""
    write: Callable[[Preset, Journal], str]
    """Content of the file; what the tool cannot say goes into the journal."""
    read: Callable[[str, Preset, Journal], GuidanceSpec] | None = None
    """Reads such a file for the model of the preset; ``None``: not a file format."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A preset in the words of another tool."""

    text: str
    """Content of the file."""
    losses: tuple[str, ...]
    """What comes out different."""
    notes: tuple[str, ...]
    """What else to know."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Another tool's file as a preset."""

    preset: Preset
    """Model and generation of the preset it was read for, guidance of the file."""
    losses: tuple[str, ...]
    """What the file says and a preset cannot."""
    notes: tuple[str, ...]
    """What else to know."""
