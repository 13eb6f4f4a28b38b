"""Which way of searching needs the fewest pair evaluations? ``python -m benchmarks.efficiency``.

All methods work on the same pairs, the same objective and the same evaluator: an emulator of an embedded model
(``benchmarks.emulator``), learnt from measured settings, under noise as measured (``benchmarks.noise``). The gain of a
setting is the emulator's, without noise: what an endless held-out set would show; a setting that breaks a guard is
worth nothing. Runs are kept one by one and the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.emulator import Emulator, Landscape, weighted
from benchmarks.landscape import MODEL, RESULT
from benchmarks.machine import machine
from benchmarks.rivals import METHODS
from benchmarks.simulated import LOWER_IS_BETTER, Noise, Simulator, Terrain
from stg_tune.records import GuidanceSpec
from stg_tune.search import SearchPlan, load_space, split_pairs
from stg_tune.search.statistics import paired_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.rivals import Step
    from stg_tune.search.space import SearchSpace

OURS = "stg-tune"
SHARE = 0.95
"""Of the best gain found by any method."""
DEPTHS = {"spatial": 8, "temporal": 8}
DEFAULT_CFG = 7.0
NUM_STEPS = 10
PROMPTS = 240
FLOORS = {"at_least_fraction": 1.0, "at_most_fraction": -1.0}


@dataclass(frozen=True, kw_only=True)
class Emulated(Terrain):
    """A terrain whose gains are those of a measured model."""

    emulator: Emulator
    """Foretells gains per scorer."""

    def gains(self, spec: GuidanceSpec, noise: Noise) -> Mapping[str, float]:
        """Scorer -> gain in the default's standard deviations."""
        del noise
        return self.emulator.gains(spec)


@dataclass(frozen=True, kw_only=True)
class World:
    """What is searched."""

    space: SearchSpace
    """Ranges and objective of the embedded model."""
    noise: Noise
    """How scores vary."""
    terrain: Emulated
    """What is true."""

    def simulator(self, seed: int) -> Simulator:
        """An evaluator with its own prompts and noise."""
        return Simulator(noise=self.noise, terrain=self.terrain, seed=seed)

    def plan(self, seed: int, budget: int) -> SearchPlan:
        """What ``stg-tune search`` would plan."""
        search, held = split_pairs([f"prompt {i}" for i in range(PROMPTS)], seed=seed, search=24, holdout=240)
        return SearchPlan(
            model="emulated",
            space=self.space,
            depths=DEPTHS,
            num_steps=NUM_STEPS,
            baseline=GuidanceSpec(cfg_scale=DEFAULT_CFG),
            scorers=self.noise.kinds(),
            search_pairs=search,
            holdout_pairs=held,
            budget=str(budget),
            seed=seed,
        )

    def worth(self, spec: GuidanceSpec) -> float:
        """True gain of the objective over the default; nothing for a setting that truly breaks a guard."""
        if spec == GuidanceSpec(cfg_scale=DEFAULT_CFG):
            return 0.0
        gains = self.terrain.gains(spec, self.noise)
        gain = float(weighted({name: np.array(value) for name, value in gains.items()}, self.space.objective.weights))
        return gain if self._keeps_guards(gains) else min(gain, 0.0)

    def _keeps_guards(self, gains: Mapping[str, float]) -> bool:
        for guard in self.space.objective.guards:
            item, sign = self.noise.scorers[guard.scorer], -1.0 if guard.scorer in LOWER_IS_BETTER else 1.0
            if guard.rule == "drop_at_most_sd":
                kept = gains[guard.scorer] >= -guard.value
            else:
                ratio = 1 + sign * gains[guard.scorer] * item.spread / item.mean
                kept = FLOORS[guard.rule] * ratio >= FLOORS[guard.rule] * guard.value
            if not kept:
                return False
        return True


def world(table: Path = RESULT) -> World:
    """The embedded model as measured."""
    emulator = Emulator(landscape=Landscape.read(table), depths=DEPTHS)
    terrain = Emulated(emulator=emulator, default_cfg=DEFAULT_CFG)
    return World(space=load_space(MODEL, DEPTHS), noise=Noise.read(), terrain=terrain)


