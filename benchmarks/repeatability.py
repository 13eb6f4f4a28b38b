"""Does another seed find the same? Full searches on an embedded model that differ in nothing but the seed.

    python -m benchmarks.repeatability --runs 10 --twice     # into results/repeatability/MODEL

The seed decides the split of the prompts, the noise and every proposal. Searches live in ``--folder`` and go on where
they were stopped. ``--twice`` runs the first seed again in another folder: same seed, same machine, same preset.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from scipy.special import stdtrit

from benchmarks.machine import machine
from stg_tune.records import GuidanceSpec
from stg_tune.search import run_search
from stg_tune.search.encoding import is_cfg_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stg_tune.search import SearchPlan, SearchResult
    from stg_tune.search.statistics import Interval

Line = dict[str, Any]


def line_of(result: SearchResult) -> Line:
    """What one search has found."""
    verdict = result.verdict
    if verdict is None:
        baseline = result.plan.baseline
        nothing = {"mean": 0.0, "low": 0.0, "high": 0.0, "level": 0.95, "pairs": 0, "clusters": 0}
        return {
            "seed": result.plan.seed,
            "improved": False,
            "stg_proved": False,
            "conclusion": "nothing raced",
            "winner": baseline.to_dict(),
            "config": baseline.hash(),
            "best_cfg": baseline.cfg_scale,
            "gain": nothing,
            "cfg_gain": None,
            "stg_gain": None,
            "spent": result.spent,
            "seconds": round(result.seconds, 1),
        }
    return {
        "seed": result.plan.seed,
        "improved": verdict.improved,
        "stg_proved": verdict.stg_proved,
        "conclusion": verdict.conclusion,
        "winner": verdict.winner.to_dict(),
        "config": verdict.winner.hash(),
        "best_cfg": verdict.best_cfg.cfg_scale,
        "gain": verdict.gain.to_dict(),
        "cfg_gain": _plain(verdict.cfg_gain),
        "stg_gain": _plain(verdict.stg_gain),
        "spent": result.spent,
        "seconds": round(result.seconds, 1),
    }


def _plain(interval: Interval | None) -> dict[str, Any] | None:
    return interval.to_dict() if interval is not None else None


def layers_of(winner: dict[str, Any]) -> frozenset[tuple[str, int]]:
    """The layers that a setting skips; empty for CFG alone."""
    return frozenset(_layers(GuidanceSpec.from_dict(winner)))


def _layers(spec: GuidanceSpec) -> Iterator[tuple[str, int]]:
    for segment in spec.segments:
        for term in segment.terms:
            if term.stg_scale:
                yield from ((stack, index) for stack, found in term.skip_layers.items() for index in found)


def summarise(lines: Sequence[Line]) -> dict[str, Any]:
    """How often the same layers, how far apart the gains.

    ``gain_spread`` is to be held against ``expected_spread``: what the searches' own intervals say that gains on
    different pairs must differ by, were all winners equally good.
    """
    chosen = [layers_of(line["winner"]) for line in lines]
    skipping = [layers for layers in chosen if layers]
    counts = Counter(layer for layers in skipping for layer in layers)
    alike = [len(a & b) / len(a | b) for a, b in combinations(skipping, 2)]
    gains = [line["gain"]["mean"] for line in lines]
    errors = [standard_error(line["gain"]) for line in lines]
    modal = Counter(chosen).most_common(1)[0]
    return {
        "searches": len(lines),
        "improved": sum(line["improved"] for line in lines),
        "stg_proved": sum(line["stg_proved"] for line in lines),
        "with_skip_guidance": len(skipping),
        "layers": {f"{stack}.{index}": count for (stack, index), count in counts.most_common()},
        "most_frequent_set": {"layers": sorted(f"{stack}.{index}" for stack, index in modal[0]), "times": modal[1]},
        "mean_overlap": round(fmean(alike), 4) if alike else None,
        "operations": dict(Counter(_operation(line["winner"]) for line in lines)),
        "gain_mean": round(fmean(gains), 4),
        "gain_spread": round(stdev(gains), 4) if len(gains) > 1 else None,
        "gain_range": [round(min(gains), 4), round(max(gains), 4)],
        "expected_spread": round(fmean(error**2 for error in errors) ** 0.5, 4),
    }


def standard_error(gain: Mapping[str, Any]) -> float:
    """What an interval was made of: its half over the quantile of its own level and degrees of freedom."""
    if gain["low"] == gain["high"]:
        return 0.0
    quantile = float(stdtrit(max(gain["clusters"] - 1, 1), (1 + gain["level"]) / 2))
    return float(gain["high"] - gain["low"]) / (2 * quantile)


def _operation(winner: dict[str, Any]) -> str:
    spec = GuidanceSpec.from_dict(winner)
    if is_cfg_only(spec):
        return "CFG alone"
    return next(term.skip_op for segment in spec.segments for term in segment.terms)


def repeat(
    plan_of: Callable[[int], SearchPlan],
    search: Callable[[SearchPlan, Path], SearchResult],
    seeds: Sequence[int],
    folder: Path,
    *,
    twice: bool,
) -> tuple[list[Line], bool | None]:
    """Search with every seed, each in its own folder.

    Args:
        plan_of: The plan of a seed.
        search: Searches in a folder, or goes on there.
        seeds: One search each.
        folder: Of the folders.
        twice: Search with the first seed once more.

    Returns:
        One line a seed, and whether the first seed gave the very same once more (``None``: it was not asked for).
    """
    lines = [line_of(search(plan_of(seed), folder / f"seed-{seed}")) for seed in seeds]
    if not twice:
        return lines, None
    again = line_of(search(plan_of(seeds[0]), folder / f"seed-{seeds[0]}-again"))
    same = {key: again[key] == lines[0][key] for key in again if key != "seconds"}
    return lines, all(same.values())


def write(lines: Sequence[Line], same: bool | None, out: Path, source: str, command: str) -> None:
    """Write ``repeatability.json`` and ``README.md``; ``command`` is what repeats them."""
    out.mkdir(parents=True, exist_ok=True)
    found = summarise(lines)
    data = {
        "source": source,
        "command": command,
        "machine": machine(),
        "same_seed_same_preset": same,
        "summary": found,
        "runs": list(lines),
    }
    (out / "repeatability.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(table(lines, found, same, source, command), encoding="utf-8")


def table(lines: Sequence[Line], found: dict[str, Any], same: bool | None, source: str, command: str) -> str:
    """For people."""
    rows = ["| seed | layers | CFG | gain | STG's part | better |", "|---|---|---|---|---|---|"]
    for line in lines:
        layers = ", ".join(sorted(f"{stack}.{index}" for stack, index in layers_of(line["winner"]))) or "none"
        cells = (str(line["seed"]), layers, f"{line['winner']['cfg_scale']:g}", _shown(line["gain"]))
        rows.append(f"| {' | '.join(cells)} | {_shown(line['stg_gain'])} | {'yes' if line['improved'] else 'no'} |")
    again = {None: "was not tried", True: "gave the same preset", False: "gave another preset"}[same]
    overlap = "-" if found["mean_overlap"] is None else f"{found['mean_overlap']:.2f}"
    spread = "-" if found["gain_spread"] is None else f"{found['gain_spread']:.3f}"
    return (
        "# Does another seed find the same?\n\n"
        f"{source}. Every search has its own split of the prompts and its own noise;\n"
        "gains are held-out, in standard deviations of the default.\n"
        f"Repeat with `{command}`.\n\n"
        + "\n".join(rows)
        + f"\n\n{found['improved']} of {found['searches']} searches found an improvement. Mean overlap of the skipped\n"
        f"layers of two searches (Jaccard): {overlap}. Gains differ by {spread} (standard deviation); different pairs\n"
        f"alone would make it {found['expected_spread']:.3f}. The same seed once more {again}.\n"
    )


def _shown(gain: dict[str, Any] | None) -> str:
    return f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]" if gain else "-"


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, count, write."""
    from stg_tune import models  # torch is needed here only
    from stg_tune.studio import ModelRecipe, Studio
    from stg_tune.tune import Request, draft_plan

    parser = argparse.ArgumentParser(prog="python -m benchmarks.repeatability", description=__doc__)
    parser.add_argument("--model", default="open-sora-tiny")
    parser.add_argument("--runs", type=int, default=10, help="searches (default: 10)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", default="small")
    parser.add_argument("--twice", action="store_true", help="the first seed once more, in another folder")
    parser.add_argument("--folder", type=Path, default=Path("runs/repeatability"))
    parser.add_argument("--out", type=Path, help="default: results/repeatability/MODEL")
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    studio = Studio(ModelRecipe(model=entry.name))

    def plan_of(seed: int) -> SearchPlan:
        return draft_plan(Request(model=entry.name, budget=options.budget, seed=seed), entry)(studio.scorer)

    def search(plan: SearchPlan, directory: Path) -> SearchResult:
        return run_search(plan, studio.evaluate, directory=directory)

    seeds = range(options.first_seed, options.first_seed + options.runs)
    lines, same = repeat(plan_of, search, seeds, options.folder / entry.name, twice=options.twice)
    command = f"python -m benchmarks.repeatability --model {entry.name} --runs {options.runs} --budget {options.budget}"
    write(
        lines,
        same,
        options.out or Path("results/repeatability") / entry.name,
        f"{len(lines)} searches on {entry.name}, budget {options.budget}",
        command + (f" --first-seed {options.first_seed}" if options.first_seed else "") + " --twice" * options.twice,
    )


if __name__ == "__main__":
    main()
