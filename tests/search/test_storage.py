import sqlite3

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.storage import EvaluationTable, Row

PAIR = Pair(prompt="a red seven\nmoving", seed=2**40)


def a_row(spec, pair=PAIR, **changes):
    fields = {"scores": {"aesthetic": 0.1 + 0.2}, "unscored": {"motion": "frozen"}, "effects": {"spatial": 0.25}}
    evaluation = Evaluation(
        config=spec.hash(), pair=pair, seconds=1.5, forwards=20.25, error="", **{**fields, **changes}
    )
    return Row(
        spec=spec, evaluation=evaluation, role="search", fidelity="full", worker="host:1", versions={"torch": "2.8"}
    )


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


def test_rows_come_back_as_they_were(url, one_term):
    row = a_row(one_term())
    table = EvaluationTable(url, "m")
    table.add(row)
    table.close()
    assert EvaluationTable(url, "m").rows() == [row]
    assert EvaluationTable(url, "other").rows() == []


def test_a_row_is_committed_at_once(url, tmp_path):
    EvaluationTable(url, "m").add(a_row(GuidanceSpec(cfg_scale=2.0)))
    other = sqlite3.connect(tmp_path / "study.db")  # another connection sees committed rows only
    assert other.execute("select prompt, seed, role from evaluations").fetchall() == [(PAIR.prompt, 2**40, "search")]


def test_the_same_pair_twice_is_another_driver(url):
    table = EvaluationTable(url, "m")
    table.add(a_row(GuidanceSpec(cfg_scale=2.0)))
    with pytest.raises(StgTuneError, match="another driver"):
        table.add(a_row(GuidanceSpec(cfg_scale=2.0)))
    table.add(a_row(GuidanceSpec(cfg_scale=2.5)))
    assert len(table.rows()) == 2


@pytest.mark.parametrize(("version", "age"), [(0, "older"), (2, "newer")])
def test_another_schema_version_is_refused(url, tmp_path, version, age):
    EvaluationTable(url, "m").close()
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute(f"update stg_tune_schema set version = {version}")
    with pytest.raises(StgTuneError, match=f"schema version {version}, {age} than version 1"):
        EvaluationTable(url, "m")


def test_a_study_belongs_to_one_fingerprint(url):
    table = EvaluationTable(url, "m")
    table.claim("one")
    table.claim("one")
    with pytest.raises(StgTuneError, match="must not be mixed"):
        EvaluationTable(url, "m").claim("two")
    EvaluationTable(url, "n").claim("two")


@pytest.mark.parametrize("url", ["study.db", "nosuch://x", "sqlite:////no/such/folder/study.db"])
def test_urls_that_cannot_be_opened(url):
    with pytest.raises(StgTuneError, match="storage"):
        EvaluationTable(url, "m")


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "x.db").write_text("hello, this is not a database at all, not even close")
    with pytest.raises(StgTuneError, match="not a database"):
        EvaluationTable(f"sqlite:///{tmp_path / 'x.db'}", "m")


def test_passwords_are_not_shown():
    with pytest.raises(StgTuneError) as error:
        EvaluationTable("sqlite://user:hunter2@host/no/such.db", "m")
    assert "hunter2" not in str(error.value)
