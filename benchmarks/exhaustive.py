"""Every layer, operation and published scale of an embedded model, on every pair: nothing is left to chance.

    python -m benchmarks.exhaustive --model svd-tiny --shard 0/2 &   # two processes, resumable
    python -m benchmarks.exhaustive --model svd-tiny --shard 1/2
    python -m benchmarks.exhaustive --model svd-tiny --write         # results/benchmarks/exhaustive/svd-tiny.csv

The settings are those of the published grid, beside the model's default CFG. One line of the table is one setting on
one pair, with the raw score of every scorer; the lines without a layer are the default. ``Exhaustive`` reads it back:
it answers evaluations without making a video, and gives the emulators of ``benchmarks.emulator`` their grid.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.landscape import PAIRS, evaluate, grid, rows_of, run
from benchmarks.noise import crossed_pairs
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search.executor import Task
from stg_tune.search.space_file import load_space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.models.base import ModelEntry

RESULTS = Path("results/benchmarks/exhaustive")
EACH = 24
"""Pairs of one setting, as many as a search of a large budget has; the default has twice as many."""
WHERE = ("stack", "layer", "skip_op", "stg_scale", "prompt", "seed")
"""Columns before those of the scores."""


def settings(entry: ModelEntry) -> tuple[GuidanceSpec, list[GuidanceSpec]]:
    """The default, and every single layer, operation and scale."""
    default = GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)
    return default, list(grid(load_space(entry.name, entry.depths), entry.depths, default))


def tasks(entry: ModelEntry) -> list[Task]:
    """Everything that the table needs, the default first."""
    pairs = crossed_pairs(PAIRS, 1)
    default, specs = settings(entry)
    wanted = [(default, pair) for pair in pairs]
    wanted += [(spec, pair) for spec in specs for pair in pairs[:EACH]]
    return [Task(spec=spec, pair=pair, role="search") for spec, pair in wanted]


def measure(entry: ModelEntry, folder: Path, shard: int, shards: int) -> None:
    """Evaluate every ``shards``-th setting; the default belongs to the first shard."""
    order = {spec.hash(): at for at, spec in enumerate(settings(entry)[1], start=1)}
    part = [task for task in tasks(entry) if order.get(task.spec.hash(), 0) % shards == shard]
    evaluate(entry, part, folder, f"shard{shard}of{shards}")


def write(entry: ModelEntry, folder: Path, out: Path) -> None:
    """Write the table; an evaluation that is missing or failed ends it with ``SystemExit``."""
    found = {(row.config, row.pair.key): row for row in rows_of(folder)}
    wanted = tasks(entry)
    missing = [task for task in wanted if (task.spec.hash(), task.pair.key) not in found]
    if missing:
        raise SystemExit(f"{len(missing)} of {len(wanted)} evaluations are missing: run every shard first")
    scorers = sorted(next(iter(found.values())).scores)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*WHERE, *scorers])
        for task in wanted:
            scores = found[task.spec.hash(), task.pair.key].scores
            numbers = (f"{scores[name]:.5g}" if name in scores else "" for name in scorers)
            writer.writerow([*_where(task.spec), task.pair.prompt, task.pair.seed, *numbers])


def _where(spec: GuidanceSpec) -> tuple[str, ...]:
    if not spec.segments:
        return ("", "", "", "")
    (term,) = spec.segments[0].terms
    ((stack, (layer,)),) = term.skip_layers.items()
    return stack, str(layer), term.skip_op, f"{term.stg_scale:g}"


@dataclass(frozen=True, kw_only=True)
class Exhaustive:
    """The table of one model."""

    default: GuidanceSpec
    """The model's default."""
    specs: tuple[GuidanceSpec, ...]
    """Every setting of the grid."""
    evaluations: Mapping[str, Mapping[str, Evaluation]]
    """Hash of a setting -> key of a pair -> raw scores."""

    @classmethod
    def read(cls, entry: ModelEntry, folder: Path = RESULTS) -> Exhaustive:
        """Read the table of a model; ``KeyError`` when a setting is missing."""
        default, specs = settings(entry)
        by_place = {_where(spec): spec for spec in (default, *specs)}
        found: dict[str, dict[str, Evaluation]] = {spec.hash(): {} for spec in (default, *specs)}
        with (folder / f"{entry.name}.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                spec = by_place[row["stack"], row["layer"], row["skip_op"], row["stg_scale"]]
                pair = Pair(prompt=row["prompt"], seed=int(row["seed"]))
                scores = {name: float(value) for name, value in row.items() if name not in WHERE and value}
                found[spec.hash()][pair.key] = Evaluation(config=spec.hash(), pair=pair, scores=scores)
        return cls(default=default, specs=tuple(specs), evaluations=found)

    def __call__(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        """What was measured; ``KeyError`` for what is not in the table."""
        return self.evaluations[spec.hash()][pair.key]


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate one shard, or write the table."""
    run("exhaustive", __doc__ or "", (measure, write), RESULTS, arguments)


if __name__ == "__main__":
    main()
