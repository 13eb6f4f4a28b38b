"""Run folders: a run is never overwritten, and where the model's files are is remembered."""

from pathlib import Path

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.records import Pair


def test_a_folder_remembers_the_local_model(tmp_path: Path) -> None:
    RunFolder.new(tmp_path / "run", model_path=tmp_path / "weights").make()
    assert RunFolder.open(tmp_path / "run").model_path == tmp_path / "weights"


def test_a_folder_without_a_local_model_has_none(tmp_path: Path) -> None:
    RunFolder.new(tmp_path / "run").make()
    assert RunFolder.open(tmp_path / "run").model_path is None
    assert RunFolder.open(tmp_path).model_path is None


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    RunFolder.new(tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(StgTuneError, match=r"stg-tune resume"):
        RunFolder.new(tmp_path)


def test_a_file_in_the_way_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StgTuneError, match=r"cannot write to the run folder .* --out"):
        RunFolder.new(tmp_path / "file" / "run")


@pytest.mark.parametrize("content", ["[", "[]", "{}", '{"model_path": 3}'])
def test_a_damaged_note_is_one_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "source.json").write_text(content)
    with pytest.raises(StgTuneError, match=r"source\.json is damaged"):
        RunFolder.open(tmp_path)


def test_clips_of_two_settings_do_not_meet(tmp_path: Path) -> None:
    folder, pair = RunFolder.open(tmp_path), Pair(prompt="a", seed=1)
    paths = {
        folder.clip(pair, "default"),
        folder.clip(pair, "tuned-1"),
        folder.clip(Pair(prompt="a", seed=2), "default"),
    }
    assert len(paths) == 3
