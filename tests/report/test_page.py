"""The page: one file, nothing from outside, nothing of the content runs."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.report import Clip, Findings, page, render, write_report

EVIL = "</script><img src=x onerror=alert(1)>\"'<b>"


class Page(HTMLParser):
    """Collects tags, scripts and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._script: dict[str, str | None] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = dict(attrs) if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts.append((self._script, data))
        else:
            self.text += data


@pytest.fixture(scope="module")
def text(findings: Findings) -> str:
    return render(findings)


@pytest.fixture(scope="module")
def tame(text: str) -> Page:
    return Page(text)


def test_the_page_asks_for_nothing_from_outside(tame: Page) -> None:
    for tag, attributes in tame.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "poster", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_only_the_two_scripts_of_the_page_may_run(tame: Page) -> None:
    (policy,) = [a["content"] for tag, a in tame.tags if a.get("http-equiv") == "Content-Security-Policy"]
    allowed = set(re.findall(r"'sha256-([^']+)'", policy or ""))
    running = [text for attributes, text in tame.scripts if attributes.get("type") is None]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running} == allowed
    assert len(running) == 2
    assert "default-src 'none'" in (policy or "")
    script_rule = (policy or "").split("script-src")[1].split(";")[0]
    assert "unsafe" not in script_rule


def test_nothing_from_outside_becomes_markup(findings: Findings, tame: Page) -> None:
    clip = replace(findings.clips[0], prompt=EVIL)
    evil = replace(
        findings,
        model=EVIL,
        clips=(clip,),
        preset={"model": EVIL},
        provenance={EVIL: EVIL},
        scorers=tuple(replace(scorer, name=EVIL, unit=EVIL) for scorer in findings.scorers),
        finalists=tuple(replace(finalist, name=EVIL) for finalist in findings.finalists),
        trials=tuple(replace(trial, stage=EVIL, broken=(EVIL,)) for trial in findings.trials),
    )
    parsed = Page(render(evil))
    assert {tag for tag, _ in parsed.tags} == {tag for tag, _ in tame.tags}
    assert "alert(1)" in parsed.text
    for attributes, data in parsed.scripts:
        if attributes.get("type") == "application/json":
            json.loads(data)


def test_every_figure_has_its_data(tame: Page) -> None:
    wanted = {attributes["data-figure"] for _, attributes in tame.tags if "data-figure" in attributes}
    found = {a["id"]: json.loads(data) for a, data in tame.scripts if a.get("type") == "application/json"}
    assert wanted == set(found) == {f"figure-{name}" for name in ("gain", "layers", "history", "scale", "effect")}
    assert all(figure["data"] for figure in found.values())


def test_the_verdict_comes_first_and_clips_carry_prompt_and_seed(tame: Page) -> None:
    assert tame.text.index("open-sora-tiny gets better") < tame.text.index("Where the gain comes from")
    assert "a red seven" in tame.text
    assert "seed 7" in tame.text


def test_an_empty_run_still_gives_a_page(findings: Findings) -> None:
    nothing = dict.fromkeys(("trials", "layers", "finalists", "scorers", "clips"), ())
    empty = replace(findings, finished=False, tuned=None, tuned_gain=None, cfg_gain=None, stg_gain=None, preset=None)
    empty = replace(empty, **nothing)
    assert "Not finished" in Page(render(empty)).text


def test_clips_stop_when_there_is_no_more_room(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_CLIP_BYTES", 80)
    parsed = Page(render(replace(findings, clips=findings.clips * 5)))
    assert sum(tag == "video" for tag, _ in parsed.tags) == 4


def test_a_missing_clip_and_an_unwritable_place_are_one_message_each(findings: Findings, tmp_path: Path) -> None:
    gone = Clip(prompt="x", seed=0, baseline=tmp_path / "no.mp4", tuned=tmp_path / "no.mp4")
    with pytest.raises(StgTuneError, match="cannot read the clip"):
        render(replace(findings, clips=(gone,)))
    (tmp_path / "file").write_text("")
    with pytest.raises(StgTuneError, match="cannot write the report"):
        write_report(findings, tmp_path / "file" / "report.html")


def test_the_file_is_the_page(findings: Findings, text: str, tmp_path: Path) -> None:
    written = write_report(findings, tmp_path / "new" / "report.html")
    assert written.read_text(encoding="utf-8") == text
