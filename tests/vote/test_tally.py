"""Win rates: right counts, known intervals, and no more certainty than the votes carry."""

import math
import random
from typing import Any

import pytest

from stg_tune.vote import Vote, tally, wilson
from stg_tune.vote.tally import Point, design_effect, effective_votes


def vote(voter: str, pair: int, choice: str, question: str = "quality", **changes: Any) -> Vote:
    settings: dict[str, Any] = {"a": "default", "b": "tuned-ab", "left": "a", "time": "", "seed": pair}
    own = {"voter": voter, "pair": f"{pair:012x}", "prompt": f"prompt {pair}", "choice": choice, "question": question}
    return Vote(**settings | own | changes)


@pytest.mark.parametrize(
    ("wins", "trials", "low", "high"),
    [  # R 4.2: prop.test(wins, trials, correct = FALSE)$conf.int
        (81, 263, 0.2553, 0.3662),  # also Newcombe 1998, Statistics in Medicine 17, 857, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(wins: int, trials: int, low: float, high: float) -> None:
    assert wilson(wins / trials, trials) == pytest.approx((low, high), abs=5e-5)


def _coverage(true: float, trials: int) -> float:
    """Probability that the interval holds the true rate, exactly."""
    ends = {wins: wilson(wins / trials, trials) for wins in range(trials + 1)}
    return sum(
        math.comb(trials, wins) * true**wins * (1 - true) ** (trials - wins)
        for wins, (low, high) in ends.items()
        if low <= true <= high
    )


def test_wilson_covers() -> None:
    coverage = [_coverage(number / 100, 40) for number in range(5, 96)]
    assert 0.94 < sum(coverage) / len(coverage) < 0.96
    assert min(coverage) > 0.9


def test_counts_and_sentence() -> None:
    votes = [vote("Ada", number, choice) for number, choice in enumerate(["b"] * 9 + ["a", "tie", "tie"])]
    (found,) = tally(votes, "default", "tuned-ab")
    assert (found.wins, found.losses, found.ties, found.voters, found.pairs) == (9, 1, 2, 1, 12)
    assert found.rate == pytest.approx(10 / 12)
    assert (found.low, found.high) == pytest.approx(wilson(10 / 12, 12))
    assert found.words() == (
        "quality: preferred (this voter's preference, nobody else was asked), 83% [55%, 95%] (ties count half); "
        "9 for, 1 against, 2 ties; 1 voter, 12 pairs"
    )


def test_the_other_way_round_is_the_mirror_image() -> None:
    votes = [vote("Ada", number, choice) for number, choice in enumerate("bbbat".replace("t", "a"))]
    swapped = [vote("Bob", 9, "a", a="tuned-ab", b="default")]
    (one,), (other,) = (tally([*votes, *swapped], a, b) for a, b in (("default", "tuned-ab"), ("tuned-ab", "default")))
    assert (one.wins, one.losses) == (other.losses, other.wins) == (4, 2)
    assert one.rate == pytest.approx(1 - other.rate)
    assert one.low == pytest.approx(1 - other.high)


def test_votes_on_other_settings_and_questions_do_not_mix() -> None:
    votes = [vote("Ada", 1, "b"), vote("Ada", 1, "a", "motion"), vote("Ada", 1, "a", b="tuned-cd")]
    found = tally(votes, "default", "tuned-ab")
    assert [(item.question, item.wins, item.losses) for item in found] == [("quality", 1, 0), ("motion", 0, 1)]
    assert tally(votes, "default", "tuned-ff") == ()


def test_ten_people_on_one_pair_are_one_observation() -> None:
    crowd = [vote(f"voter {n}", 1, "b") for n in range(10)]
    (found,) = tally(crowd, "default", "tuned-ab")
    assert found.low == pytest.approx(wilson(1.0, 1)[0])
    spread = [vote("Ada", n, "b") for n in range(10)]
    assert tally(spread, "default", "tuned-ab")[0].low == pytest.approx(wilson(1.0, 10)[0])


def test_people_who_agree_on_each_prompt_count_once_for_it() -> None:
    agreeing = [(f"prompt {pair}", float(pair % 2)) for pair in range(12) for _ in range(5)]
    assert design_effect(agreeing) == pytest.approx(5 * 12 / 11)
    draw = random.Random(1)
    free = [(f"prompt {pair}", float(draw.random() < 0.5)) for pair in range(200) for _ in range(5)]
    assert design_effect(free) < 1.4
    assert design_effect([("one", 0.5), ("two", 0.5)]) == 1.0


def test_intervals_cover_when_voters_follow_the_pair() -> None:
    """Every pair has its own appeal, so votes about it resemble each other; plain Wilson would claim too much."""
    draw = random.Random(2)
    inside = plain = 0
    for _ in range(600):
        points = []
        for pair in range(24):
            appeal = draw.betavariate(0.6, 0.6)
            points += [(str(pair), float(draw.random() < appeal)) for _ in range(6)]
        rate = sum(value for _, value in points) / len(points)
        low, high = wilson(rate, len(points) / design_effect(points))
        inside += low <= 0.5 <= high
        low, high = wilson(rate, len(points))
        plain += low <= 0.5 <= high
    assert plain / 600 < 0.85
    assert 0.91 < inside / 600 < 0.985


@pytest.mark.parametrize("voters", [3, 5, 12])
def test_intervals_cover_people_of_different_taste(voters: int) -> None:
    """Each person likes one setting better on most prompts; prompts alone as clusters would claim far too much."""
    draw = random.Random(4)
    inside = by_prompt = 0
    for _ in range(500):
        tastes = [min(max(draw.gauss(0.5, 0.22), 0.0), 1.0) for _ in range(voters)]
        appeals = [draw.gauss(0.0, 0.1) for _ in range(24)]
        points = [
            Point(prompt=str(at), voter=str(who), value=float(draw.random() < taste + appeal))
            for who, taste in enumerate(tastes)
            for at, appeal in enumerate(appeals)
        ]
        rate = sum(point.value for point in points) / len(points)
        low, high = wilson(rate, effective_votes(points))
        inside += low <= 0.5 <= high
        prompts = [(point.prompt, point.value) for point in points]
        low, high = wilson(rate, len(points) / design_effect(prompts))
        by_prompt += low <= 0.5 <= high
    assert by_prompt / 500 < 0.85
    assert inside / 500 > 0.93


def test_one_voter_speaks_for_one_voter_and_two_for_hardly_anybody() -> None:
    alone = [vote("Ada", number, "b") for number in range(20)]
    (one,) = tally(alone, "default", "tuned-ab")
    assert "this voter's preference" in one.words()
    (two,) = tally([*alone, *(vote("Bob", n, "ab"[n % 2]) for n in range(20))], "default", "tuned-ab")
    assert two.low < 0.2
    assert "this voter" not in two.words()
    independent = [Point(prompt=str(n), voter=str(n), value=float(n % 3 == 0)) for n in range(30)]
    assert effective_votes(independent) == pytest.approx(30, rel=0.1)


def test_a_level_is_a_level() -> None:
    narrow, wide = wilson(0.5, 10, level=0.5), wilson(0.5, 10, level=0.99)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]
    assert all(math.isfinite(end) for end in (*narrow, *wide))
