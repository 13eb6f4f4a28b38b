"""``presets``: what lies around, what is in it, and whether it may be trusted."""

import json
import os
from pathlib import Path

import pytest

from stg_tune import models
from stg_tune.cli.main import main
from stg_tune.preset import Preset, from_result, save
from stg_tune.records import GuidanceSpec, Segment, SkipTerm
from stg_tune.search import snapshot


@pytest.fixture
def folder(tmp_path: Path, finished_run: Path) -> Path:
    """A preset with evidence, one written by hand, a broken one, and a JSON file of somebody else."""
    entry = models.entry("open-sora-tiny")
    earned = from_result(
        snapshot(finished_run), family="open-sora", checkpoint="embedded", generation=entry.defaults, date="2026-01-02"
    )
    term = SkipTerm(name="spatial", skip_layers={"spatial": (4,)}, skip_op="attention", stg_scale=0.5)
    by_hand = Preset(
        name="by hand",
        family="open-sora",
        model="open-sora-tiny",
        checkpoint="embedded",
        revision="",
        stacks=entry.depths,
        spec=GuidanceSpec(cfg_scale=2.0, segments=(Segment(terms=(term,)),)),
        generation=entry.defaults,
    )
    save(earned, tmp_path / "deep" / "earned.json")
    save(by_hand, tmp_path / "hand.json")
    (tmp_path / "broken.json").write_text('{"schema": "stg-tune/preset/1", "name": 3}')
    (tmp_path / "other.json").write_text('{"schema": "somebody/else"}')
    return tmp_path


def test_list_finds_presets_and_names_the_broken_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "list", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "earned.json" in out
    assert "attention of spatial 4 at 0.5" in out
    assert "not valid" in out
    assert "other.json" not in out


def test_list_as_json_carries_the_gain(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "list", str(folder), "--json"]) == 0
    gains = {Path(row["preset"]).name: row["gain"] for row in json.loads(capsys.readouterr().out)}
    assert gains["hand.json"] == "-"
    assert gains["earned.json"].startswith("+")


def test_a_pipe_in_the_folder_is_not_waited_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(folder / "pipe.json")
    assert main(["presets", "list", str(folder)]) == 0
    assert "pipe.json" not in capsys.readouterr().out


@pytest.mark.parametrize("given", ["mochi/published", "mochi/publishd", "/dev/zero", "../x.json", "none.json"])
def test_evaluate_takes_presets_as_every_command_does(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", "open-sora-tiny", "--suite", "t2v", "--out", str(tmp_path / "out")]
    assert main([*command, "--preset", given]) == 1
    says = {
        "mochi/published": "the preset mochi/published is for mochi-1",
        "mochi/publishd": "there is no preset 'mochi/publishd'",
        "/dev/zero": "larger than",
    }
    err = capsys.readouterr().err
    assert says.get(given, "cannot read preset") in err
    assert err.count("\n") == 1


def test_evaluate_refuses_two_presets_of_one_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--model", "open-sora-tiny", "--suite", "t2v", "--out", str(folder / "out")]
    twice = ["--preset", str(folder / "hand.json"), "--preset", str(folder / "hand.json")]
    assert main([*command, *twice]) == 1
    assert "two presets are called hand" in capsys.readouterr().err


def test_an_empty_folder_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "list", str(tmp_path)]) == 0
    assert "no presets in" in capsys.readouterr().out


def test_show_tells_setting_and_evidence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", str(folder / "deep" / "earned.json")]) == 0
    out = capsys.readouterr().out
    assert "STG's part" in out
    assert "guard         motion at_least_fraction 0.7: " in out
    assert "], allowed at least +0.7" in out
    assert "2026-01-02" in out
    assert "temporal_lpips" in out
    assert main(["presets", "show", str(folder / "hand.json")]) == 0
    assert "evidence      none" in capsys.readouterr().out


def test_validate_says_valid_and_what_to_know(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "validate", str(folder / "deep" / "earned.json"), str(folder / "hand.json")]) == 0
    out = capsys.readouterr().out
    assert out.count(": valid") == 2
    assert "it has no evidence" in out
    assert main(["presets", "validate", str(folder / "broken.json")]) == 1


def test_a_layer_that_does_not_exist_is_one_message(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads((folder / "hand.json").read_text())
    data["guidance"]["segments"][0]["terms"][0]["skip_layers"] = {"spatial": [99]}
    (folder / "far.json").write_text(json.dumps(data))
    for command in (["presets", "validate"], ["generate", "--model", "open-sora-tiny", "--prompt", "a", "-o", "a.mp4"]):
        arguments = [*command, *(["--preset"] if command[0] == "generate" else []), str(folder / "far.json")]
        assert main(arguments) == 1
        err = capsys.readouterr().err
        assert "no layer 99; allowed: 0 to 7" in err
        assert err.count("\n") == 1


def test_published_presets_are_listed_where_no_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["presets", "list"]) == 0
    assert "mochi/published" in capsys.readouterr().out
    assert main(["presets", "list", str(tmp_path)]) == 0
    assert "mochi/published" not in capsys.readouterr().out


def test_a_published_preset_shows_source_and_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", "wan/official"]) == 0
    out = capsys.readouterr().out
    assert "from_guided" in out
    assert "STGuidance" in out
    assert "effective CFG is 15" in out
    assert main(["presets", "validate", "mochi/published"]) == 0
    assert main(["presets", "show", "mochi/nothing"]) == 1
    assert "mochi/published" in capsys.readouterr().err


def test_diff_names_the_fields_and_says_whether_they_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "diff", "mochi/published", "mochi/layer-35"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "guidance.segments[0].terms.blocks.skip_layers.blocks: [34] -> [35]"
    assert lines[-1] == "the results differ"
    data = json.loads((Path(__file__).parents[2] / "stg_tune/preset/published/mochi.published.json").read_text())
    (tmp_path / "renamed.json").write_text(json.dumps({**data, "name": "renamed"}))
    assert main(["presets", "diff", "mochi/published", str(tmp_path / "renamed.json")]) == 0
    assert capsys.readouterr().out.splitlines() == ["name: mochi/published -> renamed", "the results are the same"]
    assert main(["presets", "diff", "mochi/published", "mochi/published", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
