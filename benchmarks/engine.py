"""What the engine itself costs: overhead, speed-up, time to the first result, memory of a long study.

    python benchmarks/engine.py overhead [--seconds 1] [--evaluations 150] [--workers 1]
    python benchmarks/engine.py speedup  [--model open-sora-tiny] [--evaluations 40]
    python benchmarks/engine.py first
    python benchmarks/engine.py memory   [--evaluations 10000]

Each prints one JSON object. `overhead` and `memory` evaluate made-up scores, `speedup` the model itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stg_tune.records import Evaluation, GuidanceSpec, Pair, ScoreKind
from stg_tune.search import Evaluate, Executor, SearchPlan, load_space, run_search, split_pairs
from stg_tune.search.executor import InlineExecutor, Task
from stg_tune.search.workers import RayExecutor, RaySettings, Recipe

if TYPE_CHECKING:
    from stg_tune.search.progress import ProgressEvent

DEPTHS = {"spatial": 8, "temporal": 8}
KINDS = tuple(
    ScoreKind(name=name, direction=direction, low=-1e9, high=1e9, unit="points", weights="made up")
    for name, direction in {
        "aesthetic": "maximize",
        "imaging_quality": "maximize",
        "temporal_lpips": "minimize",
        "alignment": "maximize",
        "motion": "maximize",
        "saturation": "minimize",
    }.items()
)


def draw(*words: object) -> float:
    """A standard normal number that depends on the words only."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big")).gauss(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Sleeper:
    """A recipe whose evaluations do nothing for a while."""

    seconds: float
    """Length of an evaluation."""

    def __call__(self, threads: int) -> Evaluate:
        """Nothing to load."""
        return self.evaluate

    def identity(self) -> dict[str, str]:
        """Nothing to compare."""
        return {}

    def evaluate(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        """Sleep, then make up scores."""
        time.sleep(self.seconds)
        scores = {
            kind.name: 5.0 + draw(kind.name, pair.key) + 0.5 * draw(kind.name, pair.key, spec.hash()) for kind in KINDS
        }
        scores |= {"motion": 2.0, "saturation": 0.1}
        return Evaluation(config=spec.hash(), pair=pair, scores=scores, seconds=max(self.seconds, 1e-6), forwards=20.0)


def plan_of(evaluations: int) -> SearchPlan:
    """A plan over made-up scores."""
    search, holdout = split_pairs([f"prompt {i}" for i in range(400)], seed=0, search=24, holdout=2000)
    return SearchPlan(
        model="engine",
        space=load_space("open-sora-tiny", DEPTHS),
        depths=DEPTHS,
        num_steps=10,
        baseline=GuidanceSpec(cfg_scale=3.5),
        scorers=KINDS,
        search_pairs=search,
        holdout_pairs=holdout,
        budget=str(evaluations),
    )


def executor_of(recipe: Recipe, workers: int) -> RayExecutor:
    """Workers with a core each."""
    return RayExecutor(recipe, RaySettings(workers=workers, cpus=1, gpus=0))


def overhead(arguments: argparse.Namespace) -> dict[str, object]:
    """Wall time of a whole search over the time that its evaluations take."""
    recipe, plan = Sleeper(seconds=arguments.seconds), plan_of(arguments.evaluations)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.workers == 1:
            begun = time.perf_counter()
            result = run_search(plan, recipe.evaluate, directory=Path(folder))
            wall = time.perf_counter() - begun
        else:
            with executor_of(recipe, arguments.workers) as executor:
                begun = time.perf_counter()
                list(executor.run([Task(spec=plan.baseline, pair=plan.search_pairs[-1], role="search")]))
                start = time.perf_counter() - begun
                begun = time.perf_counter()
                result = run_search(plan, executor=executor, directory=Path(folder))
                wall = time.perf_counter() - begun
        with closing(sqlite3.connect(Path(folder) / "study.db")) as base:
            evaluated = int(base.execute("select count(*) from evaluations").fetchone()[0])
    ideal = result.spent * arguments.seconds / arguments.workers
    found: dict[str, object] = {"spent": result.spent, "wall": wall, "ideal": ideal, "overhead": wall / ideal - 1}
    found |= {"evaluated": evaluated, "of_it_for_nothing": evaluated / result.spent - 1}  # by workers, of pruned trials
    return found | ({"start": start} if arguments.workers > 1 else {})


def speedup(arguments: argparse.Namespace) -> dict[str, object]:
    """Videos a second of two workers with half the cores each, over one process with all of them."""
    from stg_tune import models
    from stg_tune.embedded import digits
    from stg_tune.search.workers.sizing import cores
    from stg_tune.studio import ModelRecipe

    entry = models.entry(arguments.model)
    recipe = ModelRecipe(model=entry.name)
    spec = GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)
    captions = digits.captions()
    tasks = [
        Task(spec=spec, pair=Pair(prompt=captions[i % len(captions)], seed=i), role="search")
        for i in range(arguments.evaluations + 4)
    ]
    rates = {}
    settings = RaySettings(workers=2, cpus=max(cores() // 2, 1))
    alone = RaySettings(workers=1, cpus=max(cores() // 2, 1))
    whole = InlineExecutor(recipe(cores()))
    rates["one process, all cores"] = rate(whole, tasks)
    del whole
    for name, chosen in (("one worker, half the cores", alone), ("two workers, half the cores each", settings)):
        with RayExecutor(recipe, chosen) as executor:
            rates[name] = rate(executor, tasks)
    one, half, two = rates.values()
    return {"videos_a_second": rates, "over_one_process": two / one, "over_one_worker": two / half}


def rate(executor: Executor, tasks: list[Task]) -> float:
    """Evaluations a second, after four that warm up."""
    list(executor.run(tasks[:4]))
    begun = time.perf_counter()
    done = list(executor.run(tasks[4:]))
    assert not any(item.evaluation.error for item in done)
    return len(done) / (time.perf_counter() - begun)


def first(arguments: argparse.Namespace) -> dict[str, object]:
    """Seconds from the start of this process to the first result of a worker, without a model."""
    plan = plan_of(150)
    with executor_of(Sleeper(seconds=0.0), 2) as executor:
        next(executor.run([Task(spec=plan.baseline, pair=plan.search_pairs[0], role="search")]))
        return {"seconds": process_age()}


def process_age() -> float:
    """Seconds since this process was started (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def memory(arguments: argparse.Namespace) -> dict[str, object]:
    """Peak memory of the driver over a long study, at a tenth of it and at its end, and the size of the database."""
    sizes: dict[int, int] = {}

    def note(event: ProgressEvent) -> None:
        if event.done % max(arguments.evaluations // 10, 1) == 0:
            sizes.setdefault(event.done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)

    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = run_search(
            plan_of(arguments.evaluations), Sleeper(seconds=0.0).evaluate, directory=Path(folder), progress=note
        )
        database = (Path(folder) / "study.db").stat().st_size
    return {
        "spent": result.spent,
        "trials": len(result.trials),
        "megabytes_at_evaluation": sizes,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "database_megabytes": database / 1e6,
        "seconds_each": (time.perf_counter() - begun) / result.spent,
    }


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "speedup", "first", "memory"))
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--evaluations", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model", default="open-sora-tiny")
    arguments = parser.parse_args()
    usual = {"overhead": 150, "speedup": 40, "first": 1, "memory": 10_000}
    arguments.evaluations = arguments.evaluations or usual[arguments.what]
    found = globals()[arguments.what](arguments)
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}
    sys.stdout.write(json.dumps({"benchmark": arguments.what, **vars(arguments), **found, "machine": machine}) + "\n")


if __name__ == "__main__":
    main()
