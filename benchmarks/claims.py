"""Can a claim of the search be believed? Hundreds of full searches on a simulated evaluator whose truth is known.

    python -m benchmarks.claims                                 # every study, 200 searches each
    python -m benchmarks.claims --studies null gain --runs 50   # a part; what is there already is not done again

Each search is the real one (stages, Optuna, choice, verdict), with a storage that forgets. One line a search goes to
``STUDY.jsonl`` in ``results/statistics``; ``summary.json`` and ``README.md`` are made of those lines. Lines that were
made with other noise, by other code of the search or the simulation, or by another study of the same name are dropped;
lines beyond ``--runs`` are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.claims_table import write_table
from benchmarks.memory import search_in_memory
from benchmarks.simulated import NOISE, PROMPTS, Noise, Simulator, Terrain, plan_for
from stg_tune.documents import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.records import GuidanceSpec
    from stg_tune.search import SearchResult
    from stg_tune.search.race import Finalist
    from stg_tune.search.statistics import Interval
    from stg_tune.search.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Study:
    """Many searches of one kind."""

    stg: float = 0.0
    """Greatest true gain of skip guidance, in baseline standard deviations."""
    cfg: float = 0.0
    """Greatest true gain of CFG."""
    harm: float = 0.0
    """Loss from a layer that should not be skipped."""
    motion: float = 1.0
    """True motion of every setting over the default's."""
    budget: str = "small"
    """Of each search."""
    prompts: int = PROMPTS
    """Captions of each search; a quarter of them, at most 24, are search prompts."""

    def terrain(self, seed: int) -> Terrain:
        """The truth of one search: each has its own good layers."""
        return Terrain(stg=self.stg, cfg=self.cfg, harm=self.harm, motion=self.motion, seed=seed)


STUDIES = {
    "null": Study(),
    "gain": Study(stg=0.4, cfg=0.1, harm=0.3),
    "cfg": Study(cfg=0.5, harm=0.3),
    "trap": Study(stg=0.4, cfg=0.1, harm=0.3, motion=0.945),
    "medium": Study(stg=0.1, cfg=0.05, harm=0.2, budget="medium"),
    "null medium": Study(budget="medium"),
    "few prompts": Study(budget="medium", prompts=24),
}
"""``null``: nothing is better; ``gain``: 0.5 can be had; ``cfg``: all of it by CFG; ``trap``: every gain costs a little
more motion than the guard allows; ``medium``: a small gain, with the looks of a larger budget; ``null medium``, ``few
prompts``: nothing is better, with those looks, and with far more pairs than prompts."""
SOURCES = (
    "stg_tune/search/*.py",
    "search_spaces/open-sora-tiny.yaml",
    "benchmarks/simulated.py",
    "benchmarks/memory.py",
)
"""Files that decide the numbers of a study."""
ROOT = Path(__file__).parents[1]


def run_one(study: Study, noise: Noise, seed: int) -> dict[str, Any]:
    """One search, as one line."""
    simulator = Simulator(noise=noise, terrain=study.terrain(seed), seed=seed)
    begun = time.process_time()
    plan = plan_for(simulator, budget=study.budget, seed=seed, prompts=study.prompts)
    result = search_in_memory(plan, simulator)
    return {"seed": seed, "seconds": round(time.process_time() - begun, 2), **line_of(result, simulator.terrain)}


def line_of(result: SearchResult, terrain: Terrain) -> dict[str, Any]:
    """What a search claims, beside what is true."""
    race, verdict = result.race, result.verdict
    if race is None or race.winner is None or verdict is None:
        return {**_NOTHING, "kept_motion": terrain.motion, "spent": result.spent}
    return {
        "improved": verdict.improved,
        "stg_proved": verdict.stg_proved,
        "conclusion": verdict.conclusion,
        "guards_held": all(guard.holds for guard in verdict.guards),
        "gain": _beside(verdict.gain, terrain.gain(verdict.winner)),
        "cfg": _beside(verdict.cfg_gain, terrain.gain(verdict.best_cfg)),
        "stg": _beside(verdict.stg_gain, _stg_truth(verdict, terrain)),
        "in_sample": _in_sample(race.winner, terrain.gain),
        "kept_motion": terrain.motion,
        "look": [verdict.look, verdict.looks],
        "level": round(verdict.gain.level, 5),
        "spent": result.spent,
    }


