"""A search whose driver and workers are killed again and again, against the same search left alone.

    python -m benchmarks.faults [--kills 20] [--budget 150] [--workers 2] [--seed 0] [--out FILE.json]

`stg-tune search` runs in a process of its own. At random moments (of a fixed seed) it, or one of its workers, gets
kill -9; after a kill of the driver `stg-tune resume` goes on, until the run has ended by itself. What is then in the
storage and in the preset is compared with a search of the same seed that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.machine import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA = "stg-tune/faults/1"
PROGRAM = "import sys; from stg_tune.cli.main import main; sys.exit(main(sys.argv[1:]))"
ENDED = (0, 3)
"""Exit codes of a search that came to its end."""
PATIENCE = 1800.0
"""Longest wait for the next rows, in seconds."""
SAME = 1e-3
"""Scores that differ by less than this fraction are the same, as for the engine itself."""
WORKER = "ray::Worker"
"""How the command line of a worker's process begins."""

Key = tuple[str, str, str]
"""(configuration, pair, fidelity)."""
Rows = dict[Key, dict[str, float]]
"""Stored evaluations -> their scores."""
Target = Literal["driver", "worker"]


@dataclass(frozen=True, kw_only=True)
class Blow:
    """One kill that is planned."""

    target: Target
    """Which process."""
    rows: int
    """How many more evaluations are waited for before it."""
    delay: float
    """Seconds after those."""


@dataclass(kw_only=True)
class Damage:
    """What has happened to a run."""

    kills: Counter[str] = field(default_factory=Counter)
    """Kills of each target that hit."""
    sessions: int = 0
    """Processes that drove the run."""
    lost: set[Key] = field(default_factory=set)
    """Evaluations that were stored at one time and not at a later one."""


