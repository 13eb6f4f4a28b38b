"""Does the model go on from its picture? ``python -m stg_tune.embedded.continuations --model svd-tiny``.

What a picture cannot say is where its digit goes, so that no direction is wrong: a good model keeps the digit and the
colour, begins with the picture itself, and spreads over directions and speeds as real videos do.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stg_tune import models
from stg_tune.embedded import digits
from stg_tune.embedded.checkpoints import to_pixels
from stg_tune.embedded.judge import load_judge
from stg_tune.embedded.truth import BATCH, DIRECTION, captioned, truth_pairs
from stg_tune.errors import StgTuneError
from stg_tune.generate import Generator
from stg_tune.records import GuidanceSpec
from stg_tune.score.motion import mean_speed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stg_tune.embedded.judge import Judge
    from stg_tune.records import Pair

FIRST_SEED = 4_000_000
"""Of pairs that nothing else sees."""


def described(frames: NDArray[np.uint8], pairs: Sequence[Pair], judge: Judge) -> dict[str, object]:
    """What videos do with their pictures.

    Args:
        frames: (videos, frames, 64, 64, 3), 0 to 255.
        pairs: Whose pictures they go on from.
        judge: Tells digits, colours and directions.

    Returns:
        ``digit`` and ``colour``, shares of videos that kept them; ``picture``, mean distance of the first frame to the
        picture, 0 to 1; ``directions``, share of each; ``speed`` and ``speed_spread``, mean and standard deviation over
        the videos in pixels a frame.
    """
    pixels = to_pixels(frames)
    answers = judge.look(pixels)[1]
    kept = (answers == captioned(pairs)).mean(0)
    given = np.stack([np.asarray(digits.first_frame(pair)) for pair in pairs])
    speeds = np.array([float(mean_speed((clip + 1) / 2)) for clip in pixels])
    ways = [float((answers[:, DIRECTION] == way).mean()) for way in range(len(digits.DIRECTIONS))]
    return {
        "videos": len(pairs),
        "digit": round(float(kept[0]), 4),
        "colour": round(float(kept[1]), 4),
        "picture": round(float(np.abs(frames[:, 0].astype(float) - given).mean() / 255), 4),
        "directions": {name: round(way, 4) for name, way in zip(digits.DIRECTIONS, ways, strict=True)},
        "speed": round(float(speeds.mean()), 4),
        "speed_spread": round(float(speeds.std(ddof=1)), 4),
    }


def real_videos(pairs: Sequence[Pair], num_frames: int) -> NDArray[np.uint8]:
    """The videos whose first frames are the pictures, at the model's length and rate."""
    whole = np.stack([digits.render_caption(pair.prompt, "test", pair.seed) for pair in pairs])
    return whole[:, :: (whole.shape[1] - 1) // (num_frames - 1)][:, :num_frames]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the videos and write ``continuations.json``."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.continuations", description=__doc__)
    parser.add_argument("--model", default="svd-tiny")
    parser.add_argument("--cfg-scales", type=float, nargs="+", help="default: the model's own")
    parser.add_argument("--videos", type=int, default=256, help="videos a scale (default: 256)")
    parser.add_argument("--out", type=Path, default=Path("results/embedded"))
    options = parser.parse_args(arguments)
    entry = models.entry(options.model)
    if not entry.image_source:
        raise StgTuneError(f"{entry.name} is given no picture: choose a model that goes on from one, such as svd-tiny")
    generator, judge = Generator(models.load(entry), entry), load_judge()
    pairs = truth_pairs(options.videos, first_seed=FIRST_SEED)
    real = real_videos(pairs, entry.defaults.num_frames)
    found = {"real": described(real, pairs, judge)}
    with torch.inference_mode():
        for scale in options.cfg_scales or [entry.defaults.cfg_scale]:
            spec, made = GuidanceSpec(cfg_scale=scale), []
            for first in range(0, len(pairs), BATCH):
                made += [item.video.frames.numpy() for item in generator.many(spec, pairs[first : first + BATCH])]
            found[f"CFG {scale:g}"] = described(np.stack(made), pairs, judge)
    folder = options.out / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "continuations.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
