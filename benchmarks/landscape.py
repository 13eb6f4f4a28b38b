"""What many settings of a model are worth: the table behind the emulator of ``benchmarks.efficiency``.

    python -m benchmarks.landscape --model mochi-tiny --shard 0/2 &   # two processes, resumable, about an hour
    python -m benchmarks.landscape --model mochi-tiny --shard 1/2
    python -m benchmarks.landscape --model mochi-tiny --write         # results/benchmarks/landscape/mochi-tiny.csv

Settings come from four designs: the search space itself, good CFG scales with few layers, any subset of all layers, and
CFG alone. Each is evaluated on some of the pairs, in turn, and compared with the default on the same ones. A fifth, the
published grid (every layer, scales 1, 2, 3, at the default's CFG), has a table of its own: ``benchmarks.exhaustive``.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from benchmarks.noise import crossed_pairs
from benchmarks.simulated import LOWER_IS_BETTER
from stg_tune.records import GuidanceSpec, SkipTerm
from stg_tune.search.encoding import Encoding, build_spec
from stg_tune.search.executor import BatchingExecutor, InlineExecutor, Task
from stg_tune.search.ledger import Ledger
from stg_tune.search.space_file import load_space
from stg_tune.search.storage import EvaluationTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from stg_tune.models.base import ModelEntry
    from stg_tune.records import Evaluation, Pair
    from stg_tune.search.space import SearchSpace

STUDY = "landscape"
RESULTS = Path("results/benchmarks/landscape")
SPACES = Path(__file__).parent / "spaces"
"""Spaces as they were when a model was measured, where they have changed since."""
NEAR = {"open-sora-tiny": (1.5, 4.5), "mochi-tiny": (3.0, 6.5), "svd-tiny": (1.5, 3.5)}
"""CFG scales that are good by themselves, least and greatest."""
PAIRS = 48
"""Pairs in all; the default is evaluated on every one."""
PAIRS_EACH = 8
"""Pairs of one setting."""
GRID_SCALES = (1.0, 2.0, 3.0)
"""Of the loop that the method's own repository publishes."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table to be."""

    design: str
    """``grid``, ``space``, ``near``, ``subset`` or ``cfg``; ``found`` comes from ``benchmarks.found``."""
    spec: GuidanceSpec
    """The setting."""


def space_of(entry: ModelEntry) -> SearchSpace:
    """The space of the table and of the comparison made with it: the model's own, or its form in ``SPACES``."""
    return load_space(space_file(entry.name), entry.depths)


def space_file(model: str) -> Path:
    """Where ``space_of`` reads."""
    kept = SPACES / f"{model}.yaml"
    return kept if kept.exists() else SPACES.parents[1] / "search_spaces" / kept.name


def settings(entry: ModelEntry) -> list[Setting]:
    """All settings, in an order that has every design from the beginning; the same in every run."""
    depths, num_steps = entry.depths, entry.defaults.num_inference_steps
    space, default = space_of(entry), GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)
    rng = random.Random(7)
    designs: dict[str, list[GuidanceSpec]] = {
        "grid": list(grid(space, depths, default)),
        "space": [_of_space(rng, space, depths, num_steps) for _ in range(240)],
        "near": [_near(rng, space, depths, NEAR[entry.name]) for _ in range(240)],
        "subset": [_subset(rng, space, depths) for _ in range(100)],
        "cfg": [_cfg_only(rng, space) for _ in range(48)],
    }
    found = [Setting(design=design, spec=spec) for design, specs in designs.items() for spec in specs]
    distinct = list({item.spec.hash(): item for item in found}.values())
    rng.shuffle(distinct)
    return distinct


def grid(space: SearchSpace, depths: Mapping[str, int], default: GuidanceSpec) -> Iterator[GuidanceSpec]:
    """Every layer and operation at the published scales, beside the default's CFG."""
    for op in space.ops:
        for stack, depth in depths.items():
            for layer in range(depth):
                for scale in GRID_SCALES:
                    term = SkipTerm(name=stack, skip_layers={stack: (layer,)}, skip_op=op, stg_scale=scale)
                    yield build_spec(cfg_scale=default.cfg_scale, terms=(term,))


def _of_space(rng: random.Random, space: SearchSpace, depths: Mapping[str, int], num_steps: int) -> GuidanceSpec:
    """Uniform in the numbers that the optimiser proposes, over layers in any order."""
    orders = {(stack, op): rng.sample(range(depth), depth) for stack, depth in depths.items() for op in space.ops}
    encoding = Encoding(space=space, orders=orders, num_steps=num_steps)
    params: dict[str, float] = {}
    for knob in encoding.knobs():
        if knob.whole:
            params[knob.name] = rng.randint(int(knob.low), int(knob.high))
        elif knob.log:
            params[knob.name] = knob.low * (knob.high / knob.low) ** rng.random()
        else:
            params[knob.name] = rng.uniform(knob.low, knob.high)
    return encoding.decode(params)


