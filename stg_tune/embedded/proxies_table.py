"""Do the proxies know the truth? ``python -m stg_tune.embedded.proxies_table``.

Random guidance settings are generated on the same pairs; the default objective (proxies only) is compared with the
ground truth over the settings by Spearman's rank correlation. The truth is the Frechet joint distance by the
independent judge: quality, diversity and obedience to the caption in one number. Settings are kept one by one, and
more ``--videos`` are added to what is there.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr

from stg_tune import models
from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.joint import load_joint
from stg_tune.embedded.judge import Judge, load_judge
from stg_tune.embedded.truth import Judged, asked_of, captioned, distance, truth_pairs
from stg_tune.generate import Generator
from stg_tune.records import COMBINATIONS, SKIP_OPS, Evaluation, GuidanceSpec, Segment, SkipTerm
from stg_tune.score import embedded_scorers
from stg_tune.search.objective import Judge as ProxyJudge
from stg_tune.search.space_file import load_space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.models.base import ModelEntry
    from stg_tune.records import Pair, Score
    from stg_tune.score import CompositeScorer

    Kept = dict[str, Any]  # column -> NumPy array

BATCH = 8
SCORE = "score_"
"""Before the name of a scorer in a kept file."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One setting: what the proxies and what the judge say."""

    spec: GuidanceSpec
    """The setting."""
    rows: list[Evaluation]
    """Raw proxy scores of every pair."""
    seen: Judged
    """What the judge saw."""


def random_spec(rng: random.Random, depths: Mapping[str, int]) -> GuidanceSpec:
    """A setting from a wide range: one to three layers a stack, any scale, window, CFG and rescale."""
    op = rng.choice(SKIP_OPS)
    stacks = rng.choice([list(depths), *([name] for name in depths)])
    terms = tuple(
        SkipTerm(
            name=stack,
            skip_layers={stack: tuple(rng.sample(range(depths[stack]), rng.choice((1, 1, 2, 3))))},
            skip_op=op,
            stg_scale=round(10 ** rng.uniform(-1.3, 0.2), 3),
        )
        for stack in stacks
    )
    start, stop = rng.choice(((0.0, 1.0), (0.0, 1.0), (0.0, 0.5), (0.3, 1.0)))
    rescale = rng.choice((0.0, 0.0, 0.4, 0.8))
    segment = Segment(start=start, stop=stop, terms=terms, combination=rng.choice(COMBINATIONS), rescale=rescale)
    plain = rng.random() < 0.15
    return GuidanceSpec(cfg_scale=round(rng.uniform(1.0, 5.0), 2), segments=() if plain else (segment,))


class Bench:
    """Generates, scores and judges settings on fixed pairs."""

    def __init__(self, generator: Generator, judge: Judge, pairs: Sequence[Pair], folder: Path) -> None:
        self.generator = generator
        self.judge = judge
        self.pairs = pairs
        self.folder = folder
        self.scorers: CompositeScorer = embedded_scorers()

    def measure(self, spec: GuidanceSpec) -> Measured:
        """One setting on all pairs; those that ``folder`` has are not made again."""
        path = self.folder / f"{spec.hash()}.npz"
        kept = _read(path)
        done = 0 if kept is None else len(kept["answers"])
        if done < len(self.pairs):
            new = self._run(spec, self.pairs[done:])
            kept = new if kept is None else {name: np.concatenate([kept[name], more]) for name, more in new.items()}
            _keep(path, kept)
        kept = {name: values[: len(self.pairs)] for name, values in (kept or {}).items()}
        seen = Judged(features=kept["features"].astype(np.float64), answers=kept["answers"].astype(np.int64))
        columns = {name.removeprefix(SCORE): values for name, values in kept.items() if name.startswith(SCORE)}
        rows = [
            Evaluation(config=spec.hash(), pair=pair, scores=_known({name: v[i] for name, v in columns.items()}))
            for i, pair in enumerate(self.pairs)
        ]
        return Measured(spec=spec, rows=rows, seen=seen)

    def _run(self, spec: GuidanceSpec, wanted: Sequence[Pair]) -> Kept:
        """Features and answers of the judge and every raw score (NaN: could not score), by pair."""
        marks: list[Mapping[str, Score]] = []
        seen = []
        for first in range(0, len(wanted), BATCH):
            pairs = wanted[first : first + BATCH]
            videos = np.stack([made.video.frames.numpy() for made in self.generator.many(spec, pairs)])
            pixels = to_pixels(videos)
            marks += self.scorers((pixels + 1) / 2, [pair.prompt for pair in pairs])
            seen.append(self.judge.look(pixels))
        features, answers = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        scores = {
            f"{SCORE}{kind.name}": np.array([np.nan if (v := mark[kind.name].value) is None else v for mark in marks])
            for kind in self.scorers.kinds
        }
        return {"features": features.astype(np.float32), "answers": answers.astype(np.int8), **scores}


