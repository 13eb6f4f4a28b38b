"""What of a preset holds elsewhere: new prompts, new seeds, more steps, another resolution; proxies beside the truth.

    python -m benchmarks.transfer runs/demo --videos 192  # a finished run with a preset: results/transfer/MODEL-demo

Settings: the preset, the best CFG of its run, a published-style setting (the middle block of every stack at scale 1, as
the published settings of larger models have it) and a few random ones, each against the default on the same videos.
*Gain* is the search's own objective; the truth is the independent judge of the embedded models: the Frechet distance to
real videos, and how often digit, colour and direction of the caption are right. *New prompts* have guided neither the
search nor the choice of its winner and, where enough captions are left, have not measured it either. Every setting of
every condition is kept in ``--folder`` by all that decides it, so that a run that was stopped goes on, and several runs
do not mix.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.machine import machine
from stg_tune import models
from stg_tune.embedded import WEIGHTS, digits
from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.judge import load_judge
from stg_tune.embedded.proxies_table import random_spec
from stg_tune.embedded.truth import Judged, distance_gain
from stg_tune.generate import Generator
from stg_tune.preset import load as load_preset
from stg_tune.records import Evaluation, GuidanceSpec, Pair, Segment, SkipTerm
from stg_tune.score import embedded_scorers
from stg_tune.search.bench import Measurement
from stg_tune.search.differences import check_guard, gain_between
from stg_tune.search.holdout import holdout_of, prompts_of
from stg_tune.search.objective import Judge as ProxyJudge
from stg_tune.search.plan import load_run
from stg_tune.search.session import divide_plan
from stg_tune.search.statistics import Interval, paired_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.embedded.judge import Judge
    from stg_tune.models.base import ModelEntry
    from stg_tune.score import Scorer
    from stg_tune.search.objective import Objective
    from stg_tune.search.plan import RunFile

BATCH = 16
FIRST_SEED = 5_000_000
JUDGED_SIZE = 64
"""Pixels a side of what the judge was trained on."""
ENOUGH = 40
"""New captions that must be left, or those of the confirmation are taken too."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How videos are made, and of what."""

    name: str
    """For people."""
    pairs: tuple[Pair, ...]
    """Prompts and seeds."""
    num_inference_steps: int | None = None
    """``None``: the model's own."""
    size: int | None = None
    """Pixels a side; ``None``: the model's own."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one setting gave under one condition."""

    rows: tuple[Evaluation, ...]
    """Proxy scores of each pair."""
    judged: Judged
    """What the independent judge saw."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    condition: str
    """Under which condition."""
    setting: str
    """Which setting, against the default."""
    videos: int
    """How many of each."""
    gain: Interval
    """Of the objective, in baseline standard deviations."""
    guards: str
    """``kept``, or the guards that are not proved to be kept."""
    frechet: tuple[float, float, float]
    """Gain in Frechet distance (positive is nearer to real videos) with its 95 % bootstrap interval."""
    right: Interval
    """Gain in the share of right answers to digit, colour and direction."""


class Studio:
    """Makes, scores and judges videos of one model; keeps them setting by setting.

    Args:
        entry: The model.
        folder: Where they are kept.
        pipeline: The model, loaded.
        scorer: The proxies.
        judge: The truth.
        weights: Checksum of all that is loaded.
    """

    def __init__(
        self, entry: ModelEntry, folder: Path, pipeline: Any, scorer: Scorer, judge: Judge, weights: str
    ) -> None:
        self.entry, self.folder, self.pipeline, self.scorer, self.judge = entry, folder, pipeline, scorer, judge
        self.weights = weights

    def path(self, condition: Condition, spec: GuidanceSpec) -> Path:
        """Where one setting under one condition is kept: by setting, pairs, steps, size, and weights."""
        data = {
            "pairs": [pair.key for pair in condition.pairs],
            "steps": condition.num_inference_steps,
            "size": condition.size,
            "weights": self.weights,
            "scorers": {kind.name: kind.weights for kind in self.scorer.kinds},
        }
        digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / condition.name.replace(" ", "_").replace(",", "") / f"{spec.hash()}-{digest}.npz"

    def arm(self, condition: Condition, spec: GuidanceSpec) -> Arm:
        """One setting under one condition; answered from the folder when it is there."""
        path = self.path(condition, spec)
        if not path.exists():
            self._make(condition, spec, path)
        with np.load(path, allow_pickle=False) as saved:
            scores = json.loads(str(saved["scores"]))
            judged = Judged(features=saved["features"].astype(np.float64), answers=saved["answers"].astype(np.int64))
            work = saved["forwards"].tolist()
        rows = (
            Evaluation(config=spec.hash(), pair=pair, scores=found, forwards=forwards)
            for pair, found, forwards in zip(condition.pairs, scores, work, strict=True)
        )
        return Arm(rows=tuple(rows), judged=judged)

    @torch.inference_mode()
    def _make(self, condition: Condition, spec: GuidanceSpec, path: Path) -> None:
        generator = self._generator(condition)
        scores: list[dict[str, float]] = []
        work: list[float] = []
        seen = []
        for first in range(0, len(condition.pairs), BATCH):
            pairs = condition.pairs[first : first + BATCH]
            batch = generator.many(spec, pairs)
            work += [made.forwards for made in batch]
            pixels = to_pixels(np.stack([made.video.frames.numpy() for made in batch]))
            marks = self.scorer((pixels + 1) / 2, [pair.prompt for pair in pairs])
            scores += [{name: s.value for name, s in mark.items() if s.value is not None} for mark in marks]
            seen.append(self.judge.look(fit(pixels)))
        features, answers = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        small, kept = features.astype(np.float32), np.array(json.dumps(scores))
        np.savez(part, features=small, answers=answers, forwards=np.array(work), scores=kept)
        part.replace(path)

    def _generator(self, condition: Condition) -> Generator:
        size, steps = condition.size, condition.num_inference_steps
        return Generator(self.pipeline, self.entry, num_inference_steps=steps, height=size, width=size)


def fit(pixels: torch.Tensor) -> torch.Tensor:
    """Videos (batch, frames, 3, height, width) at the size that the judge knows."""
    if pixels.shape[-2:] == (JUDGED_SIZE, JUDGED_SIZE):
        return pixels
    flat = F.interpolate(pixels.flatten(0, 1), (JUDGED_SIZE, JUDGED_SIZE), mode="area")
    return flat.view(*pixels.shape[:3], JUDGED_SIZE, JUDGED_SIZE)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Captions that a run has used."""

    searched: tuple[str, ...]
    """They guided the search."""
    chosen: tuple[str, ...]
    """They chose its winner."""
    measured: tuple[str, ...]
    """They measured it."""

    @classmethod
    def by(cls, run: RunFile) -> Seen:
        """What a finished run has used under all of its budgets."""
        plan = run.plan
        division = divide_plan(plan, [item.evaluations for item in run.allowances if item.evaluations is not None])
        held = holdout_of(plan, division).first(division.confirm)
        searched = prompts_of(plan.search_pairs)
        return cls(
            searched=tuple(searched), chosen=tuple(prompts_of(held.select)), measured=tuple(prompts_of(held.confirm))
        )

    def new(self, captions: Sequence[str]) -> list[str]:
        """Captions that are new to the setting; those that only measured it are taken where few others are left."""
        unused = [caption for caption in captions if caption not in {*self.searched, *self.chosen}]
        apart = [caption for caption in unused if caption not in set(self.measured)]
        return apart if len(apart) >= ENOUGH else unused


