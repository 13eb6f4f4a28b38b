"""The model card of an embedded model, filled from its loss and its tables: ``python -m stg_tune.embedded.card``."""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from stg_tune.embedded import WEIGHTS
from stg_tune.embedded.card_words import words_of
from stg_tune.embedded.checkpoints import curve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CARD = """# {name}

A small {what} ({parameters}), trained from scratch on moving handwritten digits. It exists to test
and demonstrate guidance where the truth is known; it shows nothing but digits. Licence: Apache-2.0.

* **Parts.** {parts}
* **Data.** {data}
* **Recipe.** `python -m stg_tune.embedded.train {name}`: {recipe}
* **Loss** (mean of 50 steps; `loss.json` has them all).

{loss}

* **Quality of plain CFG**, {videos:,} videos a line, by an independent judge that was trained on real videos only and
  reads 98.6 % of held-out digits right (`{table}`; {truth}).

{quality}

* **Limits.** Digits are sometimes wrong or torn, on purpose: a model without flaws leaves nothing to improve. It has
  never seen another size, length, object or word.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write ``README.md`` into the folder of the weights."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.card", description=__doc__)
    parser.add_argument("--model", default="open-sora-tiny")
    parser.add_argument("--results", type=Path, default=Path("results/embedded"))
    options = parser.parse_args(arguments)
    folder, table = WEIGHTS / options.model, options.results / options.model / "layers.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["arm"] == "cfg"]
    text = card(options.model, folder, rows, table.as_posix())
    (folder / "README.md").write_text(text, encoding="utf-8")


def card(name: str, folder: Path, rows: Sequence[Mapping[str, str]], table: str) -> str:
    """The card from ``loss.json``, the weights and the rows of plain CFG in ``layers.csv``."""
    log = json.loads((folder / "loss.json").read_text(encoding="utf-8"))
    videos = max(int(row["videos"]) for row in rows)
    best = sorted((row for row in rows if int(row["videos"]) == videos), key=lambda row: float(row["cfg_scale"]))
    words = words_of(name)
    return CARD.format(
        name=name,
        what=words.what,
        parameters=f"{_parameters(folder) / 1e6:.1f} M parameters",
        parts=words.parts,
        data=words.data,
        recipe=words.recipe.format(steps=int(log[-1]["step"])),
        truth=words.truth,
        loss=_lines(("step", "loss"), [(f"{row['step']:.0f}", f"{row['loss']:.4f}") for row in curve(log)]),
        videos=videos,
        table=table,
        quality=_lines(("CFG", "digit", "colour", "direction", "Frechet distance"), [_quality(row) for row in best]),
    )


def _quality(row: Mapping[str, str]) -> tuple[str, ...]:
    shares = (f"{float(row[key]):.1%}" for key in ("digit", "colour", "direction"))
    return (f"{float(row['cfg_scale']):g}", *shares, f"{float(row['frechet']):.1f}")


def _parameters(folder: Path) -> int:
    return sum(_count(file) for file in folder.rglob("*.safetensors"))


def _count(file: Path) -> int:
    with safe_open(file, "np") as weights:
        shapes: list[list[Any]] = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    return sum(math.prod(shape) for shape in shapes)


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


if __name__ == "__main__":
    main()
