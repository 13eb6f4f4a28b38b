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

FIGURES = (
    *("gain", "layers", "map", "surface", "scale", "pairs-0", "pairs-1", "pairs-2", "cost", "motion"),
    *("history", "knobs", "effect", "steps"),
)
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
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))


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
        clips=(replace(clip, others={EVIL: clip.tuned}),),
        published={EVIL: findings.published["paper"]},
        arms=tuple(replace(arm, name=EVIL, scorers={EVIL: arm.gain}, pairs=EVIL) for arm in findings.arms),
        prompts=tuple(replace(pair, prompt=EVIL, scores={EVIL: pair.scores["aesthetic"]}) for pair in findings.prompts),
        knobs=tuple(replace(knob, name=EVIL) for knob in findings.knobs),
        guards=tuple(replace(guard, name=EVIL, state=EVIL, why=EVIL) for guard in findings.guards),
        layers=tuple(replace(layer, stack=EVIL, op=EVIL) for layer in findings.layers),
        depths={EVIL: 8},
        effect_steps={EVIL: (0.1, 0.2)},
        exports=((EVIL, EVIL),),
        votes=tuple(replace(vote, aspect=EVIL) for vote in findings.votes),
        warnings=(EVIL,),
        reason=EVIL,
        published_note=EVIL,
        preset={"model": EVIL},
        provenance={EVIL: EVIL},
        scorers=tuple(replace(scorer, name=EVIL, unit=EVIL) for scorer in findings.scorers),
        finalists=tuple(replace(finalist, name=EVIL) for finalist in findings.finalists),
        trials=tuple(replace(trial, stage=EVIL, broken=(EVIL,)) for trial in findings.trials),
    )
    parsed = Page(render(evil))
    assert {tag for tag, _ in parsed.tags} == {tag for tag, _ in tame.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert parsed.text.count("alert(1)") > 20
    for attributes, data in parsed.scripts:
        if attributes.get("type") == "application/json":
            json.loads(data)


def test_every_figure_has_its_data(tame: Page) -> None:
    wanted = {attributes["data-figure"] for _, attributes in tame.tags if "data-figure" in attributes}
    found = {a["id"]: json.loads(data) for a, data in tame.scripts if a.get("type") == "application/json"}
    assert wanted == set(found) == {f"figure-{name}" for name in FIGURES}
    assert all(figure["data"] for figure in found.values())


def test_the_verdict_comes_first_and_clips_carry_prompt_and_seed(tame: Page) -> None:
    assert tame.text.index("open-sora-tiny gets better") < tame.text.index("Where the gain comes from")
    assert "a red seven" in tame.text
    assert tame.text.index("Which layers?") < tame.text.index("Side by side") < tame.text.index("Where the gain")
    assert "seed 7" in tame.text


def test_an_empty_run_still_gives_a_page(findings: Findings) -> None:
    settings = {name: getattr(findings, name) for name in ("model", "default", "provenance")}
    nothing = dict.fromkeys(("trials", "layers", "finalists", "scorers", "clips", "broken"), ())
    gains = dict.fromkeys(("tuned", "tuned_gain", "cfg", "cfg_gain", "stg_gain", "preset"))
    empty = Findings(**settings, **nothing, **gains, finished=False, improved=False, cost=0.0, depths={})
    parsed = Page(render(empty))
    assert "Not finished" in parsed.text
    assert [a["href"] for tag, a in parsed.tags if tag == "a"] == ["#main", "#verdict", "#provenance"]


def test_every_word_of_the_navigation_leads_somewhere(tame: Page) -> None:
    places = {attributes.get("id") for _, attributes in tame.tags}
    words = [a["href"] for tag, a in tame.tags if tag == "a" and (a["href"] or "").startswith("#")]
    assert len(words) == 14
    assert all((word or "")[1:] in places for word in words)


def test_a_run_without_an_improvement_gives_no_preset_but_says_what_to_do(findings: Findings) -> None:
    parsed = Page(render(replace(findings, improved=False, preset=None)))
    assert "No improvement found for open-sora-tiny" in parsed.text
    assert "There is no preset, because nothing was proved better than the default: keep CFG 3." in parsed.text


def test_the_preset_can_be_saved_copied_and_exported(findings: Findings, tame: Page) -> None:
    (saved,) = [a["href"] or "" for _, a in tame.tags if a.get("download") == "preset.json"]
    assert json.loads(base64.b64decode(saved.partition("base64,")[2])) == findings.preset
    targets = {a["data-copy"] for _, a in tame.tags if "data-copy" in a}
    assert targets == {"python", "generate", "exports", "preset"} <= {a.get("id") for _, a in tame.tags}
    assert "stg-tune export preset.json --to diffusers-python" in tame.text


def test_code_to_copy_names_the_loras_of_the_model(findings: Findings, tame: Page) -> None:
    assert "lora" not in tame.text.lower()
    parsed = Page(render(replace(findings, loras=("my style.safetensors=0.8",))))
    assert "--model open-sora-tiny --lora 'my style.safetensors=0.8' --preset preset.json" in parsed.text
    assert "this model, with my style.safetensors=0.8" in parsed.text


def _videos(parsed: Page) -> list[str]:
    return [attributes["src"] or "" for tag, attributes in parsed.tags if tag == "video"]


def test_clips_stop_when_there_is_no_more_room_and_the_page_says_so(
    findings: Findings, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = len(render(replace(findings, clips=())).encode())
    monkeypatch.setattr(page, "MAX_BYTES", without + 10_000 + 2 * 2 * 224)
    parsed = Page(render(replace(findings, clips=findings.clips * 5)))
    assert len(_videos(parsed)) == 4
    assert "3 of 5 pairs did not fit" in parsed.text


def test_clips_that_are_too_large_are_made_smaller(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = findings.clips[0]
    clip.tuned.with_name("large.mp4").write_bytes(b"x" * 9_000)
    large = replace(clip, tuned=clip.tuned.with_name("large.mp4"))
    without = len(render(replace(findings, clips=())).encode())
    monkeypatch.setattr(page, "MAX_BYTES", without + 10_000 + 12_000)
    shown = _videos(Page(render(replace(findings, clips=(clip, large)), shrink=lambda path: b"small")))
    assert [base64.b64decode(video.partition(",")[2])[:5] for video in shown] == [
        b"not r",
        b"not r",
        b"small",
        b"small",
    ]


def test_a_page_with_many_clips_stays_within_its_limit(findings: Findings, tmp_path: Path) -> None:
    (tmp_path / "big.mp4").write_bytes(bytes(4_000_000))
    clip = replace(findings.clips[0], tuned=tmp_path / "big.mp4")
    text = render(replace(findings, clips=(clip,) * 6))
    assert len(_videos(Page(text))) == 6
    assert len(text.encode()) <= 25_000_000


def test_assets_lie_beside_the_page_as_they_are(findings: Findings, tmp_path: Path) -> None:
    written = write_report(findings, tmp_path / "a page.html", assets=True)
    shown = _videos(Page(written.read_text(encoding="utf-8")))
    assert shown == ["a%20page-assets/pair-01-0.mp4", "a%20page-assets/pair-01-1.mp4"]
    copies = sorted((tmp_path / "a page-assets").iterdir())
    assert [copy.read_bytes() for copy in copies] == [b"not really a film"] * 2


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
