"""The live page: new when the run has changed, never worse than the last good one, and not too often."""

import json
import shutil
import time
from pathlib import Path

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.serve.live import LEAST_WAIT, SHARE, LivePage, LiveSite


class Scene:
    """A run folder, a clock, and a page maker that does what it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.takes, self.made = folder, 100.0, 0.0, 0
        self.fails: Exception | None = None
        self.live = LivePage(folder, make=self._make, clock=lambda: self.now)
        self.change()

    def _make(self, folder: Path) -> bytes:
        self.made += 1
        self.now += self.takes
        if self.fails:
            raise self.fails
        return (folder / "state.json").read_bytes()

    def change(self) -> None:
        (self.folder / "state.json").write_text(json.dumps({"status": "finished", "message": str(time.monotonic_ns())}))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_page_is_made_once_for_each_change(scene: Scene) -> None:
    assert scene.live.refresh()
    first = scene.live.status()["version"]
    scene.now += 1000
    assert not scene.live.refresh()
    scene.change()
    assert scene.live.refresh()
    assert scene.live.status()["version"] != first
    assert scene.made == 2


@pytest.mark.parametrize("name", ["effects.json", "videos/pair-default.mp4", "votes.json"])
def test_clips_and_effects_that_come_after_the_verdict_make_a_new_page(scene: Scene, name: str) -> None:
    (scene.folder / "videos").mkdir()
    scene.live.refresh()
    scene.now += LEAST_WAIT
    assert not scene.live.refresh()
    (scene.folder / name).write_bytes(b"new")
    assert scene.live.refresh()


def test_a_page_that_takes_long_is_made_seldom(scene: Scene) -> None:
    scene.takes = 3.0
    scene.live.refresh()
    scene.change()
    scene.now += SHARE * 3.0 - 1
    assert not scene.live.refresh()
    scene.now += 2
    assert scene.live.refresh()


@pytest.mark.parametrize("error", [StgTuneError("run.json is damaged"), KeyError("torn"), OSError("gone")])
def test_a_run_that_cannot_be_read_leaves_the_last_good_page(scene: Scene, error: Exception) -> None:
    scene.live.refresh()
    page, version = scene.live.page, scene.live.status()["version"]
    scene.fails = error
    scene.change()
    scene.now += LEAST_WAIT
    assert not scene.live.refresh()
    status = scene.live.status()
    assert (scene.live.page, status["version"]) == (page, version)
    assert str(error).strip("'") in status["problem"]
    scene.fails = None
    scene.now += LEAST_WAIT  # tried again although nothing has changed since
    assert scene.live.refresh()
    assert scene.live.status()["problem"] == ""


def test_another_server_gives_the_same_version_to_the_same_page(scene: Scene) -> None:
    scene.live.refresh()
    other = LivePage(scene.folder, make=lambda folder: scene.live.page)
    other.refresh()
    assert other.status()["version"] == scene.live.status()["version"]


def test_nothing_is_made_while_nobody_looks(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> bytes:
        made.append(folder)
        return b"page"

    with LivePage(tmp_path, make=make) as live:
        time.sleep(0.1)
        assert made == []
        deadline = time.monotonic() + 60
        while not live.status()["version"] and time.monotonic() < deadline:
            time.sleep(0.02)
    assert live.page == b"page"


def test_the_pages_of_the_site(scene: Scene) -> None:
    site = LiveSite(scene.live)
    scene.live.refresh()
    for path in ("/", "/shell.js", "/shell.css"):
        reply = site.get(path)
        assert reply is not None
        assert reply.body
    report = site.get("/report")
    assert report is not None
    assert report.body == scene.live.page
    assert "frame-ancestors 'self'" in report.policy
    state = site.get("/state")
    assert state is not None
    assert json.loads(state.body)["status"] == "finished"
    assert site.get("/state/") is None
    assert site.post("/state", {}) is None


def test_the_report_of_a_real_run_follows_a_broken_and_a_mended_folder(finished_run: Path, tmp_path: Path) -> None:
    folder, now = shutil.copytree(finished_run, tmp_path / "run"), [0.0]
    live = LivePage(folder, clock=lambda: now[0])
    assert live.refresh()
    assert b"gets better" in live.page
    run = folder / "run.json"
    whole = run.read_bytes()
    run.write_bytes(whole[: len(whole) // 2])
    now[0] += LEAST_WAIT
    assert not live.refresh()
    assert "damaged" in live.status()["problem"]
    assert b"gets better" in live.page
    run.write_bytes(whole)
    now[0] += LEAST_WAIT
    assert live.refresh()
