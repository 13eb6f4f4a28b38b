"""How much scores vary: measures ``benchmarks/noise.json`` from the storage of runs, or on a model made for it.

    python -m benchmarks.noise --evaluate open-sora-tiny --folder runs/noise   # 24 prompts x 4 seeds x 5 settings
    python -m benchmarks.noise --folder runs/noise runs/demo                   # read only, several folders together

``--evaluate`` is what tells prompts from seeds: an ordinary run sees nearly every prompt once. It is resumed when it is
started again. Without prompts that come twice, ``prompt`` and ``interaction`` are taken as one half, and said so.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.simulated import LOWER_IS_BETTER, Noise, ScorerNoise, noise_of
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search.executor import InlineExecutor, Task
from stg_tune.search.ledger import Ledger
from stg_tune.search.plan import load_run
from stg_tune.search.storage import EvaluationTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stg_tune.records import Evaluation

STUDY = "noise"
LEAST_PAIRS = 16
"""A setting on fewer pairs says nothing about noise."""
LEAST_REPEATED = 8
"""Prompts that must come twice, before prompts are told from seeds."""
UNKNOWN_SHARE = 0.5
GUARDS = ("motion", "saturation")

Rows = dict[str, "Evaluation"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The default and other settings on the same pairs."""

    default: Rows
    """Pair key -> scores of the default."""
    settings: tuple[Rows, ...]
    """The same for each other setting."""


def read_sample(folder: Path) -> Sample:
    """All rows of a run folder, or of the folder of ``--evaluate``."""
    name, url, default = _source(folder)
    table = EvaluationTable(url, name)
    rows = table.rows()
    table.close()
    by_config: dict[str, Rows] = defaultdict(dict)
    for row in rows:
        if not row.evaluation.error and not row.evaluation.unscored:
            by_config[row.evaluation.config][row.evaluation.pair.key] = row.evaluation
    base = by_config.pop(default)
    enough = (rows for rows in by_config.values() if len(rows.keys() & base.keys()) >= LEAST_PAIRS)
    return Sample(default=base, settings=tuple(enough))


def _source(folder: Path) -> tuple[str, str, str]:
    note = folder / "noise.json"
    if note.exists():
        return STUDY, f"sqlite:///{folder / 'study.db'}", json.loads(note.read_text(encoding="utf-8"))["default"]
    run = load_run(folder)
    return run.plan.model, run.storage, run.plan.baseline.hash()


def measure(samples: Sequence[Sample], source: str) -> Noise:
    """Fit the model of ``benchmarks.simulated`` by moments."""
    names = list(next(iter(samples[0].default.values())).scores)
    rests: list[dict[str, NDArray[np.float64]]] = []
    scorers = {}
    for name in names:
        scorers[name], found = _scorer(name, samples)
        rests.append({str(i): rest for i, rest in enumerate(found)})
    weighted = [rest for name, rest in zip(names, rests, strict=True) if name not in GUARDS]
    return Noise(source=source, shared=_shared(weighted), tails=_tails(weighted), scorers=scorers)


def _scorer(name: str, samples: Sequence[Sample]) -> tuple[ScorerNoise, list[NDArray[np.float64]]]:
    sign = -1.0 if name in LOWER_IS_BETTER else 1.0
    values = np.array([row.scores[name] for sample in samples for row in sample.default.values()])
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    prompts = [row.pair.prompt for sample in samples for row in sample.default.values()]
    slopes, rests, shares = [], [], []
    for sample in samples:
        for rows in sample.settings:
            keys = [key for key in rows if key in sample.default]
            old = sign * (np.array([sample.default[key].scores[name] for key in keys]) - mean) / spread
            change = sign * np.array([rows[key].scores[name] for key in keys]) / spread - sign * mean / spread - old
            slopes.append(float(-np.cov(change, old)[0, 1] / old.var(ddof=1)))
            rest = change - change.mean() + slopes[-1] * (old - old.mean())
            rests.append(rest)
            shares.append(prompt_share(rest, [rows[key].pair.prompt for key in keys]))
    known = [share for share in shares if share is not None]
    found = ScorerNoise(
        mean=round(mean, 6),
        spread=round(spread, 6),
        prompt=_or_unknown(prompt_share(values, prompts)),
        noise=round(float(np.sqrt(np.mean([rest.var(ddof=2) for rest in rests]))), 4),
        interaction=_or_unknown(float(np.mean(known)) if known else None),
        slope=round(float(np.clip(np.mean(slopes), 0.0, 0.9)), 4),
    )
    return found, rests


