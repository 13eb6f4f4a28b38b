"""The pages are true: Python runs, commands parse, cheap ones run, links lead somewhere, the reference is in step."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stg_tune.cli.examples import EXAMPLES
from stg_tune.cli.main import main, parser
from stg_tune.cli.reference import COLUMNS, reference, renewed
from stg_tune.cli.tree import is_group, walk

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^(?P<why><!-- not run: (?P<reason>.+?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
"""A block of code, and the remark that keeps it from being run."""

LEFT_OUT = {
    "README.md": "needs a finished run; tests/test_tune.py does the same",
    "docs/exports.md": "shows what an exporter writes; tests/export runs it",
    "docs/guidance.md": "names a pipeline of the reader; tests/guidance does the same",
    "docs/presets.md": "needs a preset of the reader",
    "docs/scorers.md": "belongs into a package of the reader; tests/score does the same",
    "docs/models/add-a-model.md": "a fragment of a record",
    "docs/models/open-sora.md": "needs the published weights",
}
"""Pages whose Python is compiled only, and why."""

CHEAP = (
    "models",
    "presets list",
    "presets show mochi/",
    "presets diff mochi/",
    "export --list",
    "export mochi/",
    "weights list",
    "score --list",
    "completion",
)
"""Beginnings of commands that are run: no model, no network, no run folder."""


class Block(NamedTuple):
    page: str
    line: int
    kind: str
    text: str
    reason: str


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("text")) + 1
            yield Block(str(page.relative_to(ROOT)), line, match["kind"], match["text"], match["reason"] or "")


BLOCKS = list(_blocks())
PYTHON = [block for block in BLOCKS if block.kind == "python"]
RUN = [block for block in PYTHON if not block.reason and block.page not in LEFT_OUT]


def _commands() -> Iterator[tuple[str, str]]:
    """Where, and the command line without prompt, remark and pipe; words after three spaces are a remark, too."""
    for block in BLOCKS:
        if block.kind in ("", "sh", "bash", "console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                command = re.split(r" {3,}|\s#|\s>\s|\s\|\s", line.removeprefix("$ "))[0].strip()
                if command.startswith("stg-tune "):
                    yield f"{block.page}:{block.line}", command.removeprefix("stg-tune ")


COMMANDS = list(_commands())


def _words(command: str) -> list[str]:
    """What may be left out is left out, and the first of several is taken."""
    chosen = re.sub(r"\{([^|,}]+)[^}]*\}", r"\1", command)
    return [word for word in shlex.split(chosen) if not re.fullmatch(r"\.\.\.|\[.*\]", word)]


def _name(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("block", PYTHON, ids=_name)
def test_python_compiles(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", RUN, ids=_name)
def test_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, _name(block), "exec"), {"__name__": "docs"})


def test_every_page_that_is_not_run_says_why_and_is_there() -> None:
    assert {block.page for block in RUN} == {"docs/quickstart.md", "docs/tune-your-own.md"}
    assert set(LEFT_OUT) <= {block.page for block in PYTHON}


@pytest.mark.parametrize(("place", "command"), COMMANDS, ids=lambda value: value[:60])
def test_every_command_is_one(place: str, command: str) -> None:
    status = 0
    try:
        parser().parse_args(_words(command))
    except SystemExit as stop:  # --help and --version end so, too
        status = stop.code
    assert status == 0, f"{place}: stg-tune {command}"


@pytest.mark.parametrize(
    "command", sorted({command for _, command in COMMANDS if command.startswith(CHEAP) and "/preset" not in command})
)
def test_cheap_commands_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(_words(command)) == 0


def test_the_pages_have_commands_to_check() -> None:
    pages = {place.partition(":")[0] for place, _ in COMMANDS}
    assert {"README.md", "docs/quickstart.md", "docs/tune-your-own.md", "docs/cli.md"} <= pages
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|mailto:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_reference_is_what_the_program_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", COLUMNS)
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(parser()), "type: python -m stg_tune.cli.reference"


def test_every_command_has_an_example_and_every_example_is_a_command() -> None:
    named = {" ".join(command.path) for command in walk(parser())}
    assert named == set(EXAMPLES)
    for name, lines in EXAMPLES.items():
        for line in lines:
            words = shlex.split(re.sub(r'^eval "\$\((.*)\)"$', r"\1", line))
            assert words[0] == "stg-tune"
            parser().parse_args(words[1:])
            assert name.split()[0] in words[1] or words[1] == "status"


def test_help_shows_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in walk(parser()):
        with pytest.raises(SystemExit):
            parser().parse_args([*command.path, "--help"])
        shown = capsys.readouterr().out
        assert all(f"  {line}\n" in shown for line in EXAMPLES[" ".join(command.path)])
        assert command.help[1:30] in shown


def test_help_in_a_page_is_made_anew() -> None:
    page = "before\n```\n$ stg-tune serve --help\nold\n```\nafter\n```\nold\n```\n"
    new = renewed(page, parser())
    assert "usage: stg-tune serve" in new
    assert new.startswith("before\n```\n$ stg-tune serve --help\n")
    assert new.endswith("```\nafter\n```\nold\n```\n")


def test_only_groups_have_no_arguments_of_their_own() -> None:
    assert {command.path for command in walk(parser()) if is_group(command.parser)} == {("presets",), ("weights",)}
