"""What winners on the emulator are worth: the settings at which searches of it ended, measured and added to its table.

    python -m benchmarks.efficiency --model mochi-tiny --seeds 4 --out runs/round1.json    # as the emulator is now
    python -m benchmarks.found runs/round1.json --presets results/presets/mochi-tiny-seed0.json    # resumable
    python -m benchmarks.found runs/round1.json --presets results/presets/mochi-tiny-seed0.json --append

An emulator is off where its table is thin, and whatever searches it goes where it is off in its own favour: the tops
of a table of random settings are promises. Measuring where the searches ended, and learning from that, takes them
back. Settings are told apart from the others by their design, ``found``.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.landscape import PAIRS, RESULTS, Scale, evaluate, pairs_of, rows_of
from benchmarks.noise import crossed_pairs
from stg_tune import preset
from stg_tune.records import GuidanceSpec
from stg_tune.search.executor import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.records import Evaluation

EACH = 16
"""Pairs of one setting: twice as many as those of the table, because few settings have to speak for the top."""


def finals(runs: Sequence[Path]) -> list[GuidanceSpec]:
    """The distinct settings that the runs of ``benchmarks.efficiency`` ended with, in a fixed order."""
    found = {}
    for path in runs:
        for methods in json.loads(path.read_text(encoding="utf-8"))["runs"].values():
            for seeds in methods.values():
                for run in seeds.values():
                    spec = GuidanceSpec.from_dict(run["final"])
                    found[spec.hash()] = spec
    return [found[key] for key in sorted(found)]


def of_presets(paths: Sequence[Path]) -> list[GuidanceSpec]:
    """Where searches of the model itself ended: each preset, and its best CFG alone."""
    loaded = [preset.load(path) for path in paths]
    return [spec for item in loaded for spec in (item.spec, item.evidence and item.evidence.best_cfg) if spec]


def append(specs: Sequence[GuidanceSpec], default: GuidanceSpec, rows: Sequence[Evaluation], out: Path) -> int:
    """Add the settings that are measured and not in the table yet; gives how many there were."""
    by_config: dict[str, dict[str, Evaluation]] = {}
    for row in rows:
        by_config.setdefault(row.config, {})[row.pair.key] = row
    with out.open(encoding="utf-8", newline="") as file:
        known = list(csv.DictReader(file))
    there = {GuidanceSpec.from_dict(json.loads(row["setting"])).hash() for row in known}
    fresh = [spec for spec in specs if spec.hash() in by_config and spec.hash() not in there]
    names = [name for name in known[0] if f"{name}_error" in known[0]]
    seen = [by_config[spec.hash()] for spec in fresh]
    scales = [Scale.of(name, by_config[default.hash()], seen) for name in names] if seen else []
    with out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for spec, item in zip(fresh, seen, strict=True):
            numbers = [f"{x:.4f}" for scale in scales for x in scale.gain(item)]
            writer.writerow(["found", json.dumps(spec.to_dict()), len(item), *numbers])
    return len(fresh)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, or add to the table what is there."""
    from stg_tune import models  # torch is needed here only

    parser = argparse.ArgumentParser(prog="python -m benchmarks.found", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="files that benchmarks.efficiency wrote")
    parser.add_argument("--presets", type=Path, nargs="+", default=[], help="of searches of the model itself")
    parser.add_argument("--folder", type=Path, default=Path("runs/found"), help="evaluations are kept below it")
    parser.add_argument("--append", action="store_true", help="add to the table what is there")
    options = parser.parse_args(arguments)
    (model,) = {json.loads(path.read_text(encoding="utf-8"))["model"] for path in options.runs}
    entry, folder = models.entry(model), options.folder / model
    default = GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)
    every = [*finals(options.runs), *of_presets(options.presets)]
    specs = list({spec.hash(): spec for spec in every if spec != default}.values())
    if options.append:
        print(f"{append(specs, default, rows_of(folder), RESULTS / f'{model}.csv')} settings added")  # noqa: T201
        return
    pairs = crossed_pairs(PAIRS, 1)
    wanted = [(default, pair) for pair in pairs]
    wanted += [(spec, pair) for at, spec in enumerate(specs) for pair in pairs_of(at, pairs, EACH)]
    evaluate(entry, [Task(spec=spec, pair=pair, role="search") for spec, pair in wanted], folder, "shard")


if __name__ == "__main__":
    main()
