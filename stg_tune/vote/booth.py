"""The pages of ``stg-tune vote``: one voter, one ballot; which setting is on which side never leaves this process."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from importlib import resources
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.vote.ballot import Sheet, sheets
from stg_tune.vote.tally import tally
from stg_tune.vote.votes import QUESTIONS, Vote
from stg_tune.web import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from stg_tune.vote.ballot import Arm, Ballot
    from stg_tune.vote.votes import VoteFile

SIDES = ("left", "right", "tie")


class Booth:
    """Shows the ballot, takes votes, and shows the result to a voter who is done.

    Args:
        ballot: What is asked.
        file: Where the votes are kept.
        voter: Who votes.
        seed: Decides order and sides.
        token: What pages must send with a vote; the page asks for it together with the ballot.
    """

    def __init__(self, ballot: Ballot, file: VoteFile, *, voter: str, seed: int, token: str) -> None:
        self._ballot, self._file, self._voter, self._token = ballot, file, voter, token
        self._sheets = sheets(ballot.items, voter, seed)
        self._clips = {path: clip for number, sheet in enumerate(self._sheets) for path, clip in _clips(number, sheet)}
        self._fixed = {
            "/": Reply.html(_PAGE),
            "/vote.js": Reply(body=_asset("vote.js"), kind="text/javascript; charset=utf-8"),
            "/vote.css": Reply(body=_asset("vote.css"), kind="text/css; charset=utf-8"),
        }

    def get(self, path: str) -> Reply | None:
        """Answer an address."""
        if path == "/ballot":
            return self._safely(self._state)
        if path == "/result":
            return self._safely(self._result)
        if path in self._clips:
            return _film(self._clips[path])
        return self._fixed.get(path)

    def post(self, path: str, data: Any) -> Reply | None:
        """Take a vote."""
        if path != "/vote":
            return None
        try:
            sheet, question, side = self._read(data)
        except (KeyError, TypeError, IndexError, ValueError):
            return Reply.refuse(HTTPStatus.BAD_REQUEST, "a vote names pair, question and side")
        self._file.cast(self._vote(sheet, question, side), {arm.name: arm.words for arm in self._arms})
        return Reply.json(self._state())

    @property
    def _arms(self) -> tuple[Arm, Arm]:
        return self._ballot.a, self._ballot.b

    def _safely(self, make: Callable[[], Any]) -> Reply:
        try:
            return Reply.json(make())
        except StgTuneError as error:
            return Reply.json({"error": str(error)}, HTTPStatus.CONFLICT)

    def _state(self) -> dict[str, Any]:
        """The ballot as the page shows it: nothing in it says which setting is where."""
        mine = self._mine()
        return {
            "token": self._token,
            "voter": self._voter,
            "questions": [{"name": name, "words": words} for name, words in QUESTIONS],
            "items": [
                {
                    "prompt": sheet.item.pair.prompt,
                    "left": f"/clip/{number}/left.mp4",
                    "right": f"/clip/{number}/right.mp4",
                    "answers": self._answers(sheet, mine),
                }
                for number, sheet in enumerate(self._sheets)
            ],
        }

    def _answers(self, sheet: Sheet, mine: Mapping[tuple[str, str], Vote]) -> dict[str, str]:
        votes = {name: mine.get((sheet.item.pair.key, name)) for name, _ in QUESTIONS}
        return {name: sheet.side(self._own_choice(vote)) for name, vote in votes.items() if vote is not None}

    def _own_choice(self, vote: Vote) -> str:
        """The choice in terms of this ballot's a and b."""
        if vote.choice == "tie":
            return "tie"
        return "a" if (vote.a if vote.choice == "a" else vote.b) == self._ballot.a.name else "b"

    def _mine(self) -> dict[tuple[str, str], Vote]:
        names = {arm.name for arm in self._arms}
        votes = (vote for vote in self._file.votes() if vote.voter == self._voter and {vote.a, vote.b} == names)
        return {(vote.pair, vote.question): vote for vote in votes}

    def _result(self) -> dict[str, Any]:
        """What all voters say; shown only to those who cannot be swayed any more."""
        mine = self._mine()
        if any(len(self._answers(sheet, mine)) < len(QUESTIONS) for sheet in self._sheets):
            raise StgTuneError("the result is shown when every question is answered")
        a, b = self._arms
        found = tally(self._file.votes(), a.name, b.name)
        return {"a": a.words, "b": b.words, "rows": [{**item.to_dict(), "words": item.words()} for item in found]}

    def _read(self, data: Any) -> tuple[Sheet, str, str]:
        number, question, side = data["item"], data["question"], data["side"]
        if type(number) is not int or number < 0 or side not in SIDES:
            raise ValueError(side)
        if question not in [name for name, _ in QUESTIONS]:
            raise ValueError(question)
        return self._sheets[number], question, side

    def _vote(self, sheet: Sheet, question: str, side: str) -> Vote:
        pair = sheet.item.pair
        return Vote(
            voter=self._voter,
            pair=pair.key,
            prompt=pair.prompt,
            seed=pair.seed,
            a=self._ballot.a.name,
            b=self._ballot.b.name,
            question=question,
            choice=sheet.choice(side),
            left=sheet.left,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _clips(number: int, sheet: Sheet) -> tuple[tuple[str, Path], tuple[str, Path]]:
    sides = (sheet.item.a, sheet.item.b) if sheet.left == "a" else (sheet.item.b, sheet.item.a)
    return (f"/clip/{number}/left.mp4", sides[0]), (f"/clip/{number}/right.mp4", sides[1])


def _film(path: Path) -> Reply | None:
    try:
        return Reply(body=path.read_bytes(), kind="video/mp4")
    except OSError:
        return None


def _asset(name: str) -> bytes:
    return resources.files("stg_tune.vote").joinpath(name).read_bytes()


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Blind vote</title>
<link rel="stylesheet" href="/vote.css">
<script src="/vote.js" defer></script>
</head>
<body>
<main>
<header><b>Blind vote</b><span id="who"></span><span id="count" role="status"></span></header>
<progress id="bar" max="1" value="0" aria-label="answers"></progress>
<p id="prompt">Loading</p>
<div id="clips"><video id="left" muted loop playsinline aria-label="left video"></video>
<video id="right" muted loop playsinline aria-label="right video"></video></div>
<h1 id="question" aria-live="polite"></h1>
<div id="answers">
<button type="button" data-side="left"><kbd>&larr;</kbd> left</button>
<button type="button" data-side="tie"><kbd>&darr;</kbd> no difference</button>
<button type="button" data-side="right"><kbd>&rarr;</kbd> right</button>
</div>
<p class="help"><button type="button" id="back"><kbd>Backspace</kbd> one back</button>
<button type="button" id="again"><kbd>R</kbd> from the start</button></p>
<div id="result" hidden></div>
<p id="problem" role="alert" hidden></p>
</main>
</body>
</html>
"""
