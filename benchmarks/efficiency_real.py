"""Is what the emulator says of the winners true? The settings that the methods end with, made by the model itself.

    python -m benchmarks.efficiency_real --model mochi-tiny    # results/benchmarks/efficiency/mochi-tiny-real.csv

Every setting that a run of ``benchmarks.efficiency`` ends with is evaluated on the same new pairs, which neither the
measured table nor a search has seen, and compared with the model's default. A command that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks.efficiency import MODELS, RESULTS
from benchmarks.landscape import space_of
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search.executor import BatchingExecutor, InlineExecutor, Task
from stg_tune.search.ledger import Ledger
from stg_tune.search.objective import Judge
from stg_tune.search.statistics import paired_interval
from stg_tune.search.storage import EvaluationTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.models.base import ModelEntry
    from stg_tune.records import Evaluation

STUDY = "efficiency"
FIRST_SEED = 8_000_000
"""Of the noises; those of searches and of the measured table lie elsewhere."""


def finals(path: Path, methods: Sequence[str], seeds: int) -> dict[tuple[str, str, int], tuple[GuidanceSpec, float]]:
    """(emulator, method, seed) -> the setting that the run ended with, and its emulated gain."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return {
        (kind, name, seed): (
            GuidanceSpec.from_dict(runs[name][str(seed)]["final"]),
            float(runs[name][str(seed)]["trail"][-1][1]),
        )
        for kind, runs in data["runs"].items()
        for name in methods or list(runs)
        for seed in range(seeds)
        if str(seed) in runs[name]
    }


def measure(entry: ModelEntry, specs: Sequence[GuidanceSpec], pairs: Sequence[Pair], folder: Path) -> list[Evaluation]:
    """Evaluate all settings on all pairs; rows that are there are kept."""
    from stg_tune.studio import ModelRecipe, Studio, versions  # torch is needed here only

    folder.mkdir(parents=True, exist_ok=True)
    table = EvaluationTable(f"sqlite:///{folder / 'study.db'}", STUDY)
    executor = BatchingExecutor(InlineExecutor(Studio(ModelRecipe(model=entry.name)).evaluate), entry.batch)
    ledger = Ledger(table, executor, versions=versions(), on_evaluation=lambda row, new: None)
    tasks = [Task(spec=spec, pair=pair, role="search") for spec in specs for pair in pairs]
    rows = list(ledger.run(tasks))
    table.close()
    return rows


def write(
    out: Path,
    found: Mapping[tuple[str, str, int], tuple[GuidanceSpec, float]],
    rows: Mapping[str, list[Evaluation]],
    judge: Judge,
) -> None:
    """One line a run, and one with the mean of each method."""
    out.parent.mkdir(parents=True, exist_ok=True)
    means: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emulator", "method", "seed", "emulated_gain", "gain", "low", "high", "guards", "setting"])
        for (kind, name, seed), (spec, told) in found.items():
            deltas = [(delta, row.pair.prompt) for row in rows[spec.hash()] if (delta := judge.delta(row)) is not None]
            gain = paired_interval([delta for delta, _ in deltas], [prompt for _, prompt in deltas])
            kept = all(value <= 0 for value in judge.violations(rows[spec.hash()]).values())
            means.setdefault((kind, name), []).append((told, gain.mean))
            numbers = (f"{number:.4f}" for number in (told, gain.mean, gain.low, gain.high))
            words = "kept" if kept else "broken"
            writer.writerow([kind, name, seed, *numbers, words, json.dumps(spec.to_dict())])
        for (kind, name), pairs in means.items():
            told, real = (fmean(column) for column in zip(*pairs, strict=True))
            writer.writerow([kind, name, "mean", f"{told:.4f}", f"{real:.4f}", "", "", "", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate and write."""
    from stg_tune import models
    from stg_tune.embedded.truth import truth_pairs
    from stg_tune.score import embedded_scorers

    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficiency_real", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--runs", type=Path, help="default: results/benchmarks/efficiency/MODEL.json")
    parser.add_argument("--methods", nargs="+", default=[], help="default: all", metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--folder", type=Path, default=Path("runs/efficiency"), help="evaluations are kept below it")
    parser.add_argument("--out", type=Path, help="default: results/benchmarks/efficiency/MODEL-real.csv")
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    space = space_of(entry)
    default = GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)
    found = finals(options.runs or RESULTS / f"{entry.name}.json", options.methods, options.seeds)
    specs = list({spec.hash(): spec for spec in (default, *(spec for spec, _ in found.values()))}.values())
    pairs = [Pair(prompt=pair.prompt, seed=FIRST_SEED + i) for i, pair in enumerate(truth_pairs(options.pairs))]
    rows: dict[str, list[Evaluation]] = {}
    for row in measure(entry, specs, pairs, options.folder / entry.name):
        rows.setdefault(row.config, []).append(row)
    kinds = {kind.name: kind for kind in embedded_scorers().kinds}
    write(
        options.out or RESULTS / f"{entry.name}-real.csv",
        found,
        rows,
        Judge.calibrate(space.objective, kinds, rows[default.hash()]),
    )


if __name__ == "__main__":
    main()
