"""``export`` and ``import``: files for other tools, and what is said about them."""

import json
from pathlib import Path

import pytest

from stg_tune.cli.main import main
from stg_tune.export import target_names
from stg_tune.preset import find_published, load


def test_list_shows_every_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--list"]) == 0
    out = capsys.readouterr().out
    assert [name for name in target_names() if f"\n{name} " not in out] == []
    assert main(["export", "--list", "--json"]) == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)] == target_names()


def test_to_standard_output_nothing_but_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "mochi/published", "--to", "diffusers"]) == 0
    made = capsys.readouterr()
    assert json.loads(made.out)["_class_name"] == "SkipLayerGuidance"
    assert "note: diffusers never skips in step 0" in made.err


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, back = tmp_path / "new" / "slg.json", tmp_path / "back.json"
    assert main(["export", "wan/slg-14b", "--to", "wanvideowrapper", "-o", str(out)]) == 0
    assert "goes into a workflow in API format" in capsys.readouterr().out
    arguments = ["--from", "wanvideowrapper", "--like", "wan/slg-14b", "--name", "mine", "-o", str(back)]
    assert main(["import", str(out), *arguments]) == 0
    assert load(back).name == "mine"
    assert load(back).spec.hash() == find_published("wan/slg-14b").spec.hash()


def test_a_loss_is_refused_and_then_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "wan/community", "--to", "kjnodes", "-o", str(tmp_path / "a.json")]
    assert main(command) == 1
    err = capsys.readouterr().err
    assert "the scale 1 is lost" in err
    assert "add --lossy" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "a.json").exists()
    assert main([*command, "--lossy"]) == 0
    assert "lost: it perturbs the negative prediction" in capsys.readouterr().err
    assert (tmp_path / "a.json").exists()


def test_steps_and_sigmas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "ltx/13b-dev", "--to", "ltx-video", "--steps", "40"]
    assert main(command) == 1
    assert "add --sigmas" in capsys.readouterr().err
    assert main([*command, "--sigmas", "linear-quadratic"]) == 0
    assert "num_inference_steps: 40" in capsys.readouterr().out
    assert main([*command, "--sigmas", "1,0.5"]) == 1
    assert "2 entries, but there are 40 steps" in capsys.readouterr().err


def test_a_model_in_place_of_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "guider_config.json"
    file.write_text(
        json.dumps({"_class_name": "SkipLayerGuidance", "skip_layer_config": [{"indices": [1], "fqn": "x"}]})
    )
    assert main(["import", str(file), "--from", "diffusers", "--model", "open-sora-tiny"]) == 1
    assert "there are no blocks at fqn 'x' in open-sora" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export"], "give a preset and a target"),
        (["export", "mochi/published"], "give a preset and a target"),
        (["export", "mochi/publshed", "--to", "diffusers"], "mochi/published"),
        (["export", "mochi/published", "--to", "diffuser"], "did you mean diffusers"),
        (["export", "mochi/published", "--to", "diffusers", "--steps", "0"], "--steps must be from 1"),
        (["import", "none.json", "--from", "wan2gp", "--like", "wan/slg-14b"], "cannot read wan2gp file none.json"),
        (["import", "none.json", "--from", "diffusers-python", "--like", "wan/slg-14b"], "none.json"),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("file", ["/dev/zero", ".", "none.json"])
def test_a_file_that_is_none_is_one_message(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["import", file, "--from", "wan2gp", "--like", "wan/slg-14b"],
        ["import", "none.json", "--from", "wan2gp", "--like", file],
        ["export", file, "--to", "wan2gp"],
    ):
        assert main(command) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_a_schedule_must_be_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    for sigmas in ("nan", "inf", "1e999", "uniform:nan", "uniform:inf", "-1"):
        assert main(["export", "ltx/published", "--to", "ltx-video", "--steps", "1", f"--sigmas={sigmas}"]) == 1, sigmas
        assert "sigmas" in capsys.readouterr().err


def test_a_python_file_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text("raise SystemExit")
    assert main(["import", str(tmp_path / "a.py"), "--from", "diffusers-python", "--like", "mochi/published"]) == 1
    assert "export only" in capsys.readouterr().err
