"""From a run to what is shown: every number on the page is the search's own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.outcome import filmed_pairs, findings_of, provenance, report
from stg_tune.report.facts import history_facts, layer_facts
from stg_tune.search import snapshot
from stg_tune.search.race import Heat


def test_a_finished_run_gives_its_verdict(finished_run: Path) -> None:
    result = snapshot(finished_run)
    findings = findings_of(result)
    assert findings.finished
    assert findings.improved
    assert findings.tuned_gain is not None
    assert findings.tuned_gain.mean == result.verdict.gain.mean
    assert findings.tuned_gain.low > 0
    assert findings.tuned == result.verdict.winner
    assert 4 in layer_facts(findings).chosen["spatial"]


def test_the_screen_finds_the_layer_that_helps(finished_run: Path) -> None:
    points = findings_of(snapshot(finished_run)).layers
    best = max(points, key=lambda point: point.gain)
    assert (best.stack, best.layer) == ("spatial", 4)
    assert all(point.pairs > 0 for point in points)


def test_every_configuration_comes_up_once(finished_run: Path) -> None:
    findings = findings_of(snapshot(finished_run))
    assert findings.trials[0].stage == "baseline"
    assert set(findings.trials[0].gains) == {0.0}
    specs = [trial.spec.hash() for trial in findings.trials if trial.stage == "search"]
    assert len(set(specs)) == len(specs)
    assert {"cfg", "search"} <= {trial.stage for trial in findings.trials}
    assert len(history_facts(findings)) == len([trial for trial in findings.trials if trial.gains])


def test_finalists_keep_in_sample_and_held_out_apart(finished_run: Path) -> None:
    result = snapshot(finished_run)
    first, *others = result.race.finalists
    heats = (
        Heat(pairs=(), standing={first.name: 0.7, **{other.name: 0.1 for other in others}}, dropped=()),
        Heat(pairs=(), standing={first.name: 0.5}, dropped=()),
    )
    finalists = findings_of(replace(result, race=replace(result.race, heats=heats))).finalists
    assert [finalist.held_out for finalist in finalists] == [0.5, *[0.1] * len(others)]
    assert [finalist.in_sample for finalist in finalists] == [item.in_sample.mean for item in result.race.finalists]
    without = findings_of(replace(result, race=replace(result.race, heats=()))).finalists
    assert {finalist.held_out for finalist in without} == {None}


def test_a_fruitless_run_claims_nothing(fruitless_run: Path) -> None:
    findings = findings_of(snapshot(fruitless_run))
    assert findings.finished
    assert not findings.improved


def test_a_stopped_run_shows_what_it_has(stopped_run: Path) -> None:
    findings = findings_of(snapshot(stopped_run))
    assert not findings.finished
    assert findings.tuned is None
    assert findings.scorers == ()
    assert findings.trials


def test_provenance_names_seed_versions_and_weights(finished_run: Path) -> None:
    facts = provenance(snapshot(finished_run))
    assert facts["seed"] == "0"
    assert facts["stg-tune"] == "0.1.0"
    assert facts["scorer temporal_lpips"] == "minimize, weights made up"
    assert "none in both" in facts["prompts"]


def test_filmed_pairs_were_never_evaluated(finished_run: Path) -> None:
    result = snapshot(finished_run)
    films = {pair.key for pair in filmed_pairs(result.plan)}
    used = {row.pair.key for trial in result.trials for row in trial.measurement.rows}
    assert len(films) == 8
    assert not films & used


def test_the_report_takes_clips_and_preset_that_are_there(finished_run: Path, tmp_path: Path) -> None:
    result, folder = snapshot(finished_run), RunFolder.open(finished_run)
    pair = filmed_pairs(result.plan)[0]
    kinds = ("default", f"tuned-{result.verdict.winner.hash()}")
    for path in (folder.clip(pair, kind) for kind in kinds):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"film")
    page = report(finished_run, tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<video") == 2
    assert pair.prompt in page


def test_a_stopped_run_has_a_report_too(stopped_run: Path) -> None:
    assert "Not finished" in report(stopped_run).read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(StgTuneError, match=r"no run\.json"):
        report(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(StgTuneError, match="schema"):
        report(tmp_path)
