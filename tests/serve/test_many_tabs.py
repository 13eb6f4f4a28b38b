"""A real search, scores made up, is stopped and goes on while several tabs look at its page."""

import http.client
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search import SearchPlan, load_run, run_search
from stg_tune.serve import LivePage, LiveSite
from stg_tune.web import LocalServer

TABS = 4
STOP_AT = 60
PATIENCE = 180.0
"""Seconds: other processes may want the processor as well."""


class Tab(Thread):
    """Does what the script of the page does, only more often."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.place, self.closed = urlsplit(url).netloc, Event()
        self.codes: list[int] = []
        self.statuses: list[str] = []
        self.fault = ""
        self.page = b""

    def run(self) -> None:
        version = ""
        try:
            self._get("/")
            while not self.closed.wait(0.05):
                state = json.loads(self._get("/state"))
                self.statuses.append(state["status"])
                if state["version"] != version:
                    version, self.page = state["version"], self._get(f"/report?{state['version']}")
        except Exception as error:  # noqa: BLE001 - told by the test
            self.fault = repr(error)

    def _get(self, address: str) -> bytes:
        connection = http.client.HTTPConnection(self.place, timeout=PATIENCE)
        try:
            connection.request("GET", address)
            reply = connection.getresponse()
            self.codes.append(reply.status)
            return reply.read()
        finally:
            connection.close()


def _evaluator(plan: SearchPlan, *, stop_at: int | None = None) -> Callable[[GuidanceSpec, Pair], Evaluation]:
    """Skipping spatial block 4 helps by a point, any other block hurts; Ctrl-C is pressed at evaluation ``stop_at``."""
    numbers = iter(range(100_000))

    def evaluate(spec: GuidanceSpec, pair: Pair) -> Evaluation:
        if next(numbers) == stop_at:
            raise KeyboardInterrupt
        time.sleep(0.005)
        terms = [term for segment in spec.segments for term in segment.terms if term.stg_scale]
        layers = [(stack, layer) for term in terms for stack, found in term.skip_layers.items() for layer in found]
        gain = sum(1.0 if place == ("spatial", 4) else -0.3 for place in layers)
        gain += random.Random(f"{pair.key} {spec.hash()}").gauss(0, 0.05)
        level = random.Random(pair.key).gauss(5, 1)
        signs = {kind.name: 1 if kind.direction == "maximize" else -1 for kind in plan.scorers}
        scores = {name: level + sign * gain for name, sign in signs.items()} | {"motion": 2.0}
        return Evaluation(config=spec.hash(), pair=pair, scores=scores, seconds=0.01, forwards=16.0)

    return evaluate


def _until(ask: Callable[[], bool], tabs: list[Tab]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ask() and not any(tab.fault for tab in tabs) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [tab.fault for tab in tabs] == [""] * TABS
    assert ask()


@pytest.mark.slow
def test_a_search_that_is_stopped_and_resumed_is_followed_by_many_tabs(finished_run: Path, tmp_path: Path) -> None:
    plan, folder = load_run(finished_run).plan, tmp_path / "run"
    with LivePage(folder) as live, LocalServer(lambda token: LiveSite(live), port=0) as server:
        tabs = [Tab(server.url) for _ in range(TABS)]
        for tab in tabs:
            tab.start()
        with pytest.raises(KeyboardInterrupt):
            run_search(plan, _evaluator(plan, stop_at=STOP_AT), directory=folder)
        _until(lambda: all(tab.statuses[-1:] == ["interrupted"] and b"Not finished" in tab.page for tab in tabs), tabs)
        result = run_search(plan, _evaluator(plan), directory=folder)
        _until(lambda: all(tab.statuses[-1] == "finished" and b"gets better" in tab.page for tab in tabs), tabs)
        for tab in tabs:
            tab.closed.set()
            tab.join()
    assert result.verdict is not None
    assert result.verdict.improved
    for tab in tabs:
        assert set(tab.codes) == {200}
        assert tab.statuses.index("interrupted") < tab.statuses.index("finished")
        assert f"{result.verdict.gain.mean:+.2f}".encode() in tab.page
        assert tab.page == live.page
