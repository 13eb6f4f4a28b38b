"""A disk that fills up in the middle of a run: one clear sentence, and nothing lost that was finished."""

import dataclasses
import json
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from stg_tune.errors import StgTuneError
from stg_tune.search import progress
from stg_tune.search.driver import run_search
from stg_tune.search.stored import rows_of


@contextmanager
def room_for(pages):
    """SQLite itself refuses to grow beyond this, with the error that it has for a full disk."""

    def limit(connection, record):
        connection.execute(f"pragma max_page_count = {pages}")

    sa.event.listen(sa.Engine, "connect", limit)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "connect", limit)


@pytest.fixture(scope="module")
def scene(landscape):
    return landscape(name="d1", noise=0.4)


@pytest.fixture(scope="module")
def plan(scene, make_plan):
    return make_plan(scene, budget="150", prompts=200)


@pytest.fixture(scope="module")
def undisturbed(scene, plan, tmp_path_factory):
    return run_search(plan, scene, directory=tmp_path_factory.mktemp("calm"))


@pytest.mark.parametrize("pages", [18, 30, 46])
def test_a_full_disk_ends_the_run_and_resume_goes_on(scene, plan, undisturbed, tmp_path, pages):
    fresh = dataclasses.replace(scene, calls=[])
    with room_for(pages), pytest.raises(StgTuneError, match=r"disk is full.*resume") as error:
        run_search(plan, fresh, directory=tmp_path)
    assert len(str(error.value).splitlines()) == 1
    kept = len(rows_of(tmp_path))
    assert len(fresh.calls) - kept <= 1
    result = run_search(plan, fresh, directory=tmp_path)
    assert result.verdict == undisturbed.verdict
    assert len(fresh.calls) <= result.spent + 1


def test_a_state_file_that_cannot_be_written_hides_nothing(scene, plan, undisturbed, tmp_path, monkeypatch):
    def full(path, text):
        if path.name == "state.json":
            raise StgTuneError(f"cannot write {path}: No space left on device")
        (tmp_path / path.name).write_text(text)

    monkeypatch.setattr(progress, "write_atomic", full)
    with pytest.raises(StgTuneError, match=r"state\.json: No space left on device"):
        run_search(plan, scene, directory=tmp_path)
    monkeypatch.undo()
    assert run_search(plan, scene, directory=tmp_path).verdict == undisturbed.verdict
    assert json.loads((tmp_path / "state.json").read_text())["status"] == "finished"
