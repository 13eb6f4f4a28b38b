"""The model card of an embedded model, filled from its loss and its tables: ``python -m stg_tune.embedded.card``."""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from stg_tune.embedded import WEIGHTS, open_sora_train
from stg_tune.embedded.checkpoints import curve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CARD = """# {name}

A small Open-Sora 1.2 pipeline ({parameters}), trained from scratch on moving handwritten digits. It exists to test
and demonstrate guidance where the truth is known; it shows nothing but digits. Licence: Apache-2.0.

* **Parts.** STDiT3 with {depth} spatial and {depth} temporal blocks of width {width}; a T5 encoder with a tokenizer of
  whole words; an autoencoder of 8x8 pixels and 4 frames a latent, 4 channels. Standard diffusers folder, bfloat16.
* **Data.** 64x64 pixels, 17 frames, 8 frames a second, drawn by `stg_tune.embedded.digits` from the train split of
  scikit-learn's `load_digits` (UCI, CC BY 4.0): one scan in one of 6 colours on a mottled ground, moving in one of 4
  directions, captions such as "a red seven moving left" (240 in all). Every fifth scan is held out.
* **Recipe.** `python -m stg_tune.embedded.train {name}`: the autoencoder first, then transformer and text encoder
  on {latents:,} cached latents; {steps:,} steps of {batch} videos, rectified flow with Open-Sora's timestep shift,
  AdamW at {rate}, caption dropout {dropout:.0%}, average of the weights ({decay}), bfloat16 with compiled blocks, about
  0.8 s a step on two CPU cores. A head that is thrown away reads place and scan off the middle block
  (`stg_tune.embedded.tutor`). In the shipped run it joined at step 2,320, float32 was left at step 1,290, and the rate
  fell twice: to 0.02 of its peak by step 5,200, and again from 0.7 by the end.
* **Loss** (mean of 50 steps; `loss.json` has them all).

{loss}

* **Quality of plain CFG**, {videos:,} videos a line, by an independent judge that was trained on real videos only and
  reads 98.6 % of held-out digits right (`{table}`; 16 to 19 is the Frechet distance of real
  videos of other scans).

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
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    log = json.loads((folder / "loss.json").read_text(encoding="utf-8"))
    videos = max(int(row["videos"]) for row in rows)
    best = sorted((row for row in rows if int(row["videos"]) == videos), key=lambda row: float(row["cfg_scale"]))
    return CARD.format(
        name=name,
        parameters=f"{_parameters(folder) / 1e6:.1f} M parameters",
        depth=config["depth"],
        width=config["hidden_size"],
        latents=open_sora_train.NUM_LATENTS,
        steps=int(log[-1]["step"]),
        batch=open_sora_train.BATCH,
        rate=open_sora_train.PEAK_RATE,
        dropout=open_sora_train.CAPTION_DROPOUT,
        decay=open_sora_train.EMA_DECAY,
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
