"""The committed dashboards are whole: page and pictures, small enough, with the preset that is committed."""

import html
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stg_tune import models
from stg_tune.preset import parse
from stg_tune.report.page import MAX_BYTES

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "dashboards"
PRESETS = ROOT / "results" / "presets"
PAGES = sorted(page for page in FOLDER.glob("*.html") if page.stem != "comparison")


def _render() -> ModuleType:
    """``dashboards/render.py``, which is no package."""
    found = importlib.util.spec_from_file_location("render", FOLDER / "render.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _preset_on(page: Path) -> dict[str, Any]:
    (shown,) = re.findall(r'<pre id="preset"[^>]*>(.*?)</pre>', page.read_text(encoding="utf-8"), re.S)
    return dict(json.loads(html.unescape(shown)))


def _committed(model: str) -> dict[str, dict[str, Any]]:
    return {
        file.name: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(PRESETS.glob("*.json"))
        if json.loads(file.read_text(encoding="utf-8"))["model"]["name"] == model
    }


def test_every_model_with_a_committed_preset_has_its_page() -> None:
    assert PAGES
    embedded = [name for name in models.names() if models.entry(name).embedded]
    assert {name for name in embedded if _committed(name)} <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_small_enough_and_its_pictures_are_there(page: Path) -> None:
    assert page.stat().st_size <= MAX_BYTES == 25_000_000
    for end in _render().SHOTS:
        picture = page.with_name(f"{page.stem}{end}.png")
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", picture.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_nothing_from_outside(page: Path) -> None:
    text = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.S)
    addresses = re.findall(r'<[a-z]+[^<>]*? (?:src|href)="(?!data:|#)([^"]*)"', text)
    assert addresses == []
    assert 'src="data:video/mp4' in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_preset_of_a_page_is_the_committed_one(page: Path) -> None:
    shown, committed = _preset_on(page), _committed(page.stem)
    parse(json.dumps(shown))
    assert shown["model"]["name"] == page.stem
    assert shown in committed.values(), f"{page.name} shows none of {', '.join(committed)}: render it again"


def test_a_stale_page_would_be_found() -> None:
    """The comparison can fail: a preset that differs in one number is none of the committed ones."""
    shown = _preset_on(PAGES[0])
    changed = {**shown, "evidence": {**shown["evidence"], "evaluations": -1}}
    assert changed not in _committed(PAGES[0].stem).values()
