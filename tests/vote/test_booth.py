"""A voter sees pairs without knowing the sides, can stop and go on, and cannot be fooled into voting by a page."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stg_tune.records import Pair
from stg_tune.vote import QUESTIONS, Arm, Ballot, Booth, Item, VoteFile
from stg_tune.vote.ballot import sheets

A, B = Arm(name="default", words="CFG 2"), Arm(name="tuned-ab12", words="CFG 3; attention of spatial 4 at 0.5")


@pytest.fixture
def ballot(tmp_path: Path) -> Ballot:
    items = []
    for seed in range(8):
        pair = Pair(prompt=f"<b>a red {seed}</b>", seed=seed)
        files = [tmp_path / f"{pair.key}-{arm.name}.mp4" for arm in (A, B)]
        for file, arm in zip(files, (A, B), strict=True):
            file.write_bytes(f"film of {arm.name} {seed}".encode())
        items.append(Item(pair=pair, a=files[0], b=files[1]))
    return Ballot(a=A, b=B, items=tuple(items))


@pytest.fixture
def file(tmp_path: Path) -> VoteFile:
    return VoteFile(tmp_path / "votes.json")


def booth(ballot: Ballot, file: VoteFile, voter: str = "Ada", seed: int = 0) -> Booth:
    return Booth(ballot, file, voter=voter, seed=seed, token="secret")


def data(reply: Any) -> Any:
    return json.loads(reply.body)


def films(site: Booth, item: dict[str, Any]) -> tuple[bytes, bytes]:
    left, right = (site.get(item[side]) for side in ("left", "right"))
    assert left is not None
    assert right is not None
    return left.body, right.body


def test_sides_are_balanced_and_differ_between_voters_and_seeds(ballot: Ballot) -> None:
    plans = [sheets(ballot.items, voter, seed) for voter in ("Ada", "Bob", "Eve") for seed in range(20)]
    assert all(Counter(sheet.left for sheet in plan) == {"a": 4, "b": 4} for plan in plans)
    assert len({tuple((sheet.item.pair.key, sheet.left) for sheet in plan) for plan in plans}) == 60
    first = Counter(plan[0].left for plan in plans)
    assert 15 < first["a"] < 45
    odd = [Counter(s.left for s in sheets(ballot.items[:3], "Ada", seed))["a"] for seed in range(60)]
    assert set(odd) == {1, 2}


def test_the_same_voter_sees_the_same_again(ballot: Ballot) -> None:
    again = sheets(tuple(reversed(ballot.items)), "Ada", 3)
    assert sheets(ballot.items, "Ada", 3) == again


def test_nothing_that_the_page_gets_tells_the_sides(ballot: Ballot, file: VoteFile) -> None:
    reply = booth(ballot, file).get("/ballot")
    assert reply is not None
    text = reply.body.decode()
    assert not any(
        word in text for word in ("default", "tuned", "CFG", "ab12", *(item.pair.key for item in ballot.items))
    )
    assert len(data(reply)["items"]) == 8


@pytest.mark.parametrize("side", ["left", "right", "tie"])
def test_a_vote_is_for_the_film_that_was_on_that_side(ballot: Ballot, file: VoteFile, side: str) -> None:
    site = booth(ballot, file)
    for number, item in enumerate(data(site.get("/ballot"))["items"]):
        site.post("/vote", {"item": number, "question": "quality", "side": side})
        shown = dict(zip(("left", "right"), films(site, item), strict=True))
        vote = file.votes()[-1]
        assert vote.prompt == item["prompt"]
        if side == "tie":
            assert vote.choice == "tie"
        else:
            preferred = vote.a if vote.choice == "a" else vote.b
            assert shown[side].startswith(f"film of {preferred} {vote.seed}".encode())
        assert shown["left"].startswith(f"film of {A.name if vote.left == 'a' else B.name}".encode())
    assert file.settings() == {A.name: A.words, B.name: B.words}


def test_a_voter_goes_on_where_he_stopped_and_others_begin_anew(ballot: Ballot, file: VoteFile) -> None:
    site = booth(ballot, file)
    site.post("/vote", {"item": 2, "question": "motion", "side": "right"})
    site.post("/vote", {"item": 2, "question": "quality", "side": "tie"})
    again = data(booth(ballot, file).get("/ballot"))["items"]
    assert again[2]["answers"] == {"motion": "right", "quality": "tie"}
    assert all(item["answers"] == {} for item in data(booth(ballot, file, voter="Bob").get("/ballot"))["items"])


def test_a_ballot_the_other_way_round_knows_the_votes(ballot: Ballot, file: VoteFile) -> None:
    site = booth(ballot, file)
    site.post("/vote", {"item": 0, "question": "quality", "side": "left"})
    prompt = data(site.get("/ballot"))["items"][0]["prompt"]
    items = tuple(Item(pair=item.pair, a=item.b, b=item.a) for item in ballot.items)
    turned = booth(Ballot(a=B, b=A, items=items), file, seed=5)
    (item,) = [item for item in data(turned.get("/ballot"))["items"] if item["prompt"] == prompt]
    preferred = file.votes()[0].a if file.votes()[0].choice == "a" else file.votes()[0].b
    shown = dict(zip(("left", "right"), films(turned, item), strict=True))
    assert shown[item["answers"]["quality"]].startswith(f"film of {preferred} ".encode())


@pytest.mark.parametrize(
    "sent",
    [
        None,
        [],
        {},
        {"item": 99, "question": "quality", "side": "left"},
        {"item": -1, "question": "quality", "side": "left"},
        {"item": True, "question": "quality", "side": "left"},
        {"item": 0, "question": "price", "side": "left"},
        {"item": 0, "question": [], "side": "left"},
        {"item": 0, "question": "quality", "side": "a"},
        {"item": 0, "question": "quality", "side": {}},
    ],
)
def test_what_is_no_vote_is_refused(ballot: Ballot, file: VoteFile, sent: Any) -> None:
    reply = booth(ballot, file).post("/vote", sent)
    assert reply is not None
    assert reply.status == 400
    assert file.votes() == ()


def test_the_result_is_kept_back_until_the_voter_is_done(ballot: Ballot, file: VoteFile) -> None:
    site = booth(ballot, file)
    for number in range(8):
        for name, _ in QUESTIONS:
            early = site.get("/result")
            assert early is not None
            assert early.status == 409
            assert b"CFG" not in early.body
            site.post("/vote", {"item": number, "question": name, "side": "left"})
    result = data(site.get("/result"))
    assert [row["question"] for row in result["rows"]] == [name for name, _ in QUESTIONS]
    assert (result["rows"][0]["wins"], result["rows"][0]["losses"]) == (4, 4)
    assert result["b"] == B.words


def test_clips_are_reached_by_number_only(ballot: Ballot, file: VoteFile) -> None:
    site = booth(ballot, file)
    for path in ("/clip/8/left.mp4", "/clip/0/../0/left.mp4", "/clip/0/left", f"/{ballot.items[0].a}", "/votes.json"):
        assert site.get(path) is None
    assert site.post("/other", {}) is None
    ballot.items[0].a.unlink()
    gone = [site.get(f"/clip/{number}/{side}.mp4") for number in range(8) for side in ("left", "right")]
    assert gone.count(None) == 1


def test_a_damaged_vote_file_is_a_message_on_the_page(ballot: Ballot, file: VoteFile) -> None:
    file.path.write_text("{torn")
    reply = booth(ballot, file).get("/ballot")
    assert reply is not None
    assert reply.status == 409
    assert "votes.json is damaged" in data(reply)["error"]


def test_the_pages_are_there(ballot: Ballot, file: VoteFile) -> None:
    site = booth(ballot, file)
    for path in ("/", "/vote.js", "/vote.css"):
        reply = site.get(path)
        assert reply is not None
        assert reply.body
