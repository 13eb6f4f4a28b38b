"""From a run to what is shown: every number on the page is the search's own."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from statistics import fmean

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.export import export
from stg_tune.folder import RunFolder
from stg_tune.models import entry
from stg_tune.outcome import comparison, filmed_pairs, filmed_settings, findings_of, look, provenance, report
from stg_tune.outcome.page import _clips, _exports
from stg_tune.preset import from_result, open_preset
from stg_tune.preset import save as save_preset
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.report.facts import history_facts, layer_facts
from stg_tune.search import WarmStart, snapshot
from stg_tune.search.race import Heat
from stg_tune.search.result import SearchResult
from stg_tune.search.stored import rows_of
from stg_tune.vote import Vote, VoteFile


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


def test_warnings_are_given_only_where_there_is_reason(finished_run: Path, stopped_run: Path) -> None:
    result = snapshot(finished_run)
    said = " ".join(findings_of(result).warnings)
    assert "failed" not in said
    assert "not finished" not in said
    worse = replace(result, failures=3, plan=replace(result.plan, search_pairs=_with_prompt_of_holdout(result)))
    said = " ".join(findings_of(worse).warnings)
    assert f"3 of {result.spent} evaluations failed" in said
    assert "share prompts" in said
    assert "not finished" in " ".join(findings_of(snapshot(stopped_run)).warnings)
    few = replace(result.race, verdict=replace(result.verdict, warning="3 prompts are few"))
    assert "3 prompts are few." in findings_of(replace(result, race=few)).warnings


def _with_prompt_of_holdout(result: SearchResult) -> tuple[Pair, ...]:
    shared = Pair(prompt=result.plan.holdout_pairs[0].prompt, seed=987654)
    return (*result.plan.search_pairs[1:], shared)


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


def test_what_else_was_filmed_is_shown_beside(finished_run: Path) -> None:
    result, folder = snapshot(finished_run), RunFolder.open(finished_run)
    (folder.path / "videos").mkdir(exist_ok=True)
    cfg = replace(result.verdict, best_cfg=GuidanceSpec(cfg_scale=4.5))
    known = replace(result, race=replace(result.race, verdict=cfg, finalists=(), heats=()))
    pair = filmed_pairs(result.plan)[0]
    for spec in (result.verdict.winner, cfg.best_cfg):
        folder.clip(pair, f"tuned-{spec.hash()}").write_bytes(b"film")
    folder.clip(pair, "default").write_bytes(b"film")
    (clip,) = _clips(folder, known)
    assert dict(clip.others) == {"CFG alone": folder.clip(pair, f"tuned-{cfg.best_cfg.hash()}")}


def test_a_default_that_is_the_best_cfg_is_filmed_once(finished_run: Path) -> None:
    result = snapshot(finished_run)
    race = replace(result.race, verdict=replace(result.verdict, best_cfg=result.plan.baseline), finalists=(), heats=())
    result = replace(result, race=race)
    assert list(filmed_settings(result)) == ["default", "tuned"]
    papers = {name: GuidanceSpec(cfg_scale=9 + number) for number, name in enumerate("abc")}
    plan = replace(result.plan, published={**papers, "a": result.plan.baseline})
    many = filmed_settings(replace(result, plan=plan))
    assert list(many) == ["default", "tuned", "published: b"]


def test_effects_over_the_steps_are_those_of_the_winner(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    copytree(finished_run, folder)
    data = {"config": snapshot(folder).verdict.winner.hash(), "terms": {"spatial": [0.1, None, 0.3]}}
    (folder / "effects.json").write_text(json.dumps(data))
    assert look(folder).effect_steps == {"spatial": (0.1, None, 0.3)}


def test_pairs_say_what_the_verdict_says(finished_run: Path) -> None:
    """The verdict was computed by the search; here it comes again from the stored rows."""
    result, findings = snapshot(finished_run), look(finished_run)
    assert len(findings.prompts) == result.verdict.gain.pairs == len(result.race.confirm)
    assert fmean(pair.gain for pair in findings.prompts) == pytest.approx(result.verdict.gain.mean)
    for item in result.verdict.scorers:
        tuned = fmean(pair.scores[item.name][1] for pair in findings.prompts)
        assert tuned == pytest.approx(item.value)
        assert fmean(pair.scores[item.name][0] for pair in findings.prompts) == pytest.approx(item.baseline)


def test_arms_are_tuned_and_cfg_on_the_same_pairs(finished_run: Path) -> None:
    result, findings = snapshot(finished_run), look(finished_run)
    arms = {arm.name: arm for arm in findings.arms}
    assert arms["tuned"].gain.mean == result.verdict.gain.mean
    assert arms["tuned"].scorers.keys() == {item.name for item in result.verdict.scorers}
    assert ("CFG alone" in arms) == (result.verdict.cfg_gain is not None)


def test_published_settings_are_compared_on_pairs_that_did_not_choose_them(published_run: Path) -> None:
    result, findings = snapshot(published_run), look(published_run)
    (spec,) = findings.published.values()
    (arm,) = [arm for arm in findings.arms if arm.name == "published: paper"]
    assert arm.spec == spec
    raced = {pair.key for heat in result.race.heats if "published: paper" in heat.standing for pair in heat.pairs}
    assert raced
    assert arm.gain.pairs == result.division.search_pairs + len(raced)
    assert arm.gain.low > 0
    weighed = [name for name, weight in result.plan.space.objective.weights.items() if weight > 0]
    assert {name: round(arm.scorers[name].mean, 1) for name in weighed} == dict.fromkeys(weighed, 1.0)
    trial = next(trial for trial in findings.trials if trial.stage == "published")
    assert (trial.cost, trial.motion) == (20 / 16, 1.0)


def test_guards_come_with_their_intervals(finished_run: Path) -> None:
    findings = findings_of(snapshot(finished_run))
    assert {guard.state for guard in findings.guards} == {"holds"}
    assert any(guard.name.startswith("motion") and guard.value.low <= guard.value.mean for guard in findings.guards)
    assert findings.broken == ()


def test_the_vote_is_in_the_report(finished_run: Path, tmp_path: Path) -> None:
    result = snapshot(finished_run)
    tuned = f"tuned-{result.verdict.winner.hash()}"
    folder = tmp_path / "copy"
    copytree(finished_run, folder)
    votes = VoteFile(folder / "votes.json")
    for number, choice in enumerate(("b", "b", "tie", "a", "b")):
        pair = result.plan.holdout_pairs[number]
        words = {"voter": "<i>Ann</i>", "pair": pair.key, "prompt": pair.prompt, "seed": pair.seed}
        vote = Vote(
            **words, a="default", b=tuned, question="prompt", choice=choice, left="a", time="2026-01-01T00:00:00Z"
        )
        votes.cast(vote, {"default": "CFG 2", tuned: "tuned"})
    (ballot,) = look(folder).votes
    assert (ballot.aspect, ballot.wins, ballot.ties, ballot.losses, ballot.rate) == ("prompt match", 3, 1, 1, 0.7)
    assert ballot.low < 0.5 < ballot.high
    assert "Blind vote" in report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "some"), [("mochi/published", True), ("ltx/13b-dev", True), ("open-sora", False)])
def test_exports_name_only_tools_that_can_carry_the_preset(name: str, *, some: bool) -> None:
    preset = open_preset(name if some else "mochi/published")
    commands = [command for _, command in _exports(preset if some else replace(preset, family=name))]
    assert bool(commands) == some
    for command in commands:
        words = command.split()
        made = export(preset, words[words.index("--to") + 1], lossy="--lossy" in words)
        assert made.text
        assert bool(made.losses) == ("--lossy" in words)


def test_the_preset_of_the_run_is_on_its_page(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    copytree(finished_run, folder)
    result = snapshot(folder)
    made = from_result(result, family="open-sora", checkpoint="embedded", generation=entry("open-sora-tiny").defaults)
    save_preset(made, folder / "preset.json")
    findings = look(folder)
    assert findings.preset == made.to_dict()
    assert all(command.startswith("stg-tune export preset.json --to ") for _, command in findings.exports)


def test_runs_are_compared_on_one_page(finished_run: Path, stopped_run: Path, tmp_path: Path) -> None:
    page = comparison([finished_run, stopped_run], tmp_path / "both.html").read_text(encoding="utf-8")
    assert "open-sora-tiny #2" in page
    assert "Not finished" in page


def test_a_stopped_run_has_a_report_too(stopped_run: Path) -> None:
    assert "Not finished" in report(stopped_run).read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(StgTuneError, match=r"no run\.json"):
        report(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(StgTuneError, match="schema"):
        report(tmp_path)


def test_finalists_that_came_next_are_filmed_too(finished_run: Path) -> None:
    result = snapshot(finished_run)
    spare = [GuidanceSpec(cfg_scale=11.0 + number) for number in range(4)]
    winner, first = result.race.winner, result.race.finalists[0]
    others = [
        replace(first, name=f"trial 9{number}", in_sample=replace(first.in_sample, spec=spec))
        for number, spec in enumerate(spare)
    ]
    names = [item.name for item in others]
    heats = (
        Heat(pairs=(), standing=dict.fromkeys((winner.name, *names[::-1]), 0.1), dropped=tuple(names[:2])),
        Heat(pairs=(), standing=dict.fromkeys((winner.name, names[3], names[2]), 0.1), dropped=()),
    )
    race = replace(result.race, finalists=(winner, *others), heats=heats)
    filmed = filmed_settings(replace(result, race=race))
    assert {name: spec for name, spec in filmed.items() if name.startswith("finalist")} == {
        "finalist: trial 93": spare[3],
        "finalist: trial 92": spare[2],
    }
    assert list(filmed)[:2] == ["default", "tuned"]
    unfinished = filmed_settings(replace(result, race=None))
    assert unfinished == {}


def test_a_published_gain_owns_up_to_the_error_of_its_unit(published_run: Path) -> None:
    """With a gain of several deviations the interval is wider than that of the plain differences."""
    findings = look(published_run)
    (arm,) = [arm for arm in findings.arms if arm.name == "published: paper"]
    rows = [row for row in rows_of(published_run) if row.evaluation.config == arm.spec.hash()]
    confirm = {pair.key for pair in snapshot(published_run).race.confirm}
    prompts = [row.evaluation.pair.prompt for row in rows if row.evaluation.pair.key not in confirm]
    assert arm.gain.pairs == len(prompts)
    own = arm.scorers["aesthetic"]
    unit = own.mean / arm.gain.mean
    assert arm.gain.high - arm.gain.low > 1.5 * (own.high - own.low) / unit
    assert (arm.gain.conclusion, own.conclusion) == ("better", "")


def test_where_nothing_was_published_the_page_says_so(finished_run: Path, published_run: Path) -> None:
    result = snapshot(finished_run)
    assert "No published setting is known" in findings_of(result).published_note
    assert findings_of(snapshot(published_run)).published_note == ""
    tried = result.trials[0].measurement
    start = WarmStart(name="m", spec=tried.spec, why="w", source="mochi/published")
    never = WarmStart(name="n", spec=GuidanceSpec(cfg_scale=17.0), why="w", source="mochi/layer-35")
    own = WarmStart(name="o", spec=tried.spec, why="w", source="a preset given on the command line")
    space = replace(result.plan.space, warm_starts=(start, never, own))
    said = findings_of(replace(result, plan=replace(result.plan, space=space))).published_note
    gain = f"in-sample gain {tried.mean:+.2f} on {len(tried.deltas)} pairs"
    assert said.endswith(f"by relative depth: mochi/published ({gain}), mochi/layer-35 (not reached).")
