"""Every single layer against the truth: ``python -m stg_tune.embedded.layers_table``.

First the plain CFG scales, then every block x operation x scale at the best of them; all arms on the same pairs.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from stg_tune import models
from stg_tune.embedded.judge import Judge, load_judge
from stg_tune.embedded.truth import Judged, distance, distance_gain, judge_arm, single_layer, truth_pairs
from stg_tune.generate import Generator
from stg_tune.records import SKIP_OPS, GuidanceSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stg_tune.records import Pair

CFG_SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    arm: str
    """``cfg``, or ``stack.layer.operation``."""
    cfg_scale: float
    """``g``."""
    stg_scale: float
    """``w``; 0 for plain CFG."""
    videos: int
    """How many were judged."""
    frechet: float
    """Frechet distance to real videos of the test split, lower is better."""
    gain: float
    """Distance of the best plain CFG minus this one on the same pairs; positive is better."""
    gain_low: float
    """Lower end of its 95 % bootstrap interval."""
    gain_high: float
    """Upper end."""
    digit: float
    """Share of right digits."""
    colour: float
    """Share of right colours."""
    direction: float
    """Share of right directions."""


class Table:
    """Judges arms, keeps the rows and writes them."""

    def __init__(self, generator: Generator, judge: Judge, pairs: Sequence[Pair], folder: Path) -> None:
        self.generator = generator
        self.judge = judge
        self.pairs = pairs
        self.folder = folder
        self.rows: list[Row] = []

    def look(self, spec: GuidanceSpec, videos: int) -> Judged:
        """The judged videos of an arm."""
        return judge_arm(self.generator, self.judge, spec, self.pairs[:videos], self.folder)

    def add(self, arm: str, spec: GuidanceSpec, baseline: GuidanceSpec, videos: int) -> Row:
        """Judge an arm against the baseline and keep its row."""
        judged, plain = self.look(spec, videos), self.look(baseline, videos)
        gain, low, high = distance_gain(self.judge, judged, plain)
        verdict = self.judge.verdict(judged.features, judged.answers, [pair.prompt for pair in self.pairs[:videos]])
        scale = spec.segments[0].terms[0].stg_scale if spec.segments else 0.0
        row = Row(
            arm=arm, cfg_scale=spec.cfg_scale, stg_scale=scale, videos=videos, frechet=verdict.frechet, gain=gain,
            gain_low=low, gain_high=high, digit=verdict.digit_accuracy, colour=verdict.colour_accuracy,
            direction=verdict.direction_accuracy,
        )  # fmt: skip
        self.rows.append(row)
        print(json.dumps(row.__dict__), flush=True)  # noqa: T201
        return row

    def write(self, path: Path) -> None:
        """Write all rows, best distance first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            names = [field.name for field in fields(Row)]
            writer.writerow(names)
            for row in sorted(self.rows, key=lambda row: row.frechet):
                values = (getattr(row, name) for name in names)
                writer.writerow([f"{value:.4g}" if isinstance(value, float) else value for value in values])


def best_cfg(table: Table, scales: Sequence[float], videos: int) -> GuidanceSpec:
    """The plain CFG scale with the smallest Frechet distance."""
    specs = [GuidanceSpec(cfg_scale=scale) for scale in scales]
    distances = [distance(table.judge, table.look(spec, videos)) for spec in specs]
    return specs[distances.index(min(distances))]


def arms(depths: dict[str, int], scales: Sequence[float], cfg_scale: float) -> Iterator[tuple[str, GuidanceSpec]]:
    """Name and specification of every single layer x operation x scale."""
    for scale in scales:
        for stack, depth in depths.items():
            for index in range(depth):
                for op in SKIP_OPS:
                    yield f"{stack}.{index}.{op}", single_layer(stack, index, op, scale, cfg_scale)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill the table of one embedded model."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.layers_table", description=__doc__)
    parser.add_argument("--model", default="open-sora-tiny")
    parser.add_argument("--videos", type=int, default=256, help="videos an arm (default: 256)")
    parser.add_argument("--final-videos", type=int, default=1024, help="for CFG and the best arms (default: 1024)")
    parser.add_argument("--final-arms", type=int, default=5, help="how many best arms get more videos (default: 5)")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.25, 0.75])
    parser.add_argument("--cfg-scales", type=float, nargs="+", default=list(CFG_SCALES))
    parser.add_argument("--folder", type=Path, default=Path("training/truth"), help="judged videos are kept here")
    parser.add_argument("--out", type=Path, default=Path("results/embedded"))
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    pairs = truth_pairs(max(options.videos, options.final_videos))
    table = Table(Generator(models.load(entry), entry), load_judge(), pairs, options.folder)
    with torch.inference_mode():
        fill(table, dict(entry.depths), options)
    table.write(options.out / options.model / "layers.csv")


def fill(table: Table, depths: dict[str, int], options: argparse.Namespace) -> None:
    """CFG sweep, all single layers, then the best with more videos."""
    baseline = best_cfg(table, options.cfg_scales, options.videos)
    for scale in options.cfg_scales:
        table.add("cfg", GuidanceSpec(cfg_scale=scale), baseline, options.videos)
    tried = {}
    for arm, spec in arms(depths, options.scales, baseline.cfg_scale):
        row = table.add(arm, spec, baseline, options.videos)
        tried[row.frechet] = (arm, spec)
    finalists = [("cfg", GuidanceSpec(cfg_scale=scale)) for scale in options.cfg_scales]
    finalists += [tried[key] for key in sorted(tried)[: options.final_arms]]
    final_baseline = best_cfg(table, options.cfg_scales, options.final_videos)
    for arm, spec in finalists:
        table.add(arm, spec, final_baseline, options.final_videos)


if __name__ == "__main__":
    main()