def conditions(seen: Seen, videos: int, *, steps: int, size: int) -> list[Condition]:
    """Where the preset is looked at; all but the first on captions that are new to it, all with new seeds."""
    old, new = list(seen.searched), seen.new(digits.captions())
    random.Random(0).shuffle(new)
    fresh = _pairs(new, videos, FIRST_SEED + videos)
    return [
        Condition(name="search prompts, new seeds", pairs=_pairs(old, videos, FIRST_SEED)),
        Condition(name="new prompts", pairs=fresh),
        Condition(name=f"new prompts, {steps} steps", pairs=fresh, num_inference_steps=steps),
        Condition(name=f"new prompts, {size} pixels", pairs=fresh, size=size),
    ]


def _pairs(captions: Sequence[str], count: int, first: int) -> tuple[Pair, ...]:
    return tuple(Pair(prompt=captions[i % len(captions)], seed=first + i) for i in range(count))


def published_style(depths: Mapping[str, int], cfg_scale: float) -> GuidanceSpec:
    """The middle block of every stack, skipped whole at scale 1 during the whole schedule, CFG as it was."""
    layers = {stack: (depth // 2,) for stack, depth in depths.items()}
    term = SkipTerm(name="joint", skip_layers=layers, skip_op="residual", stg_scale=1.0)
    return GuidanceSpec(cfg_scale=cfg_scale, segments=(Segment(terms=(term,)),))


def compare(
    condition: Condition, name: str, one: Arm, default: Arm, *, objective: Objective, scorer: Scorer, judge: Judge
) -> Row:
    """A setting against the default: proxies, guards, truth."""
    kinds = {kind.name: kind for kind in scorer.kinds}
    proxies = ProxyJudge.calibrate(objective, kinds, default.rows).in_units_of(condition.pairs)
    new, old = (Measurement(spec=_NOBODY, rows=arm.rows, deltas={}, violations={}) for arm in (one, default))
    checked = (check_guard(proxies, guard, one.rows, level=0.95) for guard in objective.guards)
    open_guards = [guard.name for guard in checked if not guard.holds]
    truths = np.array([digits.truth(pair.prompt) for pair in condition.pairs])
    right = [(arm.judged.answers == truths).mean(1) for arm in (one, default)]
    return Row(
        condition=condition.name,
        setting=name,
        videos=len(condition.pairs),
        gain=gain_between(proxies, new, old, level=0.95),
        guards="; ".join(open_guards) or "kept",
        frechet=distance_gain(judge, one.judged, default.judged),
        right=paired_interval((right[0] - right[1]).tolist(), [pair.prompt for pair in condition.pairs]),
    )


_NOBODY = GuidanceSpec(cfg_scale=1.0)


def write(rows: Sequence[Row], out: Path, source: str, command: str) -> None:
    """Write ``transfer.csv``, ``transfer.json`` and ``README.md``; ``command`` is what repeats them."""
    out.mkdir(parents=True, exist_ok=True)
    flat = [_flat(row) for row in rows]
    with (out / "transfer.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(flat[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
    data = {"source": source, "command": command, "machine": machine(), "rows": [asdict(row) for row in rows]}
    (out / "transfer.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(table(rows, source, command), encoding="utf-8")


def _flat(row: Row) -> dict[str, str]:
    triples = {"gain": (row.gain.mean, row.gain.low, row.gain.high), "frechet": row.frechet}
    triples["right"] = (row.right.mean, row.right.low, row.right.high)
    ends = ("", "_low", "_high")
    numbers = {
        f"{name}{end}": f"{x:.4f}" for name, triple in triples.items() for end, x in zip(ends, triple, strict=True)
    }
    head = {"condition": row.condition, "setting": row.setting, "videos": str(row.videos)}
    return {**head, **numbers, "guards": row.guards}


def table(rows: Sequence[Row], source: str, command: str) -> str:
    """For people."""
    lines = [
        "| condition | setting | gain of the objective | gain in Frechet distance | gain in right answers | guards |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        gains = (
            _shown(row.gain.mean, row.gain.low, row.gain.high),
            _shown(*row.frechet),
            _shown(row.right.mean, row.right.low, row.right.high),
        )
        lines.append(f"| {row.condition} | {row.setting} | {' | '.join(gains)} | {row.guards} |")
    videos = rows[0].videos
    return (
        "# What of a preset holds elsewhere\n\n"
        f"{source}. Each line against the default on the same {videos} videos; positive is better; 95 % intervals in\n"
        "brackets. The search sees the objective only (standard deviations of the default); Frechet distance and\n"
        "right answers (share of digit, colour and direction as in the caption) come from the independent judge.\n"
        f"Repeat with `{command}`.\n\n" + "\n".join(lines) + "\n"
    )


def _shown(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every setting under every condition."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run of an embedded model, with its preset.json")
    parser.add_argument("--videos", type=int, default=192, help="of each setting and condition (default: 192)")
    parser.add_argument("--random", type=int, default=3, help="random settings (default: 3)")
    parser.add_argument("--steps", type=int, help="denoising steps of the third condition (default: twice the model's)")
    parser.add_argument("--size", type=int, default=80, help="pixels a side of the fourth (default: 80)")
    parser.add_argument("--folder", type=Path, default=Path("runs/transfer"), help="what was made is kept here")
    parser.add_argument("--out", type=Path, help="default: results/transfer/MODEL-RUN")
    options = parser.parse_args(arguments)
    run, preset = load_run(options.run), load_preset(options.run / "preset.json")
    plan, entry = run.plan, models.entry(run.plan.model)
    out = options.out or Path("results/transfer") / f"{entry.name}-{options.run.resolve().name}"
    studio = Studio(
        entry, options.folder / entry.name, models.load(entry), embedded_scorers(), load_judge(), checksum(entry.name)
    )
    rng = random.Random(7)
    settings = {"tuned": preset.spec}
    if preset.evidence is not None:
        settings["best CFG of the run"] = preset.evidence.best_cfg
    settings["published style"] = published_style(entry.depths, plan.baseline.cfg_scale)
    settings |= {f"random {i + 1}": random_spec(rng, entry.depths) for i in range(options.random)}
    steps = options.steps or 2 * entry.defaults.num_inference_steps
    source = f"Preset of {entry.name}, run {options.run.resolve().name}, budget {plan.budget}, seed {plan.seed}"
    rows = []
    for condition in conditions(Seen.by(run), options.videos, steps=steps, size=options.size):
        default = studio.arm(condition, plan.baseline)
        for name, spec in settings.items():
            rows.append(
                compare(
                    condition, name, studio.arm(condition, spec), default,
                    objective=plan.space.objective, scorer=studio.scorer, judge=studio.judge,
                )
            )  # fmt: skip
            write(rows, out, source, command_of(options, steps))


def command_of(options: argparse.Namespace, steps: int) -> str:
    """What repeats a table, from the folder of the project."""
    sizes = f"--videos {options.videos} --random {options.random} --steps {steps} --size {options.size}"
    return f"python -m benchmarks.transfer runs/{options.run.resolve().name} {sizes}"


def checksum(model: str) -> str:
    """Of the weights of an embedded model, the scorers and the judge."""
    digest = hashlib.sha256()
    for file in sorted(WEIGHTS.rglob("*")):
        if file.is_file() and file.relative_to(WEIGHTS).parts[0] in (model, "scorers", "judge"):
            digest.update(file.relative_to(WEIGHTS).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    main()