def prompt_share(values: NDArray[np.float64], prompts: Sequence[str]) -> float | None:
    """Part of the variance that lies between prompts (one-way analysis of variance); ``None``: too few come twice."""
    groups = [values[[i for i, other in enumerate(prompts) if other == prompt]] for prompt in dict.fromkeys(prompts)]
    if sum(len(group) > 1 for group in groups) < LEAST_REPEATED:
        return None
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (len(values) - len(groups))
    size = (len(values) - sum(len(group) ** 2 for group in groups) / len(values)) / (len(groups) - 1)
    total_mean = values.mean()
    among = sum(len(group) * float((group.mean() - total_mean) ** 2) for group in groups) / (len(groups) - 1)
    between = max((among - within) / size, 0.0)
    return between / (between + within)


def _or_unknown(share: float | None) -> float:
    return UNKNOWN_SHARE if share is None else round(float(np.clip(share, 0.0, 1.0)), 4)


def _shared(rests: Sequence[Mapping[str, NDArray[np.float64]]]) -> float:
    """Mean correlation of what different scorers leave unexplained on the same pairs."""
    found = []
    for i, first in enumerate(rests):
        for second in rests[i + 1 :]:
            found += [float(np.corrcoef(first[key], second[key])[0, 1]) for key in first]
    return round(float(np.clip(np.mean(found), 0.0, 1.0)), 4)


def _tails(rests: Sequence[Mapping[str, NDArray[np.float64]]]) -> float:
    """Degrees of freedom of Student's t with the same kurtosis, 4.5 to 30."""
    scaled = np.concatenate([rest / rest.std() for columns in rests for rest in columns.values()])
    excess = float((scaled**4).mean()) - 3.0
    return round(float(np.clip(4 + 6 / excess if excess > 0 else 30.0, 4.5, 30.0)), 2)


def evaluate(model: str, folder: Path, *, prompts: int, seeds: int, settings: int) -> None:
    """Evaluate the default and random settings on every prompt with every seed; rows that are there are kept."""
    from stg_tune import models  # torch is needed here only
    from stg_tune.embedded.proxies_table import random_spec
    from stg_tune.studio import ModelRecipe, Studio, versions

    entry = models.entry(model)
    rng = random.Random(1)
    default = GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)
    specs = [default, *(_milder(random_spec(rng, entry.depths)) for _ in range(settings))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "noise.json").write_text(json.dumps({"model": model, "default": default.hash()}), encoding="utf-8")
    table = EvaluationTable(f"sqlite:///{folder / 'study.db'}", STUDY)
    executor = InlineExecutor(Studio(ModelRecipe(model=entry.name)).evaluate)
    ledger = Ledger(table, executor, versions=versions(), on_evaluation=lambda row, new: None)
    pairs = crossed_pairs(prompts, seeds)
    for _ in ledger.run([Task(spec=spec, pair=pair, role="search") for spec in specs for pair in pairs]):
        pass
    table.close()


def crossed_pairs(prompts: int, seeds: int) -> list[Pair]:
    """Every one of some captions with several seeds."""
    from stg_tune.embedded.truth import truth_pairs

    captions = [pair.prompt for pair in truth_pairs(prompts)]
    return [
        Pair(prompt=caption, seed=3_000_000 + i * seeds + j) for i, caption in enumerate(captions) for j in range(seeds)
    ]


def _milder(spec: GuidanceSpec) -> GuidanceSpec:
    """Strengths as a search ends up with: the random ones go up to 1.6, which no default budget would keep."""
    segments = tuple(
        replace(segment, terms=tuple(replace(term, stg_scale=min(term.stg_scale, 0.5)) for term in segment.terms))
        for segment in spec.segments
    )
    return replace(spec, segments=segments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the file that the studies read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noise", description=__doc__)
    parser.add_argument("--folder", type=Path, nargs="+", required=True, help="folders of runs, or of --evaluate")
    parser.add_argument("--evaluate", metavar="MODEL", help="evaluate an embedded model into the first folder before")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--settings", type=int, default=4)
    parser.add_argument("--out", type=Path, help="default: the model's own file; of runs, that of open-sora-tiny")
    options = parser.parse_args(arguments)
    if options.evaluate:
        counts = {"prompts": options.prompts, "seeds": options.seeds, "settings": options.settings}
        evaluate(options.evaluate, options.folder[0], **counts)
    samples = [read_sample(folder) for folder in options.folder]
    count = sum(len(sample.settings) for sample in samples)
    pairs = sum(len(sample.default) for sample in samples)
    model = options.evaluate or "runs"
    noise = measure(samples, f"measured on {model}: {count} settings, {pairs} pairs of the default")
    data = {"schema": "stg-tune/noise/1", **asdict(noise)}
    out = options.out or noise_of(options.evaluate or "open-sora-tiny")
    out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
