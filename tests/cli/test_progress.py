"""What is shown while a search works."""

import io
import json
from dataclasses import replace

import pytest

from stg_tune.cli import progress
from stg_tune.cli.progress import PlainLines, details, left, line, watching
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.progress import ProgressEvent, Standing, Tracker, event_to_dict
from stg_tune.search.statistics import Interval


def _event(stage: str = "search", done: int = 212, *, held_out: bool = False, best: bool = True) -> ProgressEvent:
    gain = Interval(mean=0.42, low=0.1, high=0.74, level=0.95, pairs=8, clusters=8)
    standing = Standing(name="trial 9", gain=gain, held_out=held_out) if best else None
    return ProgressEvent(
        stage=stage,
        done=done,
        total=600,
        stage_done=1,
        stage_total=9,
        current=(GuidanceSpec(cfg_scale=2.0),),
        best=standing,
        seconds_left=250.0 if best else None,
    )


def test_a_line_says_stage_count_best_and_time() -> None:
    assert line(_event()) == "search: 212 of 600 evaluations; best trial 9: +0.42 [+0.10, +0.74] in-sample; 4:10 left"
    assert "held out" in line(_event(held_out=True))


def test_what_is_not_known_is_left_out() -> None:
    assert line(_event(best=False)) == "search: 212 of 600 evaluations"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00 left"), (61, "1:01 left"), (3720, "1:02:00 left")])
def test_time_reads_as_a_clock(seconds: float, text: str) -> None:
    assert left(seconds) == text


def test_plain_lines_come_with_each_stage_and_now_and_then() -> None:
    lines: list[str] = []
    now = iter([0.0, 1.0, 20.0, 20.0, 21.0])
    show = PlainLines(lines.append, clock=lambda: next(now))
    for done, stage in enumerate(["baseline", "baseline", "baseline", "cfg"]):
        show(_event(stage, done))
    assert [text.split(" of ")[0] for text in lines] == ["baseline: 0", "baseline: 2", "cfg: 3"]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=True) as show:
        show(_event())
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_plain_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=False) as show:
        show(_event())
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{line(_event())}\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_live_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm-256color")
    with watching(quiet=False) as show:
        show(_event())
    shown = terminal.getvalue()
    for part in ("212/600", "1/9", "4:10 left", "best trial 9: +0.42 [+0.10, +0.74] in-sample", "1 worker | CFG 2"):
        assert part in shown


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with watching(quiet=False) as show:
        show(_event())
    assert terminal.getvalue() == f"{line(_event())}\n"


def test_details_name_workers_and_settings() -> None:
    specs = tuple(GuidanceSpec(cfg_scale=float(scale)) for scale in range(1, 6))
    event = replace(_event(), workers=5, current=specs)
    assert details(event)[1] == "5 workers | CFG 1 | CFG 2 | CFG 3 | and 2 more"
    assert details(replace(_event(best=False), current=())) == ["1 worker"]


def test_a_search_tells_who_works_on_what() -> None:
    events: list[ProgressEvent] = []
    tracker = Tracker(events.append, None)
    one, two = GuidanceSpec(cfg_scale=1.0), GuidanceSpec(cfg_scale=2.0)
    tracker.working([one, one, two, two], 2)
    assert (events[-1].workers, events[-1].current) == (2, (one, two))
    for seed in range(2):
        tracker.evaluated(Evaluation(config=one.hash(), pair=Pair(prompt="a", seed=seed)), True)
    assert events[-1].current == (two,)
    assert json.loads(json.dumps(event_to_dict(events[-1])))["current"] == [two.to_dict()]