def blows(seed: int, kills: int, budget: int) -> list[Blow]:
    """Planned kills, half of them of the driver; together they need about a half of the budget."""
    chance = random.Random(seed)
    targets: list[Target] = ["driver", "worker"] * (kills // 2) + ["driver"] * (kills % 2)
    chance.shuffle(targets)
    most = max(budget // max(kills, 1), 1)
    return [Blow(target=target, rows=chance.randint(0, most), delay=chance.uniform(0.0, 1.0)) for target in targets]


def disturb(run: Path, first: Sequence[str], again: Sequence[str], planned: Sequence[Blow]) -> Damage:
    """Run ``first``, deal the blows, and after each that ends the driver run ``again``, until the run has ended.

    Args:
        run: Folder of the run.
        first: Command that begins it.
        again: Command that goes on with it.
        planned: The kills; those for which the run was too fast are left out.

    Raises:
        RuntimeError: The driver ended in another way than by a kill or by having finished.
    """
    damage, known, waiting = Damage(), set[Key](), list(planned)
    while True:
        begun = (run / "run.json").exists()
        driver = subprocess.Popen(list(again if begun else first), stderr=subprocess.PIPE, text=True)
        damage.sessions += 1
        while waiting and driver.poll() is None and (struck := _deal(waiting[0], run, driver)) is not None:
            damage.kills[waiting.pop(0).target] += struck
            known = _check(run, known, damage)
        _, said = driver.communicate()
        known = _check(run, known, damage)
        if driver.returncode in ENDED:
            return damage
        if driver.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the driver ended with {driver.returncode}: {said.strip()[-500:]}")


def _deal(blow: Blow, run: Path, driver: subprocess.Popen[str]) -> bool | None:
    """Wait for its moment and strike: whether it hit; ``None``: the run was faster."""
    goal, give_up = len(rows_of(run)) + blow.rows, time.monotonic() + PATIENCE
    while driver.poll() is None and not _is_time(blow, run, driver, goal):
        if time.monotonic() > give_up:
            driver.kill()
            raise RuntimeError(f"no evaluation for {PATIENCE:.0f} s")
        time.sleep(0.1)
    time.sleep(blow.delay)
    if driver.poll() is not None:
        return None
    if blow.target == "driver":
        driver.kill()
        driver.wait()
        return True
    workers = workers_of(driver.pid)
    if workers:
        with suppress(ProcessLookupError):
            os.kill(workers[len(workers) // 2], signal.SIGKILL)
            return True
    return False


def _is_time(blow: Blow, run: Path, driver: subprocess.Popen[str], goal: int) -> bool:
    return len(rows_of(run)) >= goal and (blow.target == "driver" or bool(workers_of(driver.pid)))


def _check(run: Path, known: set[Key], damage: Damage) -> set[Key]:
    now = set(rows_of(run))
    damage.lost |= known - now
    return known | now


def workers_of(driver: int) -> list[int]:
    """Processes below the driver that evaluate (Linux)."""
    parents = dict(_processes())
    return [pid for pid in parents if _descends(pid, driver, parents) and _command(pid).startswith(WORKER)]


def _processes() -> list[tuple[int, int]]:
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            words = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            found.append((int(folder.name), int(words[1])))
    return found


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid > 1:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def rows_of(run: Path) -> Rows:
    """What the storage of a run holds; nothing before there is one."""
    try:
        with closing(sqlite3.connect(f"file:{run / 'study.db'}?mode=ro", uri=True)) as base:
            found = base.execute("select config, pair, fidelity, scores from evaluations").fetchall()
    except sqlite3.Error:
        return {}
    return {(config, pair, fidelity): json.loads(scores) for config, pair, fidelity, scores in found}


def zombies_of(run: Path) -> int:
    """Optuna trials that are not complete."""
    with closing(sqlite3.connect(f"file:{run / 'study.db'}?mode=ro", uri=True)) as base:
        return int(base.execute("select count(*) from trials where state != 'COMPLETE'").fetchone()[0])


def compare(calm: Path, disturbed: Path) -> dict[str, Any]:
    """Whether both runs have evaluated the same with the same scores, and found the same."""
    expected, found = rows_of(calm), rows_of(disturbed)
    both = expected.keys() & found.keys()
    differing = [key for key in both if not _alike(expected[key], found[key])]
    presets = [_preset(run) for run in (calm, disturbed)]
    return {
        "evaluations": len(found),
        "evaluations_only_undisturbed": len(expected.keys() - both),
        "evaluations_only_disturbed": len(found.keys() - both),
        "evaluations_with_other_scores": len(differing),
        "same_evaluations": expected.keys() == found.keys() and not differing,
        "same_preset": _alike(*presets),
        "preset": presets[1] is not None,
    }


def _preset(run: Path) -> Any:
    """What a preset says: the setting and its gain, not when it was found."""
    file = run / "preset.json"
    if not file.exists():
        return None
    preset = json.loads(file.read_text(encoding="utf-8"))
    return {"guidance": preset["guidance"], "gain": preset["evidence"]["gain"]}


def _alike(one: Any, other: Any) -> bool:
    """Equal, numbers up to rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=SAME, abs_tol=1e-6)
    return bool(one == other)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both searches in ``folder``, and what they have in common."""
    calm, disturbed = folder / "calm", folder / "disturbed"
    program = [sys.executable, "-c", PROGRAM]
    # pair by pair: which pairs share a batch depends on where a run was cut, and batches differ by rounding
    where = ["--workers", str(options.workers), "--batch", "1", "--quiet"]
    words = ["search", "--model", options.model, "--budget", str(options.budget), "--seed", str(options.seed), *where]
    seconds = {}
    begun = time.monotonic()
    undisturbed = disturb(calm, [*program, *words, "--out", str(calm)], [], [])
    seconds["undisturbed"] = round(time.monotonic() - begun, 1)
    begun = time.monotonic()
    damage = disturb(
        disturbed,
        [*program, *words, "--out", str(disturbed)],
        [*program, "resume", str(disturbed), *where],
        blows(options.seed, options.kills, options.budget),
    )
    seconds["disturbed"] = round(time.monotonic() - begun, 1)
    assert undisturbed.sessions == 1
    found = compare(calm, disturbed)
    return {
        "schema": SCHEMA,
        "command": " ".join(["stg-tune", *words]),
        "kills": {"driver": damage.kills["driver"], "worker": damage.kills["worker"]},
        "kills_planned": options.kills,
        "sessions": damage.sessions,
        "finished_pairs_lost": len(damage.lost),
        "zombie_trials": zombies_of(disturbed),
        **found,
        "equal": found["same_evaluations"] and found["same_preset"],
        "seconds": seconds,
        "machine": machine(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="open-sora-tiny")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--budget", type=int, default=150)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/faults.json"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{options.out}: equal result: {'yes' if found['equal'] else 'no'}\n")


if __name__ == "__main__":
    main()
