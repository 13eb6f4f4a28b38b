"""``show`` and ``report`` on runs in every state."""

import json
from pathlib import Path

import pytest

from stg_tune.cli.main import main


def test_a_finished_run_shows_verdict_and_scorers(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(finished_run)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("open-sora-tiny: finished, ")
    assert "open-sora-tiny gets better" in out
    assert "STG's own part" in out
    assert "temporal_lpips" in out
    assert "Score against layer" in out
    assert "best: 4" in out


def test_a_stopped_run_says_so_and_shows_the_best_so_far(stopped_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(stopped_run)]) == 0
    out = capsys.readouterr().out
    assert "interrupted" in out
    assert "Not finished" in out
    assert "Best so far, on the pairs that chose it" in out


def test_a_fruitless_run_says_so(fruitless_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(fruitless_run)]) == 0
    assert "No improvement found" in capsys.readouterr().out


@pytest.mark.parametrize(("run", "finished"), [("finished_run", True), ("stopped_run", False)])
def test_json_carries_the_evidence(
    run: str, finished: bool, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "--json", str(request.getfixturevalue(run))]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["finished"] is data["improved"] is finished
    assert (data["gain"] is not None) is finished
    assert data["evaluations"] > 0
    assert bool(data["guards"]) is finished
    for guard in data["guards"].values():
        assert guard["state"] == "holds"
        assert guard["value"]["low"] <= guard["value"]["mean"] <= guard["value"]["high"]
    assert (data["conclusion"], data["margin"]) == (("better", 0.2) if finished else (None, None))


def test_the_conclusion_and_its_reason_reach_the_user(fruitless_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stg_tune.search import snapshot

    verdict = snapshot(fruitless_run).verdict
    assert main(["show", "--json", str(fruitless_run)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["conclusion"], data["reason"]) == (verdict.conclusion, verdict.reason)
    assert data["stg_conclusion"] == verdict.stg_conclusion
    assert main(["show", str(fruitless_run)]) == 0
    out = capsys.readouterr().out
    assert verdict.reason[1:] in out
    assert all(f"Before you believe it: {warning}" in out for warning in data["warnings"])
    words = {"equivalent": "equivalent within ±0.2", "no worse": "no worse by more than 0.2", "worse": "get worse"}
    assert words.get(verdict.conclusion, verdict.conclusion) in out


def test_a_run_that_was_killed_has_no_last_word(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = finished_run / "state.json"
    kept = state.read_text(encoding="utf-8")
    try:
        state.write_text("{torn", encoding="utf-8")
        assert main(["show", str(finished_run)]) == 0
        assert "no state yet" in capsys.readouterr().out
    finally:
        state.write_text(kept, encoding="utf-8")


def test_report_writes_where_it_is_told(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "pages" / "page.html"
    assert main(["report", str(finished_run), "-o", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert "open-sora-tiny gets better" in target.read_text(encoding="utf-8")
