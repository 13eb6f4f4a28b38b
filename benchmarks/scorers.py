"""Seconds to score one video: ours against the way VBench does it, paired in one run, same weights on both sides.

    python -m benchmarks.scorers --out results/benchmarks/scorers.json          # 49 frames of 480x832, CLIP ViT-L/14
    python -m benchmarks.scorers --frames 5 --height 128 --width 160 --clip vit-b-32 --repeats 1   # a short look

VBench's way, as in its repository (https://github.com/Vchitect/VBench, ``vbench/``): each dimension reads the file
again; CLIP sees all frames in batches of 32 for aesthetic quality, and once more for alignment; MUSIQ sees them one by
one, with the empty patches that fill its scales. LPIPS, which VBench does not have, is called as its package is, pair
by pair, so that it sees every inner frame twice; sums and ratios are therefore given with it and, as ``without_lpips``,
with its time taken off both sides. Ours: the frames are tensors already, CLIP and the resized frames are shared,
networks see batches. What only we compute (CLIP-IQA, motion, saturation) is in our time.

``every frame, MUSIQ`` is the same work: its five scores equal VBench's, and a difference above 1e-4 ends the program
with exit code 1. ``default``, for which the bar of three times is meant, is what stg-tune does unless told otherwise:
16 frames for CLIP, and CLIP-IQA in place of MUSIQ, so less work and numbers of another kind for the same purpose. The
result says so, mode by mode. Weights are random: they change no time. On two idle cores a round of the full size takes
about a quarter of an hour and 6 GB.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from benchmarks.machine import machine
from benchmarks.vbench_way import DIMENSIONS, LPIPS, PROMPT, VBenchWay
from stg_tune.score import CompositeScorer
from stg_tune.score.clip import Aesthetic, Alignment
from stg_tune.score.clip_models import VARIANTS, configuration, published_towers
from stg_tune.score.flicker import TemporalFlickering
from stg_tune.score.motion import Motion
from stg_tune.score.musiq import Musiq, MusiqQuality
from stg_tune.score.parts import FEWER_FRAMES
from stg_tune.score.perceptual import AlexTrunk, LpipsOverTrunk, TemporalLpips
from stg_tune.score.placement import Placement
from stg_tune.score.quality_prompts import PromptQuality
from stg_tune.score.saturation import Saturation
from stg_tune.video import Video, read_video, write_mp4

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stg_tune.records import Score
    from stg_tune.score import Measure, View

ZEROS = "0" * 16
SAME_WORK = "every frame, MUSIQ"
MODES = {
    SAME_WORK: "the same work as VBench's way: the five scores are equal",
    "every frame": "not the same work: CLIP sees every frame, but CLIP-IQA stands in place of MUSIQ",
    "default": "not the same work: CLIP sees 16 frames, and CLIP-IQA stands in place of MUSIQ",
}
"""How ours is run, and what that is."""
BAR = 3.0
"""How many times faster the default must be."""
MOST_DIFFERENCE = 1e-4
"""Scores of the mode that does the same work may differ by so much from VBench's."""


def film(frames: int, height: int, width: int) -> Video:
    """Textures that drift: neither flat nor noise."""
    rng = torch.Generator().manual_seed(0)
    ground = F.interpolate(torch.rand(1, 3, 12, 24, generator=rng), (height, width + 4 * frames), mode="bicubic")[0]
    fine = 0.1 * torch.rand(3, height, width, generator=rng)
    pictures = torch.stack([ground[..., 4 * t : 4 * t + width] * 0.9 + fine for t in range(frames)])
    return Video.from_float(pictures, fps=8)


class Networks:
    """Random weights, made once and used by both sides."""

    def __init__(self, clip: str) -> None:
        from open_clip.model import CLIP

        torch.manual_seed(0)
        self.placement = Placement.automatic("cpu")
        self.variant, self.config = VARIANTS[clip], configuration(VARIANTS[clip])
        state = CLIP(**self.config).state_dict()
        self.towers = published_towers(self.variant, state, self.placement, frames=None)
        self.clip = self.towers.clip
        self.head, self.bias = torch.randn(self.config["embed_dim"]), 5.0
        self.musiq = Musiq().eval().requires_grad_(requires_grad=False)
        for weight in (self.musiq.head.weight, *self.musiq.transformer_encoder.parameters(recurse=False)):
            torch.nn.init.normal_(weight)  # points as far apart as real ones: a difference would show
        self.lpips = LpipsOverTrunk(AlexTrunk()).eval().requires_grad_(requires_grad=False)

    def ours(self, *, frames: int | None, musiq: bool) -> CompositeScorer:
        """What ``default_scorers`` builds, with MUSIQ in place of CLIP-IQA if that is wanted."""
        towers = self.towers.looking_at(frames)
        quality = (
            MusiqQuality(self.musiq, self.placement, weights=ZEROS, frames=frames)
            if musiq
            else PromptQuality(towers, weights=ZEROS)
        )
        measures = [
            Aesthetic(towers, self.head, self.bias, weights=ZEROS),
            Alignment(towers, weights=ZEROS),
            quality,
            TemporalLpips(self.lpips, weights=ZEROS, placement=self.placement),
            TemporalFlickering(),
            Motion(),
            Saturation(0.0),
        ]
        return CompositeScorer([Timed(measure) for measure in measures])


