"""Which way of searching needs the fewest pair evaluations? ``python -m benchmarks.efficiency``.

All methods work on the same pairs, the same objective and the same evaluator: an emulator of an embedded model
(``benchmarks.emulator``), learnt from measured settings, under noise as measured (``benchmarks.noise``). The gain of a
setting is the emulator's, without noise: what an endless held-out set would show; a setting that breaks a guard is
worth nothing. The space is the model's own, or as it was when the runs were made (``benchmarks/spaces``). Everything
is done on two emulators, because one that thinks as our own optimiser does would favour it. Runs are kept one by one,
and the command goes on where it was stopped; runs of other code, noise or measurements are dropped. Where a method has
not arrived, ``--methods METHOD --rivals N`` gives it more; longer runs are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import exhaustive, landscape
from benchmarks.efficiency_table import summary, table
from benchmarks.emulator import KINDS, Emulator, Landscape, cross_validate, weighted
from benchmarks.machine import machine
from benchmarks.rivals import METHODS, OURS, RAY
from benchmarks.simulated import LOWER_IS_BETTER, Noise, Simulator, Terrain, noise_of
from stg_tune import models
from stg_tune.records import GuidanceSpec
from stg_tune.search import SearchPlan, split_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.rivals import Step
    from stg_tune.models.base import ModelEntry
    from stg_tune.search.space import SearchSpace

MODELS = ("open-sora-tiny", "mochi-tiny")
"""Those with a table of settings."""
PROMPTS = 240
RESULTS = Path("results/benchmarks/efficiency")
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

    entry: ModelEntry
    """The embedded model."""
    space: SearchSpace
    """Its ranges and objective."""
    noise: Noise
    """How scores vary."""
    terrain: Emulated
    """What is true."""

    @property
    def default(self) -> GuidanceSpec:
        """What everything is compared with."""
        return GuidanceSpec(cfg_scale=self.entry.defaults.cfg_scale)

    def simulator(self, seed: int) -> Simulator:
        """An evaluator with its own prompts and noise."""
        return Simulator(noise=self.noise, terrain=self.terrain, seed=seed)

    def plan(self, seed: int, budget: int) -> SearchPlan:
        """What ``stg-tune search`` would plan."""
        search, held = split_pairs([f"prompt {i}" for i in range(PROMPTS)], seed=seed, search=24, holdout=240)
        return SearchPlan(
            model="emulated",
            space=self.space,
            depths=self.entry.depths,
            num_steps=self.entry.defaults.num_inference_steps,
            baseline=self.default,
            scorers=self.noise.kinds(),
            search_pairs=search,
            holdout_pairs=held,
            budget=str(budget),
            seed=seed,
        )

    def worth(self, spec: GuidanceSpec) -> float:
        """True gain of the objective over the default; nothing for a setting that truly breaks a guard."""
        if spec == self.default:
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


def world(entry: ModelEntry, measured: Landscape, kind: str) -> World:
    """An embedded model as measured.

    Args:
        entry: The model.
        measured: Its table.
        kind: Of emulator.
    """
    emulator = Emulator(landscape=measured, depths=entry.depths, kind=kind)
    terrain = Emulated(emulator=emulator, default_cfg=entry.defaults.cfg_scale)
    noise = Noise.read(noise_of(entry.name))
    return World(entry=entry, space=landscape.space_of(entry), noise=noise, terrain=terrain)


def digest(paths: Sequence[Path]) -> str:
    """The same for files of the same content only."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def sources(model: str) -> list[Path]:
    """Everything that decides the numbers of a model."""
    here = Path(__file__).parent
    names = ("efficiency", "emulator", "exhaustive", "landscape", "memory", "rivals", "rival_ray", "simulated")
    search = sorted((here.parent / "stg_tune" / "search").glob("*.py"))
    tables = [folder / f"{model}.csv" for folder in (landscape.RESULTS, exhaustive.RESULTS)]
    return [*tables, noise_of(model), landscape.space_file(model), *(here / f"{name}.py" for name in names), *search]


def _told(found: World, steps: Sequence[Step]) -> dict[str, Any]:
    """What is kept of a run: true gains by spending, and the setting that it ends with."""
    trail = [(step.spent, round(found.worth(step.spec), 5)) for step in steps]
    return {"trail": trail, "final": steps[-1].spec.to_dict()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write summary and table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficiency", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    parser.add_argument("--emulators", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=3000, help="of stg-tune, confirmation included, and of Ray Tune")
    parser.add_argument("--rivals", type=int, default=9600, help="of each other method")
    parser.add_argument("--out", type=Path, help="default: results/benchmarks/efficiency/MODEL.json")
    options = parser.parse_args(arguments)
    options.out = options.out or RESULTS / f"{options.model}.json"
    entry = models.entry(options.model)
    measured = Landscape.of(entry)
    facts = {"sources": digest(sources(entry.name))}
    kept: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    data = {"model": entry.name, "settings": facts, "machine": machine(), "summary": {}, "runs": {}}
    if kept.get("settings") == facts:
        data["runs"] = kept["runs"]
    for kind in options.emulators:
        _fill(data, world(entry, measured, kind), kind, options)
    _finish(data, entry, measured, options)


def _seeds(options: argparse.Namespace) -> range:
    return range(options.first_seed, options.first_seed + options.seeds)


def _fill(data: dict[str, Any], found: World, kind: str, options: argparse.Namespace) -> None:
    """Make the runs that are not there."""
    runs = data["runs"].setdefault(kind, {})
    for name in options.methods:
        for seed in _seeds(options):
            budget = options.budget if name in (OURS, RAY) else options.rivals
            if _is_there(name, runs.setdefault(name, {}).get(str(seed)), budget):
                continue
            plan = found.plan(seed, options.budget)
            told = _told(found, METHODS[name](found.simulator(seed), plan, seed, budget))
            runs[name][str(seed)] = {"budget": budget, **told}
            _write(options.out, data)
        sys.stderr.write(f"{kind}, {name}: done\n")


def _is_there(name: str, run: Mapping[str, Any] | None, budget: int) -> bool:
    """Whether a run needs not be made: ours and Ray Tune's choose by their budget, the others just go on longer."""
    if run is None:
        return False
    return bool(run["budget"] == budget if name in (OURS, RAY) else run["budget"] >= budget)


def _finish(data: dict[str, Any], entry: ModelEntry, measured: Landscape, options: argparse.Namespace) -> None:
    """Summary and table of what is complete."""
    weights = landscape.space_of(entry).objective.weights
    told = {}
    for kind, runs in data["runs"].items():
        seeds = {str(seed) for seed in _seeds(options)}
        complete = {
            name: [runs[name][str(seed)]["trail"] for seed in _seeds(options)]
            for name in METHODS
            if seeds <= runs.get(name, {}).keys()
        }
        if OURS in complete:
            data["summary"][kind] = summary(complete)
            told[kind] = cross_validate(measured, entry.depths, weights, kind)
    data["emulators"] = told
    _write(options.out, data)
    text = table(data["summary"], {"model": entry.name, "measured": len(measured.specs), "emulators": told})
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    sys.stdout.write(json.dumps(data["summary"]) + "\n")


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
