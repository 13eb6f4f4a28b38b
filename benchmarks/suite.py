"""All benchmarks in one go, about two hours on two cores: ``make bench``.

    python -m benchmarks.suite                        # goes on with an unfinished run of today's code, else begins one
    python -m benchmarks.suite --only engine_overhead scorers

Each run is one file, ``results/benchmarks/runs/DATE-TIME.json``: hardware, versions, and what each part found. A part
that fails is recorded with its message and does not stop the others. ``results/benchmarks/README.md`` holds the chosen
numbers of the last run beside those of the run before it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]
SCHEMA = "stg-tune/benchmarks/1"
FAULT_TESTS = (
    *("test_kill.py", "test_inflight.py", "test_full_disk.py", "test_patience.py", "test_lock.py", "test_storage.py"),
    *("test_postgresql.py", "workers"),
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of a part that the table shows."""

    label: str
    """What it is, with its unit."""
    at: str
    """Where: keys and list indices with dots between them."""
    better: str = ""
    """``more``, ``less`` or nothing."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One benchmark."""

    name: str
    """In the file and on the command line."""
    command: tuple[str, ...]
    """Arguments for Python; ``{out}`` is where it writes JSON, else its last line of output is taken."""
    result: str = ""
    """The file below ``{out}``, when that is a folder."""
    needs: str = ""
    """A file without which the part is left out."""
    minutes: float = 10.0
    """After four times as many it is ended."""
    figures: tuple[Figure, ...] = ()
    """What the table shows."""


def _figures(*rows: tuple[str, str, str]) -> tuple[Figure, ...]:
    return tuple(Figure(label=label, at=at, better=better) for label, at, better in rows)


PARTS = (
    Part(
        name="guidance",
        command=("benchmarks/guidance.py", "--repetitions", "3", "--out", "{out}"),
        minutes=15,
        figures=_figures(
            ("one skip with prefix reuse over three full rows, first model", "rows.0.ratio_to_three_rows", "less"),
            ("overhead of a term at scale 0, first model", "rows.0.overhead_at_scale_0", "less"),
        ),
    ),
    Part(
        name="engine_alone",
        command=("benchmarks/engine.py", "overhead", "--seconds", "1", "--evaluations", "150"),
        figures=_figures(("wall time over that of evaluations of 1 s in one process, less 1", "overhead", "less")),
    ),
    Part(
        name="engine_overhead",
        command=(
            *("benchmarks/engine.py", "overhead", "--seconds", "1", "--workers", "2"),
            *("--evaluations", "500"),  # many trials: what the sampler learns from grows with them
        ),
        figures=_figures(
            ("wall time over that of evaluations of 1 s by two workers, less 1", "overhead", "less"),
            ("of it evaluations that a pruned trial had under way", "of_it_for_nothing", "less"),
        ),
    ),
    Part(
        name="engine_first",
        command=("benchmarks/engine.py", "first"),
        figures=_figures(("seconds to the first result of a worker", "seconds", "less")),
    ),
    Part(
        name="engine_memory",
        command=("benchmarks/engine.py", "memory", "--evaluations", "10000"),
        minutes=30,
        figures=_figures(
            ("megabytes of the driver at most, 10,000 evaluations", "megabytes", "less"),
            ("seconds an evaluation, 10,000 of no cost", "seconds_each", "less"),
        ),
    ),
    Part(
        name="engine_speedup",
        command=("benchmarks/engine.py", "speedup", "--evaluations", "24"),
        figures=_figures(("two workers over one, half the cores each, embedded model", "over_one_worker", "more")),
    ),
    Part(
        name="scorers",
        command=(
            *("benchmarks/scorers.py", "--frames", "9", "--height", "128", "--width", "160"),
            *("--clip", "vit-b-32", "--repeats", "3", "--out", "{out}"),
        ),
        figures=_figures(("scorers, times faster than the VBench way (small videos)", "times_faster.default", "more")),
    ),
    Part(
        name="claims",
        command=("-m", "benchmarks.claims", "--studies", "null", "gain", "--runs", "100", "--out", "{out}"),
        result="summary.json",
        minutes=12,
        figures=_figures(
            ("null searches that claim a gain", "studies.null.claims.rate", "less"),
            ("searches that find and claim a gain of 0.5", "studies.gain.found_and_claimed.rate", "more"),
            ("true gain found of 0.5", "studies.gain.true_gain_found", "more"),
        ),
    ),
    Part(
        name="efficiency",
        command=(
            *("-m", "benchmarks.efficiency", "--seeds", "4", "--rivals", "4800", "--emulators", "process"),
            *("--methods", "stg-tune", "random search, 8 pairs", "TPE, free slots, 8 pairs", "--out", "{out}"),
        ),
        needs="results/benchmarks/landscape/open-sora-tiny.csv",
        minutes=15,
        figures=_figures(
            ("gain after 600 evaluations, stg-tune, 4 seeds", "summary.process.methods.stg-tune.gains.600", "more"),
            ("the same, TPE over free slots", "summary.process.methods.TPE, free slots, 8 pairs.gains.600", ""),
            ("the same, random search", "summary.process.methods.random search, 8 pairs.gains.600", ""),
        ),
    ),
    Part(
        name="faults",
        command=("-m", "benchmarks.faults", "--out", "{out}"),
        minutes=30,
        figures=_figures(
            ("kills of the driver in one search", "kills.driver", ""),
            ("kills of workers in the same", "kills.worker", ""),
            ("finished pairs lost", "finished_pairs_lost", "less"),
            ("trials left running", "zombie_trials", "less"),
            ("same evaluations and preset as undisturbed, 1: yes", "equal", "more"),
        ),
    ),
    Part(
        name="robustness",
        minutes=20,
        command=(
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *(f"tests/search/{name}" for name in FAULT_TESTS),
            "tests/test_full_disk.py",
        ),
        figures=_figures(("fault tests passed", "passed", "more"), ("fault tests failed", "failed", "less")),
    ),
)


