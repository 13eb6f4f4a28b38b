"""The pages are true: Python runs, commands parse, cheap ones run, links lead somewhere, the reference is in step."""

import ast
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stg_tune.cli.examples import EXAMPLES
from stg_tune.cli.main import main, parser
from stg_tune.cli.reference import COLUMNS, reference, renewed
from stg_tune.cli.tree import is_group, walk
from stg_tune.export import targets
from stg_tune.models.families import FAMILIES
from stg_tune.preset import published_names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^(?P<why><!-- not run: (?P<reason>.+?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
"""A block of code, and the remark that keeps it from being run."""

Names = dict[str, Any]

NUMBERS = {15: "Fifteen", 16: "Sixteen", 17: "Seventeen", 18: "Eighteen", 19: "Nineteen", 20: "Twenty"}
"""Families, those of diffusers and our own."""

LEFT_OUT = {
    "docs/models/open-sora.md": "needs the published weights",
}
"""Pages whose Python is compiled only, and why; single blocks say so in the page."""

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
RUN = {
    page: [block for block in PYTHON if block.page == page and not block.reason]
    for page in dict.fromkeys(block.page for block in PYTHON)
    if page not in LEFT_OUT
}
"""Page -> its blocks, which run one after the other in the same folder and with the same names."""


def _readme() -> Names:
    """A finished run: its preset is one that is committed."""
    demo = Path("runs/demo")
    demo.mkdir(parents=True)
    shutil.copy(ROOT / "results" / "presets" / "open-sora-tiny-seed1.json", demo / "preset.json")
    return {}


def _presets() -> Names:
    """A preset of the reader."""
    from stg_tune.preset import find_published, save

    save(find_published("mochi/layer-35"), "mine.json")
    return {}


def _guidance() -> Names:
    """A pipeline of the reader with more than twenty blocks; random weights, because those of the real ones are zero at
    the start, where no block does anything."""
    import torch

    from stg_tune import models
    from stg_tune.models.open_sora.transformer import STDiT3

    pipe = models.load(models.entry("open-sora-tiny"))
    known = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
    torch.manual_seed(0)
    deep = STDiT3(**known | {"depth": 21}).eval()
    for weight in deep.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    pipe.transformer = deep
    pipe.set_progress_bar_config(disable=True)
    return {"pipe": pipe}


def _add_a_model() -> Names:
    """The file that the record is added to has these."""
    from stg_tune.models.base import Architecture, Stack

    return {"Architecture": Architecture, "Stack": Stack}


def _guided_a_video(names: Names) -> None:
    assert all(effect > 0 for effect in names["run"].effects().values())
    assert names["video"] is not None


def _lists_what_is_published(names: Names) -> None:
    from stg_tune.preset import published

    said = re.search(r'published\("(\w+)"\)\] +# (\[.*\])', names["__text__"])
    assert said is not None
    assert ast.literal_eval(said[2]) == [preset.name for preset in published(said[1])]


def _passes_its_own_checks(names: Names) -> None:
    (mark,) = names["test_redness"].pytestmark
    assert len(mark.args[1]) > 5
    for check in mark.args[1]:
        names["test_redness"](check)


def _made_a_guider(names: Names) -> None:
    assert names["guider"].guidance_scale == 5.0


def _made_the_record_of_the_package(names: Names) -> None:
    from stg_tune.models import families

    assert names["EASYANIMATE"] == families.EASYANIMATE


SCENES: dict[str, Callable[[], Names]] = {
    "README.md": _readme,
    "docs/guidance.md": _guidance,
    "docs/presets.md": _presets,
    "docs/models/add-a-model.md": _add_a_model,
}
"""Page -> puts into the working folder what the reader has there, and gives the names that the page takes for known."""

CHECKS: dict[str, Callable[[Names], None]] = {
    "README.md": _guided_a_video,
    "docs/exports.md": _made_a_guider,
    "docs/guidance.md": _guided_a_video,
    "docs/presets.md": _lists_what_is_published,
    "docs/scorers.md": _passes_its_own_checks,
    "docs/models/add-a-model.md": _made_the_record_of_the_package,
}
"""Page -> looks at the names that its blocks have left; ``__text__``: the blocks."""


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


@pytest.mark.parametrize("page", RUN)
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: Names = {"__name__": "docs", **SCENES.get(page, dict)()}
    for block in RUN[page]:
        exec(compile(block.text, _name(block), "exec"), names)
    if page in CHECKS:
        CHECKS[page](names | {"__text__": "".join(block.text for block in RUN[page])})


def test_every_page_that_is_not_run_says_why_and_is_there() -> None:
    pages = {block.page for block in PYTHON}
    assert LEFT_OUT.keys() <= pages
    assert {*SCENES, *CHECKS} <= RUN.keys() == pages - LEFT_OUT.keys()
    assert [page for page, blocks in RUN.items() if not blocks] == []
    assert {"README.md", "docs/quickstart.md", "docs/guidance.md", "docs/presets.md", "docs/scorers.md"} <= RUN.keys()


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


@pytest.mark.parametrize(
    ("page", "pattern", "count"),
    [
        ("README.md", r"\| (\d+) other tools", lambda: len(targets())),
        ("docs/faq.md", r"Presets go to (\d+) other tools", lambda: len(targets())),
        ("CHANGELOG.md", r"translate presets for (\d+) targets", lambda: len(targets())),
        ("README.md", r"and (\d+) published settings", lambda: len(published_names())),
        ("docs/faq.md", r"(\w+) families follow a specification", lambda: NUMBERS[len(FAMILIES) + 1]),
    ],
)
def test_what_a_page_counts_is_what_there_is(page: str, pattern: str, count: Callable[[], object]) -> None:
    (said,) = re.findall(pattern, (ROOT / page).read_text(encoding="utf-8"))
    assert said == str(count())
