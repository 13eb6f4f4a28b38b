"""Report and pictures of a run: ``python dashboards/render.py runs/demo open-sora-tiny`` (Chromium, selenium)."""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.report import smaller
from stg_tune.outcome import comparison, report

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
SHOTS = {
    "": {"width": 1200, "scheme": "light", "tall": False},
    "-whole": {"width": 1200, "scheme": "light", "tall": True},
    "-dark": {"width": 1200, "scheme": "dark", "tall": False},
    "-phone": {"width": 375, "scheme": "light", "tall": False},
}
"""End of the file's name -> what is shown: the first screen, or the page from top to bottom."""
NO_BUTTONS = ".modebar { display: none; }"
SCREEN = 1000
"""Height of the first screen, in pixels."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write ``NAME.html`` and its pictures into this folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="DIR", help="folder of a run; several: compare them")
    parser.add_argument("name", help="name of the files")
    parser.add_argument("--out", type=Path, default=HERE, help="where to write (default: this folder)")
    parser.add_argument("--no-screenshots", action="store_true", help="the page only")
    options = parser.parse_args(arguments)
    target = options.out / f"{options.name}.html"
    page = (
        comparison(options.runs, target) if len(options.runs) > 1 else report(options.runs[0], target, shrink=smaller)
    )
    sys.stdout.write(f"{page}: {page.stat().st_size / 1e6:.1f} MB\n")
    if not options.no_screenshots:
        for shot in screenshots(page):
            sys.stdout.write(f"{shot}: {shot.stat().st_size / 1e3:.0f} kB\n")
    return 0


def screenshots(page: Path) -> list[Path]:
    """One picture of the page for each of ``SHOTS``, beside it."""
    driver = _chromium()
    try:
        return [_shot(driver, page, end, **shown) for end, shown in SHOTS.items()]
    finally:
        driver.quit()


def _chromium() -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def _shot(driver: Any, page: Path, end: str, *, width: int, scheme: str, tall: bool) -> Path:
    scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_feature, still]})
    _size(driver, width, SCREEN)
    driver.get(page.resolve().as_uri())
    # Plotly shows its buttons under a mouse only, or always where there is none, as here
    driver.execute_script(
        "document.head.append(Object.assign(document.createElement('style'), {textContent: arguments[0]}))", NO_BUTTONS
    )
    driver.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    if tall:
        _size(driver, width, driver.execute_script("return document.documentElement.scrollHeight"))
    driver.execute_async_script(
        "const done = arguments[0]; const films = [...document.querySelectorAll('video')];"
        "Promise.all(films.map(film => film.readyState >= 2 ? 0 : new Promise(ready => film.onloadeddata = ready)))"
        ".then(() => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
    )
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    shot = page.with_name(f"{page.stem}{end}.png")
    shot.write_bytes(base64.b64decode(taken["data"]))
    return shot


def _size(driver: Any, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


if __name__ == "__main__":
    raise SystemExit(main())