def run_part(part: Part, root: Path = ROOT) -> dict[str, Any]:
    """Run one part in a process of its own: ``seconds`` and ``result``, or ``error``."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        target = out if part.result else out.with_suffix(".json")
        command = [sys.executable, *(word.format(out=target) for word in part.command)]
        try:
            done = subprocess.run(
                command, cwd=root, capture_output=True, text=True, timeout=part.minutes * 240, check=False,
                env={**os.environ, "PYTHONPATH": str(root)},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"error": f"not finished after {part.minutes * 4:g} minutes"}
        found = _result(part, target, done)
    return {"seconds": round(time.monotonic() - begun, 1), **found}


def _result(part: Part, target: Path, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    counts = pytest_counts(done.stdout) if "pytest" in part.command else {}
    if counts:
        return {"result": counts}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"error": f"exit code {done.returncode}: {lines[-1][:500]}"}
    path = target / part.result if part.result else target
    text = path.read_text(encoding="utf-8") if path.exists() else (done.stdout.strip().splitlines() or [""])[-1]
    try:
        return {"result": json.loads(text)}
    except ValueError:
        return {"error": f"it wrote no JSON: {text[:200]!r}"}


def pytest_counts(output: str) -> dict[str, int]:
    """``{"passed": 12, "failed": 0, "skipped": 1}`` from the last line of pytest; empty when there is none."""
    found = dict(re.findall(r"(\d+) (passed|failed|skipped|error)", (output.strip().splitlines() or [""])[-1]))
    counts = {word: int(number) for number, word in found.items()}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    return {"passed": counts.get("passed", 0), "failed": failed, "skipped": counts.get("skipped", 0)} if counts else {}


def commit(root: Path = ROOT) -> str:
    """The commit that is measured; ``unknown`` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def open_run(folder: Path, facts: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    """The unfinished run of the same code, machine and versions, or a new one."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = sorted(folder.glob("*.json"))
    if runs:
        last = json.loads(runs[-1].read_text(encoding="utf-8"))
        same = {key: value for key, value in facts.items() if key != "date"}
        if not last["finished"] and same.items() <= last["machine"].items():
            return runs[-1], last
    name = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    return folder / f"{name}.json", {"schema": SCHEMA, "machine": dict(facts), "finished": False, "parts": {}}


def run_suite(
    parts: Sequence[Part], out: Path, facts: Mapping[str, str], root: Path = ROOT, whole: Sequence[Part] = PARTS
) -> Path:
    """Run what is missing, write after each part, then the table; gives the file of the run.

    Args:
        parts: What is run.
        out: Folder of the table; the runs are in ``runs`` there.
        facts: Machine, versions, commit.
        root: Where commands run.
        whole: What a run that is finished holds, and what the table shows.
    """
    path, data = open_run(out / "runs", facts)
    for part in parts:
        if part.name in data["parts"]:
            continue
        there = not part.needs or (root / part.needs).exists()
        data["parts"][part.name] = run_part(part, root) if there else {"error": f"{part.needs} is not there"}
        _write(path, data)
        sys.stdout.write(f"{part.name}: {data['parts'][part.name].get('error', 'done')}\n")
        sys.stdout.flush()
    data["finished"] = all(part.name in data["parts"] for part in whole)
    _write(path, data)
    (out / "README.md").write_text(table(out / "runs", whole), encoding="utf-8")
    return path


def _write(path: Path, data: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def number_at(data: Any, at: str) -> float | None:
    """The number under keys and list indices with dots between them; ``None`` when it is not there."""
    for key in at.split("."):
        if isinstance(data, list) and key.isdigit() and int(key) < len(data):
            data = data[int(key)]
        elif isinstance(data, dict) and key in data:
            data = data[key]
        else:
            return None
    return float(data) if isinstance(data, int | float) else None


def table(folder: Path, parts: Sequence[Part]) -> str:
    """Of every part the last run that has it beside the one before, whole or not; machine and commit of the last."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    last = runs[-1]
    rows = []
    for part in parts:
        having = [run for run in runs if part.name in run["parts"]]
        if having:
            rows += _rows(part, having[-1], having[-2] if len(having) > 1 else None)
    facts = ", ".join(f"{name} {value}" for name, value in last["machine"].items())
    head = "| part | number | last run | run before | change | better is |\n|---|---|---|---|---|---|\n"
    return (
        "# Benchmarks\n\nRepeat with `make bench`; every run is a file in `runs/`. A machine that does something else\n"
        f"at the same time makes times longer: compare runs of one idle machine.\n\n{head}"
        + "\n".join(rows)
        + f"\n\n{facts}\n"
    )


def _rows(part: Part, last: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    found = last["parts"].get(part.name)
    if found is None:
        return []
    if "error" in found:
        return [f"| {part.name} | failed: {found['error']} | | | | |"]
    old = (before or {"parts": {}})["parts"].get(part.name, {}).get("result", {})
    return [_row(part.name, figure, found["result"], old) for figure in part.figures]


def _row(name: str, figure: Figure, new: Any, old: Any) -> str:
    numbers = number_at(new, figure.at), number_at(old, figure.at)
    shown = ["-" if number is None else f"{number:.4g}" for number in numbers]
    now, then = numbers
    change = f"{now / then - 1:+.1%}" if now is not None and then else "-"
    return f"| {name} | {figure.label} | {shown[0]} | {shown[1]} | {change} | {figure.better} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args(arguments)
    chosen = [part for part in PARTS if not options.only or part.name in options.only]
    path = run_suite(chosen, options.out, {**machine(), "commit": commit()})
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
