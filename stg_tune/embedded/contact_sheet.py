"""A picture of what an embedded model makes: ``python -m stg_tune.embedded.contact_sheet``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from stg_tune import models, preset
from stg_tune.embedded import digits
from stg_tune.embedded.judge import view_numbers
from stg_tune.generate import Generator
from stg_tune.records import GuidanceSpec, Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stg_tune.video import Video

PROMPTS = tuple(digits.caption(i % 10, i % 6, i % 4) for i in range(12))
"""Twelve captions that show every digit, colour and direction."""
ZOOM = 2
LINE = 16
"""Height of a caption in pixels."""


def strip(video: Video) -> NDArray[np.uint8]:
    """Frames side by side, (128, 640, 3)."""
    frames = video.frames[view_numbers(len(video.frames))].numpy()
    return np.concatenate(list(frames), axis=1).repeat(ZOOM, 0).repeat(ZOOM, 1)


def sheet(rows: Sequence[Sequence[Video]], captions: Sequence[str], *, columns: int = 2) -> Image.Image:
    """One cell a caption; a cell holds one strip for every setting, from top to bottom."""
    cells = [np.concatenate([strip(video) for video in videos]) for videos in zip(*rows, strict=True)]
    height, width = cells[0].shape[:2]
    lines = -(-len(cells) // columns)
    picture = Image.new("RGB", (columns * (width + 8), lines * (height + LINE)), "white")
    pen = ImageDraw.Draw(picture)
    for i, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
        left, top = (i % columns) * (width + 8), (i // columns) * (height + LINE)
        pen.text((left + 2, top + 2), caption, fill="black")
        picture.paste(Image.fromarray(cell), (left, top + LINE))
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the sheet of one model: plain CFG, and below it a preset if one is given."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.contact_sheet", description=__doc__)
    parser.add_argument("--model", default="open-sora-tiny")
    parser.add_argument("--cfg-scale", type=float, help="default: the model's own")
    parser.add_argument("--preset", type=Path, help="a second strip below the first, same seeds")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first prompt (default: 0)")
    parser.add_argument("--out", type=Path, help="default: results/embedded/MODEL/contact_sheet.png")
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    generator = Generator(models.load(entry), entry)
    pairs = [Pair(prompt=text, seed=options.seed + i) for i, text in enumerate(PROMPTS)]
    specs = [GuidanceSpec(cfg_scale=options.cfg_scale or entry.defaults.cfg_scale)]
    if options.preset:
        specs.append(preset.load(options.preset).spec)
    rows = [[made.video for made in generator.many(spec, pairs)] for spec in specs]
    out = options.out or Path("results/embedded") / entry.name / "contact_sheet.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows, PROMPTS).save(out, optimize=True)


if __name__ == "__main__":
    main()