def curve(trail: Sequence[tuple[int, float]], spent: int) -> float:
    """Gain of the best setting that a method had after ``spent`` evaluations."""
    return next((gain for at, gain in reversed(trail) if at <= spent), 0.0)


def reached(trail: Sequence[tuple[int, float]], goal: float) -> float:
    """Evaluations after which a method has, and keeps, at least ``goal``; infinite when it never does."""
    below = max((i for i, (_, gain) in enumerate(trail) if gain < goal), default=-1)
    return trail[below + 1][0] if below + 1 < len(trail) else math.inf


def summary(runs: Mapping[str, Sequence[Sequence[tuple[int, float]]]]) -> dict[str, Any]:
    """Evaluations to ``SHARE`` of the best mean gain of any method, and the gain at the spending of our own search."""
    finals = {name: fmean(trail[-1][1] for trail in trails) for name, trails in runs.items()}
    goal = SHARE * max(finals.values())
    spent = max(trail[-1][0] for trail in runs[OURS])
    own = mean_reaches(runs[OURS], goal)
    found: dict[str, Any] = {"goal": round(goal, 4), "compared_after": spent, "methods": {}}
    for name, trails in runs.items():
        here = mean_reaches(trails, goal)
        differences = [curve(mine, spent) - curve(other, spent) for mine, other in zip(runs[OURS], trails, strict=True)]
        interval = paired_interval(differences, [str(i) for i in range(len(differences))])
        found["methods"][name] = {
            "final_gain": round(finals[name], 4),
            "gain_compared": round(fmean(curve(trail, spent) for trail in trails), 4),
            "ours_less_this": {key: round(getattr(interval, key), 4) for key in ("mean", "low", "high")},
            "evaluations_to_goal": _finite(here),
            "times_ours": _finite(here / own) if math.isfinite(own) else None,
            "median_evaluations_to_goal": _finite(median(reached(trail, goal) for trail in trails)),
            "runs_that_reach_it": sum(math.isfinite(reached(trail, goal)) for trail in trails),
            "runs": len(trails),
        }
    return found


def mean_reaches(trails: Sequence[Sequence[tuple[int, float]]], goal: float) -> float:
    """Evaluations after which the mean over the runs has, and keeps, at least ``goal``."""
    times = sorted({at for trail in trails for at, _ in trail})
    means = [(at, fmean(curve(trail, at) for trail in trails)) for at in times]
    return reached(means, goal)


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def _told(found: World, steps: Sequence[Step]) -> list[tuple[int, float]]:
    return [(step.spent, round(found.worth(step.spec), 5)) for step in steps]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write the summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficiency", description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=3000, help="of stg-tune, confirmation included")
    parser.add_argument("--rivals", type=int, default=6000, help="evaluations of each other method")
    parser.add_argument("--table", type=Path, default=RESULT, help="measured settings")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/efficiency.json"))
    options = parser.parse_args(arguments)
    facts = {"budget": options.budget, "rivals": options.rivals}
    kept: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    runs: dict[str, dict[str, Any]] = kept["runs"] if kept.get("settings") == facts else {}
    found = world(options.table)
    for name in options.methods:
        for seed in range(options.seeds):
            if str(seed) in runs.setdefault(name, {}):
                continue
            budget = options.budget if name == OURS else options.rivals
            plan = found.plan(seed, options.budget)
            runs[name][str(seed)] = _told(found, METHODS[name](found.simulator(seed), plan, seed, budget))
            _write(options.out, {"settings": facts, "machine": machine(), "runs": runs})
    complete = {name: list(trails.values()) for name, trails in runs.items() if len(trails) >= options.seeds}
    if OURS in complete:
        data = {"settings": facts, "machine": machine(), "summary": summary(complete), "runs": runs}
        _write(options.out, data)
        sys.stdout.write(json.dumps(data["summary"]) + "\n")


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
