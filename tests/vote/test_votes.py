"""The vote file: one vote a place, never torn, never believed."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.vote import Vote, VoteFile, to_csv

WORDS = {"default": "CFG 2", "tuned-ab12": "CFG 3; attention of spatial 4 at 0.5"}


def vote(**changes: Any) -> Vote:
    settings: dict[str, Any] = {
        "voter": "Ada",
        "pair": "0123456789ab",
        "prompt": "a red seven",
        "seed": 7,
        "a": "default",
        "b": "tuned-ab12",
        "question": "quality",
        "choice": "b",
        "left": "a",
        "time": "2026-01-01T00:00:00+00:00",
    }
    return Vote(**settings | changes)


@pytest.fixture
def file(tmp_path: Path) -> VoteFile:
    return VoteFile(tmp_path / "votes.json")


def test_no_file_is_no_vote(file: VoteFile) -> None:
    assert file.votes() == ()
    assert file.settings() == {}
    assert not file.path.exists()


def test_votes_come_back_with_the_words_for_the_settings(file: VoteFile) -> None:
    votes = (vote(), vote(question="motion", choice="tie"), vote(voter="Bob", prompt="ü\u2028</script>"))
    for each in votes:
        file.cast(each, WORDS)
    assert file.votes() == votes
    assert file.settings() == WORDS


def test_a_later_vote_takes_the_place_of_an_earlier_one(file: VoteFile) -> None:
    file.cast(vote(choice="a"), WORDS)
    file.cast(vote(choice="tie"), WORDS)
    assert [each.choice for each in file.votes()] == ["tie"]
    swapped = replace(vote(), a="tuned-ab12", b="default", choice="a")
    file.cast(swapped, WORDS)
    assert file.votes() == (swapped,)


def test_many_booths_lose_nothing(file: VoteFile) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: VoteFile(file.path).cast(vote(voter=f"voter {n}"), WORDS), range(24)))
    assert {each.voter for each in file.votes()} == {f"voter {n}" for n in range(24)}


def _broken(**changes: Any) -> str:
    return json.dumps({"schema": "stg-tune/votes/1", "settings": {}, "votes": [], **changes})


def _with(**changes: Any) -> str:
    return _broken(votes=[{**vars(vote()), **changes}])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "\x00",
        "[" * 100_000,
        '{"a":' * 50 + "1" + "}" * 50,
        _broken(schema="stg-tune/votes/2"),
        _broken(extra=1),
        _broken(settings={"../x": "y"}),
        _with(choice="left"),
        _with(seed="7"),
        _with(voter=""),
        _with(voter="x" * 101),
        _with(a="../../etc/passwd"),
        _with(question="price"),
        _with(more=1),
    ],
)
def test_a_file_that_is_none_is_one_message_and_stays_as_it_is(file: VoteFile, text: str) -> None:
    file.path.write_text(text)
    with pytest.raises(StgTuneError, match=r"votes\.json"):
        file.votes()
    with pytest.raises(StgTuneError, match=r"votes\.json"):
        file.cast(vote(), WORDS)
    assert file.path.read_text() == text


def test_what_would_make_the_file_unreadable_is_not_written(file: VoteFile) -> None:
    file.cast(vote(), WORDS)
    with pytest.raises(StgTuneError):
        file.cast(vote(voter="x" * 200), WORDS)
    assert file.votes() == (vote(),)


def test_csv_is_harmless_in_a_spreadsheet() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv([vote(voter="=cmd|'/c calc'!A1", prompt='"a, b"\n', seed=-3)]))))
    assert rows[0]["voter"] == "'=cmd|'/c calc'!A1"
    assert rows[0]["prompt"] == '"a, b"\n'
    assert rows[0]["seed"] == "-3"
    assert list(rows[0]) == list(vars(vote()))
