"""The two local pages in a real browser: keys vote, the report is swapped in place, names are shown as text."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stg_tune.records import Pair
from stg_tune.serve import LivePage, LiveSite
from stg_tune.video import Video, write_mp4
from stg_tune.vote import Arm, Ballot, Booth, Item, VoteFile
from stg_tune.web import LocalServer

selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
HOSTILE = "<img src=x onerror=\"document.title='broken'\">&amp;"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not on this machine"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    driver.set_window_size(900, 700)
    yield driver
    driver.quit()


def until(ask: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Wait for a browser on a busy machine."""
    deadline = time.monotonic() + seconds
    while not (found := ask()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found
    return found


def text(browser: Any, place: str) -> str:
    found: str = browser.execute_script("return document.getElementById(arguments[0])?.textContent ?? ''", place)
    return found


def faults(browser: Any) -> list[str]:
    """What the page has complained about; a missing icon is none of its faults."""
    return [entry["message"] for entry in browser.get_log("browser") if "favicon" not in entry["message"]]


def press(browser: Any, key: str) -> None:
    browser.execute_script(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))", key
    )


@pytest.fixture
def ballot(tmp_path: Path) -> Ballot:
    items = []
    for seed in range(2):
        shade = torch.full((4, 32, 32, 3), 60 + 90 * seed, dtype=torch.uint8)
        files = [write_mp4(Video(frames=shade + part, fps=8), tmp_path / f"{seed}-{part}.mp4") for part in (0, 50)]
        items.append(Item(pair=Pair(prompt=f"{HOSTILE} {seed}", seed=seed), a=files[0], b=files[1]))
    return Ballot(a=Arm(name="default", words="CFG 2"), b=Arm(name="tuned-ab", words=HOSTILE), items=tuple(items))


def test_a_vote_by_keys(browser: Any, ballot: Ballot, tmp_path: Path) -> None:
    file = VoteFile(tmp_path / "votes.json")
    with LocalServer(lambda token: Booth(ballot, file, voter="Ada", seed=0, token=token), port=0) as server:
        browser.get(server.url)
        until(lambda: "looks better" in text(browser, "question"))
        assert HOSTILE in text(browser, "prompt")
        playing = "return ['left', 'right'].every(id => document.getElementById(id).videoWidth === 32)"
        until(lambda: browser.execute_script(playing))
        for number, key in enumerate(["ArrowLeft", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowLeft"], start=1):
            press(browser, key)
            until(lambda number=number: text(browser, "count") == f"{number} of 6 answers")
        press(browser, "Backspace")
        until(lambda: "moves better" in text(browser, "question"))
        press(browser, "ArrowRight")
        until(lambda: "asked for" in text(browser, "question"))
        assert len(file.votes()) == 5
        browser.refresh()  # goes on where it stopped
        until(lambda: "asked for" in text(browser, "question"))
        press(browser, "ArrowDown")
        until(lambda: "Votes for" in text(browser, "result"))
    names = {True: "left", False: "right"}
    sides = ["tie" if vote.choice == "tie" else names[vote.choice == vote.left] for vote in file.votes()]
    assert sides == ["left", "tie", "right", "left", "right", "tie"]
    assert HOSTILE in text(browser, "result")
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    assert browser.title == "Blind vote"
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert faults(browser) == []


def test_the_page_follows_the_run(browser: Any, tmp_path: Path) -> None:
    def tell(done: int, page: str) -> None:
        state = {"status": "interrupted", "message": HOSTILE, "stage": "search", "done": done, "total": 40}
        (tmp_path / "state.json").write_text(json.dumps(state))
        (tmp_path / "run.json").write_text(page)

    def make(folder: Path) -> bytes:
        return b"<!doctype html><body style='height: 5000px'>" + (folder / "run.json").read_bytes()

    def in_frame(script: str) -> Any:
        return browser.execute_script(f"const f = document.querySelector('iframe'); return f && {script}")

    tell(10, "first")
    with LivePage(tmp_path, make=make) as live, LocalServer(lambda token: LiveSite(live), port=0) as server:
        browser.get(server.url)
        until(lambda: in_frame("f.contentDocument?.body?.textContent === 'first' && f.className === ''"))
        until(lambda: text(browser, "count") == "10 of 40 evaluations")
        assert text(browser, "current") == HOSTILE
        in_frame("f.contentWindow.scrollTo(0, 1500)")
        tell(20, "second")
        until(lambda: in_frame("f.contentDocument?.body?.textContent === 'second' && f.className === ''"))
        assert in_frame("f.contentWindow.scrollY") == 1500
        assert browser.execute_script("return document.querySelectorAll('iframe').length") == 1
        assert browser.title == "50 % interrupted · stg-tune"
        press(browser, "p")
        assert text(browser, "hold") == "follow again"
        assert faults(browser) == []
    until(lambda: "does not answer" in text(browser, "problem"))
