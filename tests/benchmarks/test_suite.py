import json
from pathlib import Path

import pytest

from benchmarks.suite import FAULT_TESTS, PARTS, ROOT, Figure, Part, number_at, pytest_counts, run_suite, table

FACTS = {"date": "2026-01-01", "processor": "a", "commit": "c1"}


@pytest.fixture
def script(tmp_path):
    """A benchmark that counts how often it was run, and one that fails."""
    (tmp_path / "count.py").write_text(
        "import json, pathlib, sys\n"
        "seen = pathlib.Path('seen'); seen.write_text(seen.read_text() + '.' if seen.exists() else '.')\n"
        "text = json.dumps({'rows': [{'runs': len(seen.read_text())}]})\n"
        "pathlib.Path(sys.argv[1]).write_text(text) if len(sys.argv) > 1 else print('noise\\n' + text)\n"
    )
    (tmp_path / "fail.py").write_text("raise SystemExit('no such luck')\n")
    return tmp_path


def part(name, *command, **fields):
    return Part(name=name, command=command, figures=(Figure(label="runs", at="rows.0.runs", better="more"),), **fields)


def test_a_run_is_recorded_compared_and_resumed(script):
    parts = [part("file", "count.py", "{out}"), part("printed", "count.py"), part("broken", "fail.py")]
    absent = part("absent", "gone.py", needs="gone.py")
    whole = [*parts, absent]
    first = run_suite(whole, script / "out", FACTS, script, whole)
    data = json.loads(first.read_text())
    assert (data["finished"], data["machine"]) == (True, FACTS)
    assert data["parts"]["file"]["result"] == {"rows": [{"runs": 1}]}
    assert data["parts"]["printed"]["result"] == {"rows": [{"runs": 2}]}
    assert data["parts"]["broken"]["error"] == "exit code 1: no such luck"
    assert data["parts"]["absent"]["error"] == "gone.py is not there"
    assert "| absent | failed: gone.py is not there |" in (script / "out" / "README.md").read_text()
    data["finished"] = False
    del data["parts"]["printed"]
    first.write_text(json.dumps(data))
    assert run_suite(parts, script / "out", FACTS, script, whole) == first
    assert json.loads(first.read_text())["parts"]["printed"]["result"] == {"rows": [{"runs": 3}]}


def test_an_unfinished_run_of_other_code_is_left_alone(script):
    old = script / "out" / "runs" / "2000-01-01-000000.json"
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({"finished": False, "machine": FACTS, "parts": {}}))
    parts = [part("printed", "count.py")]
    new = run_suite(parts, script / "out", {**FACTS, "commit": "c2"}, script, parts)
    assert new != old
    assert json.loads(old.read_text())["parts"] == {}


def test_the_table_compares_with_the_run_before(tmp_path):
    for name, runs in (("2026-01-01-000000", 4), ("2026-01-02-000000", 5)):
        found = {"finished": True, "machine": FACTS, "parts": {"p": {"result": {"rows": [{"runs": runs}]}}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    assert "| p | runs | 5 | 4 | +25.0% | more |" in table(tmp_path, [part("p")])


def test_a_chosen_part_neither_ends_a_run_nor_takes_the_others_from_the_table(script):
    whole = [part("file", "count.py", "{out}"), part("printed", "count.py")]
    first = run_suite(whole, script / "out", FACTS, script, whole)
    first = first.rename(first.with_name("2000-01-01-000000.json"))
    later = run_suite(whole[:1], script / "out", {**FACTS, "commit": "c2"}, script, whole)
    assert (json.loads(first.read_text())["finished"], json.loads(later.read_text())["finished"]) == (True, False)
    shown = (script / "out" / "README.md").read_text()
    assert "| file | runs | 3 | 1 |" in shown
    assert "| printed | runs | 2 | - |" in shown


def test_a_benchmark_that_says_nothing_is_a_failure(script):
    (script / "quiet.py").write_text("")
    parts = [part("quiet", "quiet.py")]
    made = run_suite(parts, script / "out", FACTS, script, parts)
    assert json.loads(made.read_text())["parts"]["quiet"]["error"] == "it wrote no JSON: ''"


def test_numbers_are_found_or_not():
    data = {"a": [{"b": 2}], "c": "text"}
    assert number_at(data, "a.0.b") == 2.0
    assert [number_at(data, at) for at in ("a.1.b", "a.x", "c", "d.e")] == [None] * 4


def test_what_pytest_says():
    assert pytest_counts("....\n31 passed, 2 skipped in 4.1s") == {"passed": 31, "failed": 0, "skipped": 2}
    assert pytest_counts("1 failed, 3 passed in 1s")["failed"] == 1
    assert pytest_counts("no tests ran") == {}


def test_every_part_is_there():
    assert len({item.name for item in PARTS}) == len(PARTS)
    for item in PARTS:
        script = item.command[0] if item.command[0] != "-m" else f"{item.command[1].replace('.', '/')}.py"
        assert item.needs or script == "pytest.py" or (ROOT / script).is_file(), item.name
    assert all((ROOT / "tests" / "search" / name).exists() for name in FAULT_TESTS)
    assert "benchmarks.suite" in (Path(ROOT) / "Makefile").read_text()