def _near(
    rng: random.Random, space: SearchSpace, depths: Mapping[str, int], cfg_scales: tuple[float, float]
) -> GuidanceSpec:
    """Where good settings are: a mild CFG scale, one to three layers, mostly the whole schedule."""
    stack = rng.choice(list(depths))
    layers = tuple(rng.sample(range(depths[stack]), rng.choice((1, 1, 2, 3))))
    terms = (_term(rng, space, {stack: layers}, low=0.2, high=1.6),)
    window = rng.choice(((0.0, 1.0), (0.0, 1.0), (0.0, 0.6), (0.3, 1.0)))
    rescale = rng.choice((0.0, 0.0, 0.3, 0.7))
    return build_spec(cfg_scale=rng.uniform(*cfg_scales), rescale=rescale, terms=terms, window=window)


def _subset(rng: random.Random, space: SearchSpace, depths: Mapping[str, int]) -> GuidanceSpec:
    """Any number of all layers at once, as include-bits propose."""
    every = [(stack, layer) for stack, depth in depths.items() for layer in range(depth)]
    chosen = rng.sample(every, rng.randint(2, len(every)))
    skip = {stack: tuple(layer for where, layer in chosen if where == stack) for stack in depths}
    terms = (_term(rng, space, {stack: layers for stack, layers in skip.items() if layers}, low=0.15, high=2.0),)
    return build_spec(cfg_scale=rng.uniform(space.cfg_scale.low, space.cfg_scale.high), terms=terms)


def _cfg_only(rng: random.Random, space: SearchSpace) -> GuidanceSpec:
    rescale = rng.choice((0.0, 0.0, rng.uniform(space.rescale.low, space.rescale.high)))
    return build_spec(cfg_scale=rng.uniform(space.cfg_scale.low, space.cfg_scale.high), rescale=rescale)


def _term(
    rng: random.Random, space: SearchSpace, skip: Mapping[str, tuple[int, ...]], *, low: float, high: float
) -> SkipTerm:
    scale = float(f"{low * (high / low) ** rng.random():.2g}")
    return SkipTerm(name=next(iter(skip)), skip_layers=skip, skip_op=rng.choice(space.ops), stg_scale=scale)


def pairs_of(at: int, pairs: Sequence[Pair], each: int = PAIRS_EACH) -> list[Pair]:
    """The pairs of setting number ``at``: a run of ``each`` neighbours that begins where the one before has ended."""
    begin = at * each % len(pairs)
    return [pairs[(begin + i) % len(pairs)] for i in range(each)]


def measure(entry: ModelEntry, folder: Path, shard: int, shards: int) -> None:
    """Evaluate every ``shards``-th setting; rows that are there are kept."""
    every, pairs = settings(entry), crossed_pairs(PAIRS, 1)
    default = GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)
    tasks = [Task(spec=default, pair=pair, role="search") for pair in pairs[shard::shards]]
    for at in range(shard, len(every), shards):
        if every[at].design != "grid":
            tasks += [Task(spec=every[at].spec, pair=pair, role="search") for pair in pairs_of(at, pairs)]
    evaluate(entry, tasks, folder, f"shard{shard}of{shards}")


def evaluate(entry: ModelEntry, tasks: Sequence[Task], folder: Path, name: str) -> None:
    """Make and score what is not in the file ``name`` yet."""
    from stg_tune.studio import ModelRecipe, Studio, versions

    folder.mkdir(parents=True, exist_ok=True)
    table = EvaluationTable(f"sqlite:///{folder / f'{name}.db'}", STUDY)
    inline = InlineExecutor(Studio(ModelRecipe(model=entry.name)).evaluate)
    ledger = Ledger(
        table, BatchingExecutor(inline, entry.batch), versions=versions(), on_evaluation=lambda row, new: None
    )
    for _ in ledger.run(tasks):
        pass
    table.close()


