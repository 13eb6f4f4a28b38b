"""Seconds to score one video: ours against the way VBench does it, paired in one run, same weights on both sides.

    python benchmarks/scorers.py --out results/benchmarks/scorers.json          # 49 frames of 480x832, CLIP ViT-L/14
    python benchmarks/scorers.py --frames 5 --height 128 --width 160 --clip vit-b-32 --repeats 1   # a short look

VBench's way, as in its repository (https://github.com/Vchitect/VBench, ``vbench/``): each dimension reads the file
again; CLIP sees all frames in batches of 32 for aesthetic quality, and once more for alignment; MUSIQ sees them one by
one, with the empty patches that fill its scales. LPIPS, which VBench does not have, is called as its package is, pair
by pair, so that it sees every inner frame twice. Ours: the frames are tensors already, CLIP and the resized frames are
shared, networks see batches. What only we compute (CLIP-IQA, motion, saturation) is in our time.

``every frame, MUSIQ`` is the same work: its five scores equal VBench's, and the largest difference is in the result.
``default`` is what stg-tune does unless told otherwise: 16 frames for CLIP, and CLIP-IQA in place of MUSIQ, so numbers
of another kind for the same purpose. Weights are random: they change no time. On two idle cores a round of the full
size takes about a quarter of an hour and 6 GB.
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
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torchvision import transforms

from stg_tune.score import CompositeScorer
from stg_tune.score.clip import Aesthetic, Alignment
from stg_tune.score.clip_models import VARIANTS, Tokenizer, configuration, published_towers
from stg_tune.score.flicker import TemporalFlickering
from stg_tune.score.motion import Motion
from stg_tune.score.musiq import (
    LONGER_SIDES,
    MOST_PIXELS,
    PATCH,
    Musiq,
    MusiqQuality,
    hashed_positions,
    patches,
    shrunk,
)
from stg_tune.score.parts import FEWER_FRAMES
from stg_tune.score.perceptual import AlexTrunk, LpipsOverTrunk, TemporalLpips
from stg_tune.score.placement import Placement
from stg_tune.score.quality_prompts import PromptQuality
from stg_tune.score.saturation import Saturation
from stg_tune.video import Video, read_video, write_mp4

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

PROMPT = "a boat that sails past a lighthouse at dusk"
ZEROS = "0" * 16
CLIP_BATCH = 32
"""Frames that VBench's aesthetic quality gives to CLIP at a time."""
SAME_WORK = "every frame, MUSIQ"
DIMENSIONS = ("aesthetic", "alignment", "musiq", "temporal_lpips", "temporal_flickering")
BAR = 3.0
"""How many times faster the default must be."""


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
        return CompositeScorer(measures)


def padded_quality(net: Musiq, frame: Tensor) -> Tensor:
    """MUSIQ of one frame with the empty patches of the published programs, (1,).

    There they also go through the transformer, hidden by a mask; here they are dropped before it, which favours VBench.
    """
    pyramid = [*(shrunk(2 * frame[None] - 1, side) for side in LONGER_SIDES), 2 * frame[None] - 1]
    tokens, positions, scales = [], [], []
    for scale, level in enumerate(pyramid):
        pictures = patches(level)
        count = pictures.shape[1]
        full = math.ceil(LONGER_SIDES[scale] / PATCH) ** 2 if scale < len(LONGER_SIDES) else count
        empty = pictures.new_zeros(1, full - count, *pictures.shape[2:])
        tokens.append(net.embed(torch.cat([pictures, empty], dim=1))[:, :count])
        positions.append(hashed_positions(*level.shape[-2:]))
        scales.append(torch.full((count,), scale))
    final = net.transformer_encoder(torch.cat(tokens, dim=1), torch.cat(positions), torch.cat(scales))
    points: Tensor = net.head(final)
    return points[:, 0]


class VBenchWay:
    """One dimension after the other, each from the file."""

    def __init__(self, networks: Networks, file: Path) -> None:
        self._networks, self._file = networks, file
        size = networks.config["vision_cfg"]["image_size"]
        self._transform = transforms.Compose(
            [
                transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC, antialias=False),
                transforms.CenterCrop(size),
                transforms.Lambda(lambda picture: picture.float().div(255.0)),
                transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
            ]
        )
        self._tokenize = Tokenizer(networks.config["text_cfg"]["context_length"])

    def _levels(self) -> Tensor:
        """Floats from 0 to 255, as VBench's ``load_video`` gives."""
        return read_video(self._file).frames.permute(0, 3, 1, 2).float()

    def _features(self) -> Tensor:
        parts = self._levels().split(CLIP_BATCH)
        rows = [self._networks.clip.encode_image(self._transform(part)) for part in parts]
        return F.normalize(torch.cat(rows), dim=-1)

    def aesthetic(self) -> float:
        """CLIP on every frame, in VBench's batches."""
        return float((self._features() @ self._networks.head + self._networks.bias).mean()) / 10

    def alignment(self) -> float:
        """CLIP on every frame once more."""
        text = self._networks.clip.encode_text(self._tokenize([PROMPT]))[0]
        return float(F.cosine_similarity(self._features().mean(0), text, dim=0))

    def musiq(self) -> float:
        """MUSIQ on every frame, one by one."""
        levels = self._levels()
        height, width = levels.shape[-2:]
        scale = min(1.0, MOST_PIXELS / max(height, width))
        smaller = transforms.Resize((int(scale * height), int(scale * width)), antialias=False)(levels) / 255
        return float(torch.cat([padded_quality(self._networks.musiq, frame) for frame in smaller]).mean()) / 100

    def temporal_lpips(self) -> float:
        """LPIPS of one pair after the other."""
        frames = self._levels() / 127.5 - 1
        pairs = [self._networks.lpips(frames[t : t + 1], frames[t + 1 : t + 2]) for t in range(len(frames) - 1)]
        return float(torch.cat(pairs).mean())

    def temporal_flickering(self) -> float:
        """Differences of one pair after the other."""
        frames = self._levels()
        changes = [(after - before).abs().mean() for before, after in pairwise(frames)]
        return 1 - float(torch.stack(changes).mean()) / 255


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
def compare(arguments: argparse.Namespace) -> dict[str, object]:
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
    total = sum(found[name][0] for name in theirs)
    faster = {name: total / found[name][0] for name in ours}
    (same,) = found[SAME_WORK][1]
    gaps = [abs((same[name].value or 0.0) - found[name][1]) for name in theirs]
    return {
        "date": f"{datetime.now():%Y-%m-%d}",
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": os.getloadavg()[0],
            "torch": torch.__version__,
            "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        },
        "video": {"frames": arguments.frames, "height": arguments.height, "width": arguments.width},
        "clip": arguments.clip,
        "repeats": arguments.repeats,
        "vbench_seconds": {**{name: found[name][0] for name in theirs}, "total": total},
        "our_seconds": {name: found[name][0] for name in ours},
        "times_faster": faster,
        "bar": {"mode": "default", "times_faster": BAR, "met": faster["default"] >= BAR},
        "largest_difference_of_a_score": max(gaps),
    }


def main() -> None:
    """Measure, print, and store if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--clip", choices=sorted(VARIANTS), default="vit-l-14")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = json.dumps(compare(arguments), indent=1)
    sys.stdout.write(result + "\n")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