class Timed:
    """A measure, and the seconds that each of its calls took.

    Args:
        measure: What is timed.
    """

    def __init__(self, measure: Measure) -> None:
        self._measure, self.kind, self.requires = measure, measure.kind, measure.requires
        self.seconds: list[float] = []

    def __call__(self, view: View, prompt: str) -> Score:
        """The score."""
        begun = time.perf_counter()
        score = self._measure(view, prompt)
        self.seconds.append(time.perf_counter() - begun)
        return score


def lpips_seconds(scorer: CompositeScorer, rounds: int) -> float:
    """Median of the time that LPIPS took in the last rounds."""
    (timed,) = (measure for measure in scorer.measures if measure.kind.name == LPIPS)
    return median(timed.seconds[-rounds:])


def in_rounds(tasks: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, Any]]:
    """Name -> median seconds and the last result; every round runs everything once, so that all meet the same load."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, compute in tasks.items():
            begun = time.perf_counter()
            results[name] = compute()
            seconds[name].append(time.perf_counter() - begun)
    return {name: (median(seconds[name]), results[name]) for name in tasks}


@torch.inference_mode()
def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time everything in turn on one video, and check that both sides say the same."""
    networks = Networks(arguments.clip)
    modes = {
        SAME_WORK: networks.ours(frames=None, musiq=True),
        "every frame": networks.ours(frames=None, musiq=False),
        "default": networks.ours(frames=FEWER_FRAMES, musiq=False),
    }
    # neither side pays for the first use of a library; the sentences of CLIP-IQA are read once a process
    for scorer in modes.values():
        scorer(film(3, 64, 64).to_float()[None], [PROMPT])
    with tempfile.TemporaryDirectory() as folder:
        file = write_mp4(film(arguments.frames, arguments.height, arguments.width), Path(folder) / "film.mp4")
        vbench, video = VBenchWay(networks, file), read_video(file).to_float()[None]
        theirs = {name: getattr(vbench, name) for name in DIMENSIONS}
        ours = {name: partial(scorer, video, [PROMPT]) for name, scorer in modes.items()}
        found = in_rounds({**theirs, **ours}, arguments.repeats)
    (same,) = found[SAME_WORK][1]
    return {
        "machine": facts(),
        "video": {"frames": arguments.frames, "height": arguments.height, "width": arguments.width},
        "clip": arguments.clip,
        "repeats": arguments.repeats,
        **figures(
            {name: found[name][0] for name in theirs},
            {name: found[name][0] for name in ours},
            {name: lpips_seconds(scorer, arguments.repeats) for name, scorer in modes.items()},
            [gap(same[name], found[name][1]) for name in theirs],
        ),
    }


def gap(ours: Score, theirs: float) -> float:
    """How far our score is from VBench's; infinite where there is none."""
    return math.inf if ours.value is None or math.isnan(theirs) else abs(ours.value - theirs)


def figures(
    theirs: Mapping[str, float], ours: Mapping[str, float], our_lpips: Mapping[str, float], gaps: Sequence[float]
) -> dict[str, Any]:
    """Sums, ratios and verdicts.

    Args:
        theirs: Seconds of VBench's way, by dimension.
        ours: Seconds of ours, by mode.
        our_lpips: Those of them that LPIPS took.
        gaps: Differences of the scores that must be equal.
    """
    total, without = sum(theirs.values()), sum(theirs.values()) - theirs[LPIPS]
    faster = {name: total / seconds for name, seconds in ours.items()}
    bare = {name: without / (seconds - our_lpips[name]) for name, seconds in ours.items()}
    equal, met = max(gaps) <= MOST_DIFFERENCE, faster["default"] >= BAR
    return {
        "vbench_seconds": {**theirs, "total": total, "total_without_lpips": without},
        "our_seconds": dict(ours),
        "our_seconds_of_lpips": dict(our_lpips),
        "modes": MODES,
        "times_faster": faster,
        "times_faster_without_lpips": bare,
        "same_work": {
            "mode": SAME_WORK,
            "times_faster": faster[SAME_WORK],
            "times_faster_without_lpips": bare[SAME_WORK],
        },
        "bar": {"mode": "default", "what": MODES["default"], "times_faster": BAR, "met": met and equal},
        "largest_difference_of_a_score": max(gaps) if math.isfinite(max(gaps)) else None,
        "most_difference_allowed": MOST_DIFFERENCE,
        "scores_equal": equal,
    }


def facts() -> dict[str, Any]:
    """The machine, and what of it this process used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        **machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "peak_memory_gb": round(peak, 2),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Measure and conclude."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scorers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--clip", choices=sorted(VARIANTS), default="vit-l-14")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(words)
    return conclude(compare(arguments), arguments.out)


def conclude(found: Mapping[str, Any], out: Path | None) -> int:
    """Print the result, store it if asked, and give the exit code: 1 when scores differ that must be equal."""
    result = json.dumps(found, indent=1)
    sys.stdout.write(result + "\n")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(result + "\n", encoding="utf-8")
    if found["scores_equal"]:
        return 0
    worst = found["largest_difference_of_a_score"]
    sys.stderr.write(f"scores of {SAME_WORK!r} differ by {worst} from VBench's way; allowed is {MOST_DIFFERENCE:g}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
