import sqlite3

import pytest
import sqlalchemy as sa

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search import storage
from stg_tune.search.patience import is_away, patiently
from stg_tune.search.storage import EvaluationTable, Row

SPEC, PAIR = GuidanceSpec(cfg_scale=2.0), Pair(prompt="p", seed=1)
ROW = Row(
    spec=SPEC,
    evaluation=Evaluation(config=SPEC.hash(), pair=PAIR, scores={"a": 0.1}, seconds=0.3),
    role="search",
    fidelity="full",
    worker="host:1",
    versions={},
)


def trouble(text, kind=sqlite3.OperationalError):
    return sa.exc.OperationalError("insert", {}, kind(text))


class GoneError(Exception):
    """Stands for the error of a PostgreSQL driver."""


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (trouble("database is locked"), True),
        (trouble("unable to open database file"), True),
        (trouble("database or disk is full"), False),
        (trouble("attempt to write a readonly database"), False),
        (trouble("no such table: x"), False),
        (trouble("{'C': '57P01', 'M': 'terminating connection'}", GoneError), True),
        (trouble("{'C': '57P03', 'M': 'the database system is starting up'}", GoneError), True),
        (trouble("{'C': '53100', 'M': 'could not extend file: No space left on device'}", GoneError), False),
        (trouble("{'C': '28P01', 'M': 'password authentication failed'}", GoneError), False),
        (sa.exc.InterfaceError("select", {}, GoneError("network error")), True),
        (ValueError("connection"), False),
    ],
)
def test_what_passes_is_told_from_what_does_not(error, away):
    assert is_away(error) == away


def test_the_reason_may_lie_under_the_error_of_a_library():
    library = RuntimeError("storage error")
    library.__cause__ = trouble("database is locked")
    assert is_away(library)


def failing(times, error):
    left = iter(range(times))

    def action():
        if next(left, None) is not None:
            raise error
        return "done"

    return action


def test_it_is_tried_again_and_said_once():
    slept = []
    with pytest.warns(UserWarning, match=r"here does not answer \(database is locked\)") as told:
        assert patiently(failing(7, trouble("database is locked")), "here", sleep=slept.append) == "done"
    assert slept == [0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
    assert len(told) == 1


def test_patience_ends():
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    with pytest.warns(UserWarning, match="trying again for 10 s"), pytest.raises(sa.exc.OperationalError):
        patiently(failing(99, trouble("database is locked")), "here", patience=10, sleep=sleep, clock=lambda: now[0])
    assert 10 < now[0] < 20


def test_what_does_not_pass_is_raised_at_once():
    with pytest.raises(sa.exc.OperationalError):
        patiently(failing(1, trouble("database or disk is full")), "here", sleep=lambda _: pytest.fail("waited"))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("stg_tune.search.patience.WAITS", (0.01,))


def test_a_row_whose_commit_was_cut_off_is_there_once(tmp_path, quick, monkeypatch):
    table = EvaluationTable(f"sqlite:///{tmp_path / 'study.db'}", "m")
    insert, cut = table._insert, []

    def insert_and_lose_the_answer(values):
        insert(values)
        if not cut:
            cut.append(True)
            raise trouble("disk I/O error")

    monkeypatch.setattr(table, "_insert", insert_and_lose_the_answer)
    with pytest.warns(UserWarning, match="does not answer"):
        table.add(ROW)
    assert table.rows() == [ROW]


def test_a_full_disk_stops_the_run_with_one_sentence(tmp_path, monkeypatch):
    table = EvaluationTable(f"sqlite:///{tmp_path / 'study.db'}", "m")
    full = failing(1, trouble("database or disk is full"))
    monkeypatch.setattr(table, "_insert", lambda values: full())
    with pytest.raises(StgTuneError, match=r"database or disk is full.*resume` goes on"):
        table.add(ROW)
    monkeypatch.undo()
    table.add(ROW)
    assert len(table.rows()) == 1


def test_a_lock_of_another_program_is_waited_for(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(storage, "SQLITE_TIMEOUT", 0)
    table = EvaluationTable(f"sqlite:///{tmp_path / 'study.db'}", "m")
    other = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    other.execute("begin immediate")
    monkeypatch.setattr("time.sleep", lambda _: other.in_transaction and other.execute("rollback"))
    tries = []
    insert = table._insert
    monkeypatch.setattr(table, "_insert", lambda values: (tries.append(1), insert(values)))
    with pytest.warns(UserWarning, match="database is locked"):
        patiently(lambda: table._insert(table._values(ROW)), "here", sleep=lambda _: other.execute("rollback"))
    assert len(tries) == 2
    assert table.rows() == [ROW]