_NOTHING: dict[str, Any] = {
    "improved": False,
    "stg_proved": False,
    "conclusion": "nothing raced",
    "guards_held": False,
    **dict.fromkeys(("gain", "cfg", "stg", "in_sample")),
    "look": [1, 1],
    "level": 0.95,
}
"""Every setting breaks a guard on the search pairs already: the default stays."""


def _stg_truth(verdict: Verdict, terrain: Terrain) -> float:
    spec = verdict.best_stg
    return terrain.gain(spec) - terrain.gain(verdict.best_cfg) if spec is not None else 0.0


def _beside(interval: Interval | None, truth: float) -> dict[str, float] | None:
    if interval is None:
        return None
    numbers = {"mean": interval.mean, "low": interval.low, "high": interval.high, "true": truth}
    return {name: round(value, 5) for name, value in numbers.items()}


def _in_sample(winner: Finalist, truth: Any) -> dict[str, float]:
    spec: GuidanceSpec = winner.spec
    return {"mean": round(winner.in_sample.mean, 5), "true": round(truth(spec), 5)}


def world_of(study: Study, noise: Noise) -> str:
    """Hash of everything that decides the numbers of a study: its truth, the noise, the code, the search space."""
    data = {"study": asdict(study), "noise": asdict(noise), "code": code_digest(ROOT)}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


@cache
def code_digest(root: Path) -> str:
    """Hash of the files that ``SOURCES`` names; a pattern without a file is an error."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        files = sorted(root.glob(pattern))
        if not files:
            raise FileNotFoundError(f"{pattern} is not in {root.name}: the studies run from a checkout")
        for file in files:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def read_lines(path: Path, world: str) -> list[dict[str, Any]]:
    """The searches that are there already; lines of another world and a line that was cut off are left out."""
    if not path.exists():
        return []
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line.get("world") == world:
            found.append(line)
    return found


def run_studies(names: Sequence[str], runs: int, noise: Noise, out: Path) -> Mapping[str, list[dict[str, Any]]]:
    """Fill up every study to ``runs`` searches, in turns, each line written as soon as it is there."""
    out.mkdir(parents=True, exist_ok=True)
    worlds = {name: world_of(STUDIES[name], noise) for name in names}
    lines = {name: read_lines(path_of(name, out), worlds[name]) for name in names}
    for name in names:
        write_atomic(path_of(name, out), "".join(json.dumps(line) + "\n" for line in lines[name]))
    for seed in range(runs):
        for name in names:
            if seed in {line["seed"] for line in lines[name]}:
                continue
            line = {"world": worlds[name], **run_one(STUDIES[name], noise, seed)}
            lines[name].append(line)
            with path_of(name, out).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if seed % 10 == 9:
            write_results(noise, out)
            sys.stdout.write(f"{seed + 1} searches of each study\n")
            sys.stdout.flush()
    return lines


def path_of(name: str, out: Path) -> Path:
    """The lines of a study."""
    return out / f"{name.replace(' ', '-')}.jsonl"


def write_results(noise: Noise, out: Path) -> None:
    """Make summary and table of all lines that are there."""
    known = {name: read_lines(path_of(name, out), world_of(STUDIES[name], noise)) for name in STUDIES}
    studies = {name: asdict(study) for name, study in STUDIES.items()}
    write_table(out, {name: lines for name, lines in known.items() if lines}, studies, noise.source)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the studies and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__)
    parser.add_argument("--studies", nargs="+", choices=sorted(STUDIES), default=list(STUDIES))
    parser.add_argument("--runs", type=int, default=200, help="searches of each study (default: 200)")
    parser.add_argument("--noise", type=Path, default=NOISE, help="measured noise (default: benchmarks/noise.json)")
    parser.add_argument("--out", type=Path, default=Path("results/statistics"))
    options = parser.parse_args(arguments)
    noise = Noise.read(options.noise)
    run_studies(options.studies, options.runs, noise, options.out)
    write_results(noise, options.out)


if __name__ == "__main__":
    main()
