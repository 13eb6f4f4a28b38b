"""The rules of the house that no linter knows: homes of third parties, size of files, README in step with the code."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stg_tune"
SOURCES = sorted(PACKAGE.rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

HOMES = {
    "diffusers": ("models", "embedded"),
    "transformers": ("models", "embedded", "score"),
    "optuna": ("search",),
    "sqlalchemy": ("search",),
    "ray": ("search",),
    "plotly": ("report",),
    "rich": ("cli",),
    "av": ("video.py",),
    "open_clip": ("score", "embedded"),
    "lpips": ("score", "embedded"),
    "sklearn": ("embedded",),
    "yaml": ("search", "export"),
    "jsonschema": ("documents.py",),
}
"""Third party -> the only parts of the package that may import it."""

LIGHT = """
import sys, time
began = time.process_time()
{code}
print(round(time.process_time() - began, 3))
heavy = {{"torch", "ray", "optuna", "plotly", "diffusers", "transformers", "sqlalchemy", "av"}}
print(*sorted(heavy & set(sys.modules)))
"""


def _imports(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _part(source: Path) -> str:
    return source.relative_to(PACKAGE).parts[0]


def _run_light(code: str) -> tuple[float, list[str]]:
    """Seconds of processor time (a busy machine must not fail the test) and the heavy modules that were loaded."""
    command = [sys.executable, "-c", LIGHT.format(code=code)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return float(lines[-2]), lines[-1].split()


def _commands() -> list[str]:
    """The commands that README shows the help of."""
    return re.findall(r"^\$ stg-tune (\w+) --help$", README, flags=re.MULTILINE)


def test_every_third_party_has_one_home() -> None:
    strays = [
        f"{source.relative_to(ROOT)} imports {name}"
        for source in SOURCES
        for name in _imports(source)
        if _part(source) not in HOMES.get(name.partition(".")[0], (_part(source),))
    ]
    assert strays == []


def test_a_stray_import_would_be_seen(tmp_path: Path) -> None:
    stray = tmp_path / "stray.py"
    stray.write_text("def f():\n    from plotly.io import to_html\n    import ray.data as data\n")
    assert list(_imports(stray)) == ["plotly.io", "ray.data"]


def test_jaxtyping_is_never_imported_at_run_time() -> None:
    users = [source.name for source in SOURCES if "jaxtyping" in {name.partition(".")[0] for name in _imports(source)}]
    assert users == []


@pytest.mark.parametrize("folder", ["stg_tune", "tests"])
def test_no_file_is_longer_than_400_lines(folder: str) -> None:
    lengths = {source: source.read_text(encoding="utf-8").count("\n") for source in (ROOT / folder).rglob("*.py")}
    assert {str(source.relative_to(ROOT)): length for source, length in lengths.items() if length > 400} == {}


def test_functions_are_short() -> None:
    lengths = sorted(
        node.end_lineno - node.lineno + 1 - _docstring_lines(node)
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno
    )
    assert lengths[len(lengths) // 2] < 12
    assert lengths[len(lengths) * 9 // 10] <= 40


def _docstring_lines(node: ast.FunctionDef) -> int:
    first = node.body[0]
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return (first.end_lineno or first.lineno) - first.lineno + 1 if is_text else 0


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert [source.name for source in SOURCES if source.stem in ("utils", "util", "helpers", "misc", "common")] == []


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError")
    assert [source.name for source in SOURCES if marks.search(source.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("module", ["records", "search", "preset", "report", "documents"])
def test_the_torch_free_parts_load_no_torch(module: str) -> None:
    _, heavy = _run_light(f"import stg_tune.{module}")
    assert not {"torch", "diffusers", "transformers", "av"} & set(heavy)


@pytest.mark.parametrize(
    "code",
    [
        "import stg_tune",
        "import stg_tune.cli.main as cli; cli.main(['--help'])",
        "import stg_tune.cli.main as cli; cli.main(['search', '--help'])",
        "import stg_tune.cli.main as cli; cli.main(['models'])",
        "import stg_tune.cli.main as cli; cli.main(['models', 'open-sora-tiny'])",
        "import stg_tune.cli.main as cli; cli.main(['models', 'open-sora-tyni'])",
    ],
)
def test_what_must_answer_at_once_loads_nothing_heavy(code: str) -> None:
    seconds, heavy = _run_light(code)
    assert heavy == []
    assert seconds < 1


def test_a_heavy_import_would_be_seen() -> None:
    assert _run_light("import plotly")[1] == ["plotly"]


def test_readme_shows_help() -> None:
    assert "search" in _commands()


@pytest.mark.parametrize("command", _commands())
def test_help_in_readme_is_what_the_program_says(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    program = "import sys; from stg_tune.cli.main import main; sys.exit(main(sys.argv[1:]))"
    run = subprocess.run([sys.executable, "-c", program, command, "--help"], capture_output=True, text=True, check=True)
    assert f"$ stg-tune {command} --help\n{run.stdout.rstrip()}\n```" in README


def test_every_command_is_in_readme() -> None:
    from stg_tune.cli.main import COMMANDS

    names = {command.__name__.rpartition(".")[2] for command in COMMANDS}
    assert [name for name in names if f"stg-tune {name}" not in README] == []


def test_readme_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert [target for target in targets if not (ROOT / target).exists()] == []
