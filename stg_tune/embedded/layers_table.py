"""Every single layer against the truth: ``python -m stg_tune.embedded.layers_table``.

Plain CFG scales, then every block x operation at some strengths, all on the same pairs; then plain CFG again and the
best arms on many more pairs. What an arm gains is its Frechet joint distance (quality,
diversity and obedience in one number) against that of the best plain CFG on the same pairs.
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
from stg_tune.embedded.joint import load_joint
from stg_tune.embedded.judge import Judge, load_judge
from stg_tune.embedded.truth import Judged, asked_of, joint_gain, judge_arm, single_layer, truth_pairs
from stg_tune.generate import Generator
from stg_tune.records import SKIP_OPS, GuidanceSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stg_tune.records import Pair

CFG_SCALES = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
FINAL_CFG_SCALES = (1.25, 2.0, 3.0, 4.0)
STRENGTHS = ((1.0, 0.25), (1.0, 0.75), (3.0, 1.0))
"""(CFG scale, STG scale): skip guidance alone, and beside the CFG that the captions need."""


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
    joint: float
    """Frechet joint distance of videos and captions to real ones, lower is better; it falls with more videos."""
    gain: float
    """Joint distance of the best plain CFG minus this one on the same pairs; positive is better."""
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
        self.joint = load_joint()
        self.pairs = pairs
        self.asked = asked_of(pairs, generator.entry)
        self.folder = folder
        self.rows: list[Row] = []

    def look(self, spec: GuidanceSpec, videos: int) -> Judged:
        """The judged videos of an arm."""
        return judge_arm(self.generator, self.judge, spec, self.pairs[:videos], self.folder)

    def distance(self, judged: Judged) -> float:
        """The Frechet joint distance of an arm."""
        return self.joint.distance(judged.features, self.asked[: len(judged.features)])

    def add(self, arm: str, spec: GuidanceSpec, baseline: GuidanceSpec, videos: int) -> Row:
        """Judge an arm against the baseline and keep its row."""
        judged, plain = self.look(spec, videos), self.look(baseline, videos)
        gain, low, high = joint_gain(self.joint, judged, plain, self.asked[:videos])
        verdict = self.judge.verdict(judged.features, judged.answers, [pair.prompt for pair in self.pairs[:videos]])
        scale = next((term.stg_scale for segment in spec.segments for term in segment.terms), 0.0)
        row = Row(
            arm=arm,
            cfg_scale=spec.cfg_scale,
            stg_scale=scale,
            videos=videos,
            frechet=verdict.frechet,
            joint=self.distance(judged),
            gain=gain,
            gain_low=low,
            gain_high=high,
            digit=verdict.digit_accuracy,
            colour=verdict.colour_accuracy,
            direction=verdict.direction_accuracy,
        )
        self.rows.append(row)
        print(json.dumps(row.__dict__), flush=True)  # noqa: T201
        return row

    def write(self, path: Path) -> None:
        """Write all rows: those with most videos first, then by joint distance."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            names = [field.name for field in fields(Row)]
            writer.writerow(names)
            for row in sorted(self.rows, key=lambda row: (-row.videos, row.joint)):
                values = (getattr(row, name) for name in names)
                writer.writerow([f"{value:.4g}" if isinstance(value, float) else value for value in values])


def best_cfg(table: Table, scales: Sequence[float], videos: int) -> GuidanceSpec:
    """The plain CFG scale with the smallest joint distance."""
    specs = [GuidanceSpec(cfg_scale=scale) for scale in scales]
    distances = [table.distance(table.look(spec, videos)) for spec in specs]
    return specs[distances.index(min(distances))]


def arms(depths: dict[str, int], strengths: Sequence[tuple[float, float]]) -> Iterator[tuple[str, GuidanceSpec]]:
    """Name and specification of every single layer x operation at each (CFG scale, STG scale)."""
    for cfg_scale, stg_scale in strengths:
        for stack, depth in depths.items():
            for index in range(depth):
                for op in SKIP_OPS:
                    yield f"{stack}.{index}.{op}", single_layer(stack, index, op, stg_scale, cfg_scale)


def strength(text: str) -> tuple[float, float]:
    """``CFG:STG``, such as ``3:0.5``."""
    cfg_scale, stg_scale = text.split(":")
    return float(cfg_scale), float(stg_scale)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill the table of one embedded model."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.layers_table", description=__doc__)
    parser.add_argument("--model", default="open-sora-tiny")
    parser.add_argument("--videos", type=int, default=256, help="videos an arm (default: 256)")
    parser.add_argument("--final-videos", type=int, default=1024, help="for CFG and the best arms (default: 1024)")
    parser.add_argument("--final-arms", type=int, default=5, help="how many best arms get more videos (default: 5)")
    parser.add_argument("--at", type=strength, nargs="+", default=STRENGTHS, metavar="CFG:STG", help="of single layers")
    parser.add_argument("--cfg-scales", type=float, nargs="+", default=list(CFG_SCALES))
    parser.add_argument("--final-cfg-scales", type=float, nargs="+", default=list(FINAL_CFG_SCALES))
    parser.add_argument("--folder", type=Path, default=Path("training/truth"), help="judged videos are kept below it")
    parser.add_argument("--out", type=Path, default=Path("results/embedded"))
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    pairs = truth_pairs(max(options.videos, options.final_videos))
    table = Table(Generator(models.load(entry), entry), load_judge(), pairs, options.folder / entry.name)
    with torch.inference_mode():
        fill(table, dict(entry.depths), options)
    table.write(options.out / options.model / "layers.csv")


def fill(table: Table, depths: dict[str, int], options: argparse.Namespace) -> None:
    """CFG sweep, all single layers, then the best with more videos."""
    baseline = best_cfg(table, options.cfg_scales, options.videos)
    for scale in options.cfg_scales:
        table.add("cfg", GuidanceSpec(cfg_scale=scale), baseline, options.videos)
    tried = {}
    for arm, spec in arms(depths, options.at):
        row = table.add(arm, spec, baseline, options.videos)
        tried[row.joint] = (arm, spec)
    finalists = [("cfg", GuidanceSpec(cfg_scale=scale)) for scale in options.final_cfg_scales]
    finalists += [tried[key] for key in sorted(tried)[: options.final_arms]]
    final_baseline = best_cfg(table, options.final_cfg_scales, options.final_videos)
    for arm, spec in finalists:
        table.add(arm, spec, final_baseline, options.final_videos)


if __name__ == "__main__":
    main()
