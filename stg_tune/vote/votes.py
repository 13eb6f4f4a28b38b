"""The votes of a run in ``DIR/votes.json``: read with suspicion, written atomically, one driver at a time."""

from __future__ import annotations

import csv
import fcntl
import io
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stg_tune.documents import MAX_DEPTH, find_problem, load_schema, nesting, read_limited, write_atomic
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SCHEMA = "stg-tune/votes/1"
MAX_BYTES = 50_000_000

Choice = Literal["a", "b", "tie"]


class Question(NamedTuple):
    """One thing that is asked about each pair."""

    name: str
    words: str


QUESTIONS = (
    Question("quality", "Which video looks better?"),
    Question("motion", "Which video moves better?"),
    Question("prompt", "Which video shows better what was asked for?"),
)
"""Asked in this order: the three aspects of the paper's human evaluation (arXiv:2411.18664)."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One answer of one person about one pair."""

    voter: str
    """Who; 1 to 100 characters."""
    pair: str
    """Key of the (prompt, seed) pair."""
    prompt: str
    """Its caption."""
    seed: int
    """Its seed."""
    a: str
    """First setting, as its clips are named: ``default``, ``tuned-<hash>``."""
    b: str
    """Second setting."""
    question: str
    """A name of ``QUESTIONS``."""
    choice: Choice
    """The preferred setting, or ``tie``."""
    left: Literal["a", "b"]
    """Which setting was on the left, where the voter could not know it."""
    time: str
    """When, ISO 8601 in UTC."""

    @property
    def place(self) -> tuple[str, ...]:
        """A person has one vote in each place; a later one takes the place of an earlier one."""
        return self.voter, self.pair, *sorted((self.a, self.b)), self.question


class VoteFile:
    """The votes in one file; a file that is not there is empty.

    Args:
        path: ``DIR/votes.json``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def votes(self) -> tuple[Vote, ...]:
        """Every vote in the order of the first answers.

        Raises:
            StgTuneError: The file is no vote file; it is left as it is.
        """
        return tuple(Vote(**item) for item in self._read()["votes"])

    def settings(self) -> Mapping[str, str]:
        """Name of each setting -> the setting in words."""
        settings: dict[str, str] = self._read()["settings"]
        return settings

    def cast(self, vote: Vote, settings: Mapping[str, str]) -> None:
        """Keep a vote; several booths may do so at the same time.

        Args:
            vote: The vote.
            settings: Words for the two settings it is about.
        """
        with self._locked():
            data = self._read()
            votes = {Vote(**item).place: item for item in data["votes"]} | {vote.place: asdict(vote)}
            words = {**data["settings"], **{name: text[:1000] for name, text in settings.items()}}
            new = {"schema": SCHEMA, "settings": words, "votes": list(votes.values())}
            _check(new, self.path)
            write_atomic(self.path, json.dumps(new, indent=1, ensure_ascii=False) + "\n")

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {"schema": SCHEMA, "settings": {}, "votes": []}
        try:
            data = json.loads(read_limited(self.path, MAX_BYTES, "vote file"))
        except (ValueError, RecursionError) as error:
            raise StgTuneError(
                f"{self.path} is damaged ({type(error).__name__}: {error}): move it away to begin anew"
            ) from None
        _check(data, self.path)
        checked: dict[str, Any] = data
        return checked

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            file = self.path.with_name(f".{self.path.name}.lock").open("w")
        except OSError as error:
            raise StgTuneError(f"cannot write beside {self.path}: {error.strerror or error}") from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def to_csv(votes: Sequence[Vote]) -> str:
    """One line a vote. Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [field.name for field in fields(Vote)]
    writer.writerow(heads)
    writer.writerows([_harmless(getattr(vote, head)) for head in heads] for vote in votes)
    return text.getvalue()


def _harmless(cell: object) -> str:
    text = str(cell)
    return f"'{text}" if isinstance(cell, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _check(data: object, path: Path) -> None:
    if nesting(data) > MAX_DEPTH:
        raise StgTuneError(f"{path} is no vote file: it is nested too deeply")
    problem = find_problem(data, load_schema("stg_tune.vote", "votes.schema.json"))
    if problem is not None:
        raise StgTuneError(f"{path} is no vote file: {problem.field}: {problem.message}; move it away to begin anew")
