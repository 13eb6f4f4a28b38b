"""Do tuned presets improve the truth? ``python -m stg_tune.embedded.presets_table PRESET...``.

A search sees proxies only. Here the videos of each preset, of its best plain CFG and of the default are judged by the
independent judge, on pairs that no search has seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from stg_tune import models, preset
from stg_tune.embedded.judge import load_judge
from stg_tune.embedded.layers_table import Table
from stg_tune.embedded.truth import truth_pairs
from stg_tune.errors import StgTuneError
from stg_tune.generate import Generator
from stg_tune.records import GuidanceSpec

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge presets of one embedded model against its default."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.presets_table", description=__doc__)
    parser.add_argument("presets", type=Path, nargs="+", help="preset files; an arm is called after its file")
    parser.add_argument("--model", default="open-sora-tiny")
    parser.add_argument("--videos", type=int, default=1024, help="videos an arm (default: 1024)")
    parser.add_argument("--folder", type=Path, default=Path("training/truth"), help="judged videos are kept below it")
    parser.add_argument("--out", type=Path, default=Path("results/embedded"))
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    arms = [(path.stem, load_for(path, entry.name)) for path in options.presets]
    pairs, folder = truth_pairs(options.videos), options.folder / entry.name
    table = Table(Generator(models.load(entry), entry), load_judge(), pairs, folder)
    default = GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)
    with torch.inference_mode():
        table.add("default", default, default, options.videos)
        for name, tuned in arms:
            if tuned.evidence:
                table.add(f"{name}: best CFG alone", tuned.evidence.best_cfg, default, options.videos)
            table.add(f"{name}: tuned", tuned.spec, default, options.videos)
    table.write(options.out / options.model / "presets.csv")


def load_for(path: Path, model: str) -> preset.Preset:
    """A preset that was made for the model; for another one: ``StgTuneError``."""
    tuned = preset.load(path)
    if tuned.model != model:
        raise StgTuneError(f"{path} is a preset for {tuned.model}, not for {model}: give --model {tuned.model}")
    return tuned


if __name__ == "__main__":
    main()
