"""A real disk that is full, of a few hundred kilobytes: in the search, under the preset, and under the videos."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stg_tune.search import snapshot

ROOT = Path(__file__).parent.parent
PRIVATE = ["unshare", "--user", "--map-root-user", "--mount"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the process on the small disk has seen."""
    disk = tmp_path_factory.mktemp("disk")
    try:
        tried = subprocess.run([*PRIVATE, "mount", "-t", "tmpfs", "none", str(disk)], capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"a small disk needs the program unshare (util-linux): {error}")
    if tried.returncode:
        pytest.skip(f"this system lets nobody mount a small disk of his own: {tried.stderr.strip()}")
    command = [*PRIVATE, sys.executable, "-m", "tests.full_disk_process", str(disk)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_search_ends_with_one_sentence_and_goes_on_when_there_is_room(report: dict, finished_run: Path) -> None:
    assert len(report["full"].splitlines()) == 1
    assert "disk is full" in report["full"] or "No space left on device" in report["full"]
    assert 0 < report["kept"] < report["spent"]
    assert report["begun"] - report["kept"] <= 1
    assert report["after"] == ""
    assert report["evaluated"] <= report["spent"] + 1
    assert report["winner"] == snapshot(finished_run).verdict.winner.hash()


def test_a_preset_that_cannot_be_written_leaves_the_one_before_it(report: dict) -> None:
    assert "No space left on device" in report["preset"]
    assert report["preset_before"]


def test_videos_that_cannot_be_written_cost_a_warning_and_are_made_later(report: dict) -> None:
    (told,) = report["film"]
    assert "No space left on device" in told
    assert report["torn"] == []
    assert report["film_after"] == []
    assert set(report["clips"]) == {8}
