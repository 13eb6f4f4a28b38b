"""Completion in a real shell, and hints for misspelt words."""

import shutil
import subprocess
from pathlib import Path

import pytest

from stg_tune.cli.completion import bash, fish
from stg_tune.cli.main import main, parser
from stg_tune.cli.tree import walk

ASK = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_stg_tune
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("shell") / "completion.bash"
    file.write_text(bash(list(walk(parser()))))
    return file


def _complete(script: Path, words: str) -> list[str]:
    program = ASK.format(script=script, words=words)
    run = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    return run.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on this machine")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("stg-tune se", ["search", "serve"]),
        ("stg-tune search --bud", ["--budget"]),
        ("stg-tune search --model open-sora-t", ["open-sora-tiny"]),
        ("stg-tune search --executor i", ["inline"]),
        ("stg-tune presets ''", ["list", "show", "diff", "validate", "--help"]),
        ("stg-tune presets show --j", ["--json"]),
        ("stg-tune status runs/demo --j", ["--json"]),
        ("stg-tune models open-sora-t", ["open-sora-tiny"]),
        ("stg-tune completion f", ["fish"]),
        ("stg-tune vote nothing-like-this", []),
    ],
)
def test_bash_completes(script: Path, words: str, offered: list[str]) -> None:
    assert _complete(script, words) == offered


def test_every_command_and_option_is_known_to_fish() -> None:
    text = fish(list(walk(parser())))
    for word in ("-a search ", "-a status ", "-l budget", "-l ray-address", "-a 'ray inline'"):
        assert word in text
    assert text.count("'") % 2 == 0 or "\\'" in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert f"completion {shell}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["serach"], "did you mean search"),
        (["stauts", "runs/demo"], "did you mean status"),
        (["presets", "shwo"], "did you mean show"),
        (["search", "--model", "open-sora-tiny", "--bugdet", "3"], "did you mean --budget"),
        (["search", "--model", "open-sora-tiny", "--executor", "inlin"], "did you mean inline"),
    ],
)
def test_a_misspelt_word_gets_a_hint(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert hint in capsys.readouterr().err


def test_a_word_like_no_other_gets_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qqqqqq"]) == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["models", "open-sora-tyni"], "open-sora-tiny"),
        (["score", "a.mp4", "--scorers", "aestetic"], "aesthetic"),
        (["presets", "show", "mochi/publishd"], "mochi/published"),
        (["export", "mochi/published", "--to", "difusers"], "diffusers"),
        (["search", "--model", "open-sora-tiny", "--space", "open-sora-tyni", "--dry-run"], "open-sora-tiny"),
        (["evaluate", "--model", "open-sora-tiny", "--suite", "scale-curv"], "scale-curve"),
    ],
)
def test_a_misspelt_name_gets_close_matches(
    arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert name in capsys.readouterr().err
