"""One Chromium for all tests of the page; where there is none, they are skipped."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120.0
"""Seconds for things that take one: other processes may want the processor as well."""


class Browser:
    """A window on one page at a time."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1200, **media: str) -> None:
        """Open a file with a width in pixels and media features such as ``prefers_color_scheme="dark"``."""
        self.driver.get("about:blank")
        self.log()
        self.driver.get_log("performance")
        self.resize(width)
        self.prefer(**media)
        self.driver.get(page.as_uri())

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, **media: str) -> None:
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str) -> Any:
        """The first true value of an expression."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            value = self.run(f"return {script}")
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}")

    def draw_all(self) -> None:
        """As for printing: every figure, in sight or not."""
        self.run("window.dispatchEvent(new Event('beforeprint'))")
        self.wait("[...document.querySelectorAll('.figure')].every(box => box.querySelector('.main-svg'))")

    def log(self) -> list[str]:
        """What the page wrote to the console since the last look."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def processor_seconds(self) -> float:
        """Time that the page has kept its thread busy."""
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return next(item["value"] for item in metrics if item["name"] == "TaskDuration")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.set_page_load_timeout(PATIENCE)
    started.set_script_timeout(PATIENCE)
    # by the thread's own clock: another process that wants the processor must not fail a test
    started.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    yield Browser(started)
    started.quit()


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a film of 12 frames at 8 a second that get brighter by the same step, so that a frame tells its number."""
    import torch

    from stg_tune.video import Video, write_mp4

    folder = tmp_path_factory.mktemp("films")
    levels = torch.arange(12, dtype=torch.uint8) * 20
    frames = levels[:, None, None, None].expand(-1, 32, 32, 3).contiguous()
    return lambda name: write_mp4(Video(frames=frames, fps=8), folder / name)