def _read(path: Path) -> Kept | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as saved:
        return {name: saved[name] for name in saved.files}


def _keep(path: Path, columns: Kept) -> None:
    """Write whole or not at all, whenever the command is stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **columns)
    part.replace(path)


def _known(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if np.isfinite(value)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the settings and write the table."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.proxies_table", description=__doc__)
    parser.add_argument("--model", default="open-sora-tiny")
    parser.add_argument("--settings", type=int, default=64, help="random settings (default: 64)")
    parser.add_argument("--videos", type=int, default=128, help="videos a setting (default: 128)")
    parser.add_argument(
        "--folder", type=Path, default=Path("training/proxies"), help="measured settings are kept below it"
    )
    parser.add_argument("--out", type=Path, default=Path("results/embedded"))
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    pairs = truth_pairs(options.videos, first_seed=2_000_000)
    bench = Bench(Generator(models.load(entry), entry), load_judge(), pairs, options.folder / entry.name)
    rng = random.Random(0)
    specs = [random_spec(rng, entry.depths) for _ in range(options.settings)]
    with torch.inference_mode():
        baseline = bench.measure(GuidanceSpec(cfg_scale=entry.defaults.cfg_scale))
        measured = []
        for number, spec in enumerate(specs):
            measured.append(bench.measure(spec))
            print(number, spec.hash(), flush=True)  # noqa: T201
    space = load_space(entry.name, entry.depths)
    proxies = ProxyJudge.calibrate(space.objective, {kind.name: kind for kind in bench.scorers.kinds}, baseline.rows)
    write(options.out / entry.name, measured, proxies, pairs, entry)


def write(
    folder: Path, measured: Sequence[Measured], proxies: ProxyJudge, pairs: Sequence[Pair], entry: ModelEntry
) -> None:
    """Write ``proxies.csv`` (one line a setting) and ``proxies.json`` (the correlations)."""
    folder.mkdir(parents=True, exist_ok=True)
    reference, judge = load_joint(), load_judge()
    asked = asked_of(pairs, entry)
    objective = [fmean(delta for row in item.rows if (delta := proxies.delta(row)) is not None) for item in measured]
    joint = [reference.distance(item.seen.features, asked) for item in measured]
    parts = [[proxies.parts(row) for row in item.rows] for item in measured]
    names = sorted(proxies.kinds)
    columns = {name: [fmean(part.get(name, 0.0) for part in rows) for rows in parts] for name in names}
    with (folder / "proxies.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["objective", "joint", "frechet", "digit", "direction", *names, "setting"])
        for i, item in enumerate(measured):
            digit, _, direction = (item.seen.answers == captioned(pairs)).mean(0)
            numbers = [objective[i], joint[i], distance(judge, item.seen), digit, direction]
            numbers += [columns[name][i] for name in names]
            writer.writerow([*(f"{value:.4f}" for value in numbers), json.dumps(item.spec.to_dict(), sort_keys=True)])
    truth = [-value for value in joint]
    correlations = {name: round(float(spearmanr(column, truth)[0]), 4) for name, column in columns.items()}
    summary = {
        "settings": len(measured),
        "videos": len(pairs),
        "spearman": {"objective": round(float(spearmanr(objective, truth)[0]), 4), **correlations},
    }
    (folder / "proxies.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