def write(entry: ModelEntry, folder: Path, out: Path) -> None:
    """One row a setting: mean paired gain of every scorer in the default's standard deviations, and its error."""
    default = GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)
    by_config: dict[str, dict[str, Evaluation]] = {}
    for row in rows_of(folder):
        by_config.setdefault(row.config, {})[row.pair.key] = row
    base = by_config[default.hash()]
    every = settings(entry)
    found = {item.spec.hash(): by_config.get(item.spec.hash(), {}) for item in every}
    enough = {key: rows for key, rows in found.items() if len(rows.keys() & base.keys()) >= PAIRS_EACH // 2}
    scales = [Scale.of(name, base, enough.values()) for name in next(iter(base.values())).scores]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns = (f"{scale.name}{end}" for scale in scales for end in ("", "_error"))
        writer.writerow(["design", "setting", "pairs", *columns])
        writer.writerow(["default", json.dumps(default.to_dict()), len(base), *["0.0000", "0.0000"] * len(scales)])
        for item in every:
            rows = enough.get(item.spec.hash())
            if rows is not None:
                numbers = [f"{x:.4f}" for scale in scales for x in scale.gain(rows)]
                writer.writerow([item.design, json.dumps(item.spec.to_dict()), len(rows), *numbers])


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How one scorer's gains are stated, and what easy and hard pairs do to them."""

    name: str
    """Of the scorer."""
    sign: float
    """-1 where less is better."""
    base: Mapping[str, float]
    """Pair key -> score of the default."""
    slope: float = 0.0
    """By how much the gain of any setting changes with the default's standard score on the pair."""

    @classmethod
    def of(cls, name: str, base: Mapping[str, Evaluation], settings: Iterable[Mapping[str, Evaluation]]) -> Scale:
        """Measure the slope: the pooled regression of the gains on the default's scores, within settings."""
        sign = -1.0 if name in LOWER_IS_BETTER else 1.0
        plain = cls(name=name, sign=sign, base={key: row.scores[name] for key, row in base.items()})
        products = squares = 0.0
        for rows in settings:
            found = [(plain.ease(key), gain) for key, gain in plain._raw(rows).items()]
            middle, mean = (fmean(column) for column in zip(*found, strict=True))
            products += sum((ease - middle) * (gain - mean) for ease, gain in found)
            squares += sum((ease - middle) ** 2 for ease, _ in found)
        return replace(plain, slope=products / squares if squares else 0.0)

    def ease(self, key: str) -> float:
        """Standard score of the default on a pair; positive where it is good."""
        return self.sign * (self.base[key] - fmean(self.base.values())) / self._spread

    def gain(self, rows: Mapping[str, Evaluation]) -> tuple[float, float]:
        """Mean gain on pairs of mean ease, and its standard error.

        A setting sees a few of the pairs. That weak videos gain more than good ones would make the same error for all
        settings on the same pairs, so it is taken off.
        """
        gains = [gain - self.slope * self.ease(key) for key, gain in self._raw(rows).items()]
        return fmean(gains), stdev(gains) / len(gains) ** 0.5

    @property
    def _spread(self) -> float:
        return stdev(self.base.values())

    def _raw(self, rows: Mapping[str, Evaluation]) -> dict[str, float]:
        return {
            key: self.sign * (row.scores[self.name] - self.base[key]) / self._spread
            for key, row in rows.items()
            if key in self.base and self.name in row.scores
        }


def rows_of(folder: Path) -> list[Evaluation]:
    """All evaluations of all shards that gave a video."""
    rows: list[Evaluation] = []
    for path in sorted(folder.glob("shard*.db")):
        table = EvaluationTable(f"sqlite:///{path}", STUDY)
        rows += [row.evaluation for row in table.rows() if not row.evaluation.error]
        table.close()
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate one shard, or write the table."""
    run("landscape", __doc__ or "", (measure, write), RESULTS, arguments)


def run(
    name: str,
    description: str,
    steps: tuple[Callable[[ModelEntry, Path, int, int], None], Callable[[ModelEntry, Path, Path], None]],
    results: Path,
    arguments: Sequence[str] | None,
) -> None:
    """The command of a table that is measured in shards.

    Args:
        name: Of the module.
        description: What the command does.
        steps: ``measure(entry, folder, shard, shards)`` and ``write(entry, folder, file)``.
        results: Where tables go.
        arguments: Of the command line.
    """
    from stg_tune import models  # torch is needed here only

    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--model", choices=list(NEAR), required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs") / name, help="evaluations are kept below it")
    parser.add_argument("--shard", default="0/1", help="I/N: every N-th setting, from the I-th (default: 0/1)")
    parser.add_argument("--write", action="store_true", help="write the table of what is there")
    parser.add_argument("--out", type=Path, default=results)
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    if options.write:
        steps[1](entry, options.folder / entry.name, options.out / f"{entry.name}.csv")
        return
    shard, shards = (int(word) for word in options.shard.split("/"))
    steps[0](entry, options.folder / entry.name, shard, shards)


if __name__ == "__main__":
    main()
