"""The report of a run, made anew in the background when the run has changed and somebody looks at it."""

from __future__ import annotations

import hashlib
import tempfile
import time
from importlib import resources
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.outcome import look
from stg_tune.report import write_report
from stg_tune.serve.state import read_state
from stg_tune.web import Reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

WATCHED = (
    *("run.json", "state.json", "preset.json", "study.db", "study.db-wal", "votes.json"),
    *("effects.json", "videos"),
)
"""What changes in a run folder when there is something new; a folder in it changes with each file that comes in. A run
whose numbers are in another database is seen by its ``state.json``."""
LEAST_WAIT = 5.0
"""Seconds between two pages, at least."""
SHARE = 10.0
"""A page that takes t seconds to make is made every ``SHARE`` * t seconds at most: the search needs the processor."""
ATTENTION = 30.0
"""Seconds after the last question of a tab in which somebody is thought to look."""
PAGE_POLICY = "frame-ancestors 'self'"
"""The report states the rest of its policy itself."""


def make_page(directory: Path, *, shrink: Callable[[Path], bytes] | None = None) -> bytes:
    """The report as it would be written now; ``shrink`` makes a smaller MP4 of a clip that would not fit."""
    with tempfile.TemporaryDirectory(prefix="stg-tune-") as folder:
        # not `outcome.report`: clips that are missing now may be on their way, which is no reason for a warning
        return write_report(look(directory), Path(folder) / "report.html", shrink=shrink).read_bytes()


class LivePage:
    """Keeps the newest page. ``with`` it, a thread follows the run.

    Args:
        directory: Folder of the run.
        make: Makes the page.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        directory: Path,
        *,
        make: Callable[[Path], bytes] = make_page,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory
        self._make, self._clock = make, clock
        self._page, self._version, self._problem = b"", "", ""
        self._seen: tuple[object, ...] = ()
        self._due = self._asked = -ATTENTION
        self._stop, self._wake, self._one = Event(), Event(), Lock()
        self._thread = Thread(target=self._follow, daemon=True)

    def __enter__(self) -> LivePage:
        """Begin to follow."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; a page that is being made is not waited for."""
        self._stop.set()
        self._wake.set()

    @property
    def page(self) -> bytes:
        """The newest page; empty before there is one."""
        return self._page

    def status(self) -> dict[str, Any]:
        """The version of the page, what hindered a newer one, and where the run is; somebody is looking."""
        self._asked = self._clock()
        self._wake.set()
        return {"version": self._version, "problem": self._problem, **read_state(self.directory).to_dict()}

    def refresh(self) -> bool:
        """Make the page if the run has changed and it is time; says whether there is a new one.

        A run that cannot be read, because it is half written or gone, leaves the last good page.
        """
        with self._one:
            seen, begun = _marks(self.directory), self._clock()
            if seen == self._seen or begun < self._due:
                return False
            try:
                page = self._make(self.directory)
            except StgTuneError as error:
                return self._failed(str(error), begun)
            except Exception as error:  # noqa: BLE001 - whatever a half-written run leads to, it must not end the page
                return self._failed(f"{type(error).__name__}: {error}", begun)
            self._page, self._version = page, hashlib.sha256(page).hexdigest()[:16]
            self._problem, self._seen = "", seen
            self._rest(begun)
            return True

    def _failed(self, problem: str, begun: float) -> bool:
        self._problem = problem
        self._rest(begun)
        return False

    def _rest(self, begun: float) -> None:
        self._due = self._clock() + max(LEAST_WAIT, SHARE * (self._clock() - begun))

    def _follow(self) -> None:
        while not self._stop.is_set():
            if self._clock() - self._asked < ATTENTION:
                self.refresh()
                self._stop.wait(1.0)
            else:
                self._wake.clear()
                self._wake.wait(ATTENTION)


class LiveSite:
    """The pages of ``stg-tune serve``: a frame with the state of the run, and the report in it.

    Args:
        live: The newest report.
    """

    def __init__(self, live: LivePage) -> None:
        self._live = live
        self._fixed = {
            "/": Reply.html(_SHELL),
            "/shell.js": Reply(body=_asset("shell.js"), kind="text/javascript; charset=utf-8"),
            "/shell.css": Reply(body=_asset("shell.css"), kind="text/css; charset=utf-8"),
        }

    def get(self, path: str) -> Reply | None:
        """Answer an address."""
        if path == "/state":
            return Reply.json(self._live.status())
        if path == "/report":
            return Reply(body=self._live.page, kind="text/html; charset=utf-8", policy=PAGE_POLICY)
        return self._fixed.get(path)

    def post(self, path: str, data: Any) -> Reply | None:
        """Nothing can be changed here."""


def _marks(directory: Path) -> tuple[object, ...]:
    return tuple(_mark(directory / name) for name in WATCHED)


def _mark(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _asset(name: str) -> bytes:
    return resources.files("stg_tune.serve").joinpath(name).read_bytes()


_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>stg-tune</title>
<link rel="stylesheet" href="/shell.css">
<script src="/shell.js" defer></script>
</head>
<body>
<header>
<div class="row"><b id="status" role="status">connecting</b><span id="count"></span><span id="left"></span>
<button id="hold" type="button" aria-pressed="false" title="key p">hold the page</button></div>
<progress id="bar" max="1" value="0" aria-label="evaluations"></progress>
<div class="row"><span id="best"></span><span id="current"></span></div>
<p id="problem" hidden></p>
</header>
<main><p id="waiting">The first page is being made.</p></main>
</body>
</html>
"""
