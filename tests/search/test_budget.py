import pytest

from stg_tune.errors import StgTuneError
from stg_tune.search.budget import ARMS, BUDGETS, LEAST, divide, in_worker_hours, parse_budget


@pytest.mark.parametrize(
    ("text", "evaluations", "seconds"),
    [
        ("small", 600, None),
        ("LARGE", 5000, None),
        ("800", 800, None),
        ("2h", None, 7200),
        ("1.5h", None, 5400),
        ("90m", None, 5400),
    ],
)
def test_budgets_are_read(text, evaluations, seconds):
    budget = parse_budget(text)
    assert (budget.evaluations, budget.seconds) == (evaluations, seconds)


@pytest.mark.parametrize("text", ["", "huge", "-5", "10", "0h", "2 days", "1e3", "NaN", "9" * 30])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(StgTuneError, match=f"{LEAST}"):
        parse_budget(text)


def test_time_becomes_evaluations():
    budget = parse_budget("1h")
    assert budget.in_evaluations(6.0, 1) == int(3600 / (6.0 * 1.4))
    assert budget.in_evaluations(6.0, 4) == int(3600 * 4 / (6.0 * 1.4))
    with pytest.raises(StgTuneError, match=r"give 5\.8h or more"):
        budget.in_evaluations(100.0, 1)


def test_hours_of_all_workers_do_not_depend_on_their_number():
    budget = parse_budget("2wh")
    assert (budget.evaluations, budget.seconds, budget.worker_seconds) == (None, None, 7200)
    assert budget.in_evaluations(6.0, 1) == budget.in_evaluations(6.0, 4) == int(7200 / (6.0 * 1.4))
    with pytest.raises(StgTuneError, match=r"give 5\.8wh or more"):
        budget.in_evaluations(100.0, 4)


def test_hours_of_gpus_are_hours_of_the_workers_that_share_them():
    assert in_worker_hours("16gpuh", 1.0) == "16wh"
    assert in_worker_hours("16gpuh", 0.5) == "32wh"
    assert in_worker_hours("1gpuh", 3) == "0.333333wh"
    assert in_worker_hours("small", 1.0) == "small"
    assert parse_budget(in_worker_hours("1gpuh", 3)).worker_seconds == pytest.approx(1200, rel=1e-3)
    with pytest.raises(StgTuneError, match="the workers have none"):
        in_worker_hours("16gpuh", 0.0)
    with pytest.raises(StgTuneError, match="say with --gpus-per-worker"):
        in_worker_hours("16gpuh", None)


@pytest.mark.parametrize("evaluations", [LEAST, 300, *BUDGETS.values(), 20_000])
@pytest.mark.parametrize("layers", [32, 112])
def test_the_stages_fill_the_budget_and_never_exceed_it(evaluations, layers):
    division = divide(evaluations, layers=layers)
    assert division.total == evaluations
    assert min(division.stages()[name] for name in ("baseline", "cfg", "screen", "search", "select", "confirm")) > 0
    assert division.search_pairs >= 6


def test_small_has_a_hundred_held_out_pairs_an_arm():
    division = divide(BUDGETS["small"], layers=32)
    assert division.confirm == 100
    assert division.stages()["confirm"] == 100 * ARMS
    assert division.screen >= 2 * 32


def test_published_settings_are_paid_for():
    assert divide(600, layers=32, published=2).published == 16
    assert divide(600, layers=32, published=2).total == 600
