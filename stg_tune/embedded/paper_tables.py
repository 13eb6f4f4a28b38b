"""The findings of arXiv:2411.18664 on an embedded model: ``python -m stg_tune.embedded.paper_tables --model M``.

Layers and strengths are chosen from ``layers.csv`` of the model (``stg_tune.embedded.layers_table``); everything here
is measured on other pairs, so that nothing is better for having been chosen. One file a table, one line an arm and
measure, each with the difference to the table's baseline on the same pairs and its 95 % interval; ``findings`` says of
every claim of the paper whether it holds at this size.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from stg_tune import models, preset
from stg_tune.embedded.joint import load_joint
from stg_tune.embedded.judge import load_judge
from stg_tune.embedded.paper_arms import Arms, Seen, compare, measures
from stg_tune.embedded.paper_designs import Chosen, Claim, Design, designs
from stg_tune.embedded.paper_page import write_page
from stg_tune.embedded.truth import truth_pairs
from stg_tune.errors import StgTuneError
from stg_tune.generate import Generator
from stg_tune.score import embedded_scorers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Measures = Mapping[str, Callable[[Seen], float]]

FIRST_SEED = 3_000_000
"""Of pairs that neither a search nor ``layers.csv`` has seen."""
COLUMNS = ("arm", "measure", "value", "difference", "low", "high", "videos", "setting")


def lines(design: Design, seen: Mapping[str, Seen], known: Measures) -> list[dict[str, object]]:
    """Every arm and measure beside the baseline."""
    base = seen[design.baseline]
    return [
        {
            "arm": arm,
            "measure": name,
            **compare(measure, seen[arm], base).__dict__,
            "videos": len(base),
            "setting": json.dumps(spec.to_dict(), sort_keys=True),
        }
        for arm, spec in design.arms.items()
        for name, measure in known.items()
    ]


def verdict(claim: Claim, seen: Mapping[str, Seen], known: Measures) -> dict[str, object]:
    """Whether a claim holds: its interval lies on the claimed side of zero, on the other, or on both."""
    found = compare(known[claim.measure], seen[claim.arm], seen[claim.other])
    sign = 1 if claim.higher else -1
    low, high = sorted((sign * found.low, sign * found.high))
    word = "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
    numbers = {"difference": found.difference, "low": found.low, "high": found.high}
    return {"claim": claim.text, "arm": claim.arm, "other": claim.other, "measure": claim.measure, **numbers} | {
        "verdict": word
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all tables of one model."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.paper_tables", description=__doc__)
    parser.add_argument("--model", default="open-sora-tiny")
    parser.add_argument("--model-path", type=Path, help="a folder with the model's files; default: the embedded one")
    parser.add_argument("--tables", nargs="+", help="names of tables (default: all that the model can have)")
    parser.add_argument(
        "--preset", type=Path, help="a tuned preset; default: the best single layer of the layers table"
    )
    parser.add_argument("--videos", type=int, default=512, help="videos an arm, 128 or more (default: 512)")
    parser.add_argument("--layers", type=Path, help="default: results/embedded/MODEL/layers.csv")
    parser.add_argument("--folder", type=Path, default=Path("training/paper"), help="judged videos are kept here")
    parser.add_argument("--out", type=Path, default=Path("results/paper"))
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    chosen = Chosen.read(options.layers or Path("results/embedded") / entry.name / "layers.csv")
    tuned = preset.load(options.preset).spec if options.preset else None
    wanted = pick(designs(chosen, dict(entry.depths), entry.defaults.cfg_scale, tuned), options.tables)
    generator = Generator(models.load(entry, options.model_path), entry)
    pairs = truth_pairs(options.videos, first_seed=FIRST_SEED)
    arms = Arms(generator, load_judge(), load_joint(), embedded_scorers(), pairs, options.folder / entry.name)
    command = f"python -m stg_tune.embedded.paper_tables --model {entry.name} --videos {options.videos}"
    command += f" --preset {options.preset.as_posix()}" if options.preset else ""
    with torch.inference_mode():
        for design in wanted:
            measure(design, arms, options.out / entry.name, command)
            write_page(options.out)


def pick(known: Sequence[Design], names: Sequence[str] | None) -> list[Design]:
    """The designs of some names; an unknown name is a ``StgTuneError`` with those that there are."""
    by_name = {design.name: design for design in known}
    for name in names or ():
        if name not in by_name:
            raise StgTuneError(f"there is no table {name!r} for this model: choose from {', '.join(by_name)}")
    return [by_name[name] for name in names or by_name]


def measure(design: Design, arms: Arms, folder: Path, command: str) -> None:
    """Measure one table and write it; ``command`` makes all tables of the model again."""
    seen = {name: arms.look(spec) for name, spec in design.arms.items()}
    known = measures(arms.judge, arms.reference, list(seen[design.baseline].columns))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{design.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for line in lines(design, seen, known):
            rounded = {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in line.items()}
            writer.writerow(rounded)
    path = folder / "findings.json"
    findings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    findings["command"] = command
    findings[design.name] = [verdict(claim, seen, known) for claim in design.claims]
    path.write_text(json.dumps(findings, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({design.name: findings[design.name]}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
