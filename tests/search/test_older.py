"""Run folders of other versions: read as they are, or refused with the version by name; their rows stay."""

import dataclasses
import json
import sqlite3
from contextlib import closing

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.search.driver import run_search, snapshot
from stg_tune.search.plan import load_run
from stg_tune.search.storage import EvaluationTable
from stg_tune.search.stored import rows_of

SINCE_THE_FIRST = {"fidelity", "loras", "rules"}
"""Fields of a plan that came later; without them a plan means what it meant then."""


@pytest.fixture(scope="module")
def scene(landscape):
    return landscape(name="d1", noise=0.4)


@pytest.fixture(scope="module")
def plan(scene, make_plan):
    return make_plan(scene, budget="150", prompts=200, rules=1)


@pytest.fixture
def stopped(scene, plan, tmp_path):
    """A run that was stopped after 60 evaluations, as the first version has left it."""
    left = iter(range(60))

    def evaluate(spec, pair):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return scene(spec, pair)

    with pytest.raises(KeyboardInterrupt):
        run_search(plan, evaluate, directory=tmp_path)
    data = json.loads((tmp_path / "run.json").read_text())
    assert data["allowances"] == [{"budget": "150", "evaluations": 150, "verdict": False}]
    data["plan"] = {name: value for name, value in data["plan"].items() if name not in SINCE_THE_FIRST}
    (tmp_path / "run.json").write_text(json.dumps(data))
    for file in ("state.json", "inflight.json"):
        (tmp_path / file).unlink()
    return tmp_path


def change(folder, statement):
    with closing(sqlite3.connect(folder / "study.db")) as base, base:
        base.execute(statement)


def count(folder):
    with closing(sqlite3.connect(folder / "study.db")) as base:
        return base.execute("select count(*) from evaluations").fetchone()[0]


def test_a_run_of_the_first_version_goes_on_with_every_row(scene, plan, stopped, tmp_path_factory):
    fresh = dataclasses.replace(scene, calls=[])
    assert snapshot(stopped).spent == 60
    result = run_search(load_run(stopped).plan, fresh, directory=stopped)
    calm = run_search(plan, scene, directory=tmp_path_factory.mktemp("calm"))
    assert result.verdict == calm.verdict
    assert len(fresh.calls) == result.spent - 60


@pytest.mark.parametrize(("version", "age"), [(0, "older"), (2, "newer")])
def test_rows_of_another_schema_are_refused_by_its_version_and_stay(scene, plan, stopped, version, age):
    change(stopped, f"update stg_tune_schema set version = {version}")
    for look in (rows_of, snapshot, lambda folder: run_search(plan, scene, directory=folder)):
        with pytest.raises(StgTuneError, match=rf"schema version {version}, {age} than version 1.*rows are untouched"):
            look(stopped)
    assert count(stopped) == 60
    change(stopped, "update stg_tune_schema set version = 1")
    assert run_search(plan, scene, directory=stopped).finished


def test_rows_from_before_versions_were_noted_are_refused_and_not_taken_for_new_ones(stopped):
    change(stopped, "drop table stg_tune_schema")
    change(stopped, "alter table evaluations drop column effects")
    for _ in range(2):  # the first refusal must not leave anything behind that makes the second one a success
        with pytest.raises(StgTuneError, match="schema version 0, older than version 1"):
            EvaluationTable(load_run(stopped).storage, "synthetic")
    assert count(stopped) == 60


@pytest.mark.parametrize("schema", ["stg-tune/run/0", "stg-tune/run/2"])
def test_a_run_file_of_another_schema_names_it_and_changes_nothing(scene, plan, stopped, schema):
    text = (stopped / "run.json").read_text().replace("stg-tune/run/1", schema)
    (stopped / "run.json").write_text(text)
    for look in (load_run, snapshot, lambda folder: run_search(plan, scene, directory=folder)):
        with pytest.raises(StgTuneError, match=rf"has the schema '{schema}'; this stg-tune reads stg-tune/run/1"):
            look(stopped)
    assert (stopped / "run.json").read_text() == text
    assert count(stopped) == 60


def test_a_budget_with_fields_of_a_newer_version_says_so(stopped):
    data = json.loads((stopped / "run.json").read_text())
    data["allowances"][0]["currency"] = "EUR"
    (stopped / "run.json").write_text(json.dumps(data))
    with pytest.raises(StgTuneError, match="holds currency, which this stg-tune does not know: use a newer one"):
        load_run(stopped)
