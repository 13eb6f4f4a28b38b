"""Options of the search that are refused before anything heavy begins, and what is offered without scorers' files."""

import re
import shlex
from pathlib import Path

import pytest

from stg_tune import models
from stg_tune.cli.main import main


@pytest.mark.parametrize("objective", ["speed", "cost=-1", "cost=much"])
def test_an_objective_that_means_nothing_is_one_message(
    objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["search", "--model", "open-sora-tiny", "--objective", objective, "--out", str(out)]) == 1
    message = capsys.readouterr().err
    assert f"objective {objective!r} is not understood; give quality, or cost=0.1" in message
    assert len(message.strip().splitlines()) == 1
    assert not out.exists()


def test_a_fidelity_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--model", "open-sora-tiny", "--fidelity", "half"]) == 2
    assert "'half'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["search", "--dry-run"], ["compare", "--preset", "cfg=3"]])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fast"], "leave out --fast"),
        (["--weights", "."], "leave out --weights"),
    ],
)
def test_options_for_files_that_the_model_does_not_need_are_refused(
    command: list[str], options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--model", "open-sora-tiny", *options]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", [["search"], ["compare", "--preset", "cfg=3"]])
@pytest.mark.parametrize("fast", [[], ["--fast"]])
def test_without_the_scorers_files_something_is_offered_that_works(
    command: list[str],
    fast: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(models, "fetch", lambda entry, path=None: None)  # the model's own files are another matter
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--model", "mochi", *fast, "--weights", ".", "--executor", "inline"]) == 1
    err = capsys.readouterr().err
    assert ("clip-vit-b-32.safetensors" if fast else "clip-vit-l-14.safetensors") in err
    assert "--scorers" not in err  # neither command has it
    assert not list(tmp_path.iterdir())
    (offered,) = re.findall(r"needs no files: stg-tune (.*)\.$", err.strip())
    if command == ["search"] and not fast:
        assert main([*shlex.split(offered), "--dry-run", "--json"]) == 0
