"""The command line says what is wrong in one message, and what to type."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stg_tune.cli.main import main

PROGRAM = "import sys; from stg_tune.cli.main import main; sys.exit(main(sys.argv[1:]))"


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 1) -> str:
    """Run a command that must fail with one line on standard error and nothing on standard output."""
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stg-tune: ")
    assert err.count("\n") == 1, err
    return err


def _search(*more: str) -> list[str]:
    return ["search", "--model", "open-sora-tiny", "--quiet", *more]


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "open-sora-tyni"],
        ["search", "--model", "open-sora-tyni"],
        ["generate", "--model", "open-sora-tyni", "--prompt", "a", "-o", "a.mp4"],
    ],
)
def test_a_wrong_model_name_gets_close_matches(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    err = _fails(arguments, capsys)
    assert "open-sora-tyni" in err
    assert "open-sora-tiny" in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("stacks: [unclosed", "not valid YAML"),
        ("schema: stg-tune/space/1\n", "missing field"),
        ("!!python/object/apply:os.system ['true']", "YAML"),
    ],
)
def test_a_broken_space_names_file_and_fault(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(content)
    err = _fails(_search("--space", str(space), "--out", str(tmp_path / "run")), capsys)
    assert "space.yaml" in err
    assert said in err
    assert not (tmp_path / "run").exists()


def test_layers_that_do_not_exist_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Path(__file__).parents[2] / "search_spaces" / "open-sora-tiny.yaml"
    space = tmp_path / "space.yaml"
    space.write_text(own.read_text(encoding="utf-8").replace("max_layers: 3", "max_layers: 300", 1))
    assert "300" in _fails(_search("--space", str(space)), capsys)


def test_a_missing_space_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in _fails(_search("--space", str(tmp_path / "no.yaml")), capsys)
    assert "open-sora-tiny" in _fails(_search("--space", "open-sora-tyni"), capsys)


@pytest.mark.parametrize("content", ["", "\n\n", "# only a remark\n"])
def test_a_prompts_file_without_prompts(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(content)
    err = _fails(_search("--prompts", str(prompts)), capsys)
    assert "prompts.txt holds no caption" in err


def test_a_missing_prompts_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in _fails(_search("--prompts", str(tmp_path / "no.txt")), capsys)


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "--out" in _fails(_search("--out", str(tmp_path / "file" / "run")), capsys)


def test_a_folder_that_holds_a_run(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"stg-tune resume {finished_run}" in _fails(_search("--out", str(finished_run)), capsys)


def test_a_budget_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "tomorrow" in _fails(_search("--budget", "tomorrow", "--out", str(tmp_path / "run")), capsys)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "other"}', "\x00"])
def test_a_preset_that_cannot_be_read(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = tmp_path / "preset.json"
    preset.write_text(content)
    film = str(tmp_path / "a.mp4")
    arguments = ["generate", "--model", "open-sora-tiny", "--preset", str(preset), "--prompt", "a", "-o", film]
    assert "preset.json" in _fails(arguments, capsys)
    assert "preset.json" in _fails(["presets", "validate", str(preset)], capsys)


@pytest.mark.parametrize("command", ["resume", "show", "status", "report"])
def test_a_folder_without_a_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run.json" in _fails([command, str(tmp_path)], capsys)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["-o", "a.avi"], "MP4"),
        (["-o", "a.mp4", "--steps", "0"], "--steps"),
        (["-o", "a.mp4", "--preset", "p.json", "--cfg-scale", "2"], "--cfg-scale"),
    ],
)
def test_arguments_that_make_no_sense_together(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in _fails(["generate", "--model", "open-sora-tiny", "--prompt", "a", *more], capsys)


def test_prompts_must_fit_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    err = _fails(["score", "a.mp4", "b.mp4", "c.mp4", "--prompt", "a", "--prompt", "b"], capsys)
    assert "2 prompts for 3 file(s)" in err


@pytest.mark.parametrize("arguments", [[], ["sing"], ["search"], ["models", "--colour"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage: stg-tune" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"]])
def test_help_is_exit_code_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "stg-tune" in capsys.readouterr().out


def test_models_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "open-sora-tiny" in capsys.readouterr().out
    assert main(["models", "open-sora-tiny", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["embedded"] is True
    assert set(entry["depths"]) == {"spatial", "temporal"}
    assert main(["models", "open-sora"]) == 0
    assert "blocks 0 to 27" in capsys.readouterr().out


def test_the_real_model_without_a_network_is_one_message(tmp_path: Path) -> None:
    """In a process of its own: the hub client reads its settings when it is imported."""
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "COLUMNS": "100"}
    command = [sys.executable, "-c", PROGRAM, "search", "--model", "open-sora", "--out", str(tmp_path / "run")]
    run = subprocess.run(command, capture_output=True, text=True, env=offline, cwd=tmp_path)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert run.stderr.count("stg-tune: ") == 1
    for word in ("OpenSora-STDiT-v3", "OpenSora-VAE-v1.2", "t5-v1_1-xxl", "--model-path"):
        assert word in run.stderr
    assert not (tmp_path / "run").exists()


def test_a_reader_that_leaves_early_is_no_error() -> None:
    program = f"{sys.executable} -c '{PROGRAM}' models --json | head -c 1"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", program], capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stderr == ""
