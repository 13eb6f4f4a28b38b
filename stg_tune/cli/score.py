"""``stg-tune score``: what the scorers say about video files."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import number, say, say_json, say_table
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from stg_tune.records import Score
    from stg_tune.score import Scorer
    from stg_tune.video import Video

EMBEDDED = "embedded"
"""What ``--scorers`` calls the scorers of the embedded models."""
EMBEDDED_SIZE = (64, 64)
"""Height and width of the videos that those know."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("score", help="score video files")
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="MP4, WebM or GIF file, or a folder of images"
    )
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="T", help="what the videos should show: once, or once a file"
    )
    parser.add_argument(
        "--scorers",
        metavar="NAMES",
        help="names with commas between them, or `embedded` (default: for 64x64 videos those of the embedded models, "
        "else the default ones of --list)",
    )
    parser.add_argument("--list", action="store_true", help="show all scorers and stop")
    parser.add_argument("--fast", action="store_true", help="a smaller CLIP: a twentieth of the cost, other numbers")
    parser.add_argument(
        "--all-frames", action="store_true", help="every frame, as VBench (default: 16 for CLIP and MUSIQ)"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="local folder with the scorers' files")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument("--csv", action="store_true", help="print CSV, one line a file and score")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score each file by itself: lengths and sizes may differ."""
    if arguments.list:
        _say_scorers(as_json=arguments.json)
        return 0
    prompts = _prompts(arguments.prompt, arguments.files)
    _check_names(arguments.scorers)
    chosen, results = _Chosen(arguments), []
    for file, prompt in zip(arguments.files, prompts, strict=True):
        video = _read(file)
        results.append(chosen.scorer(video, file)(video.to_float()[None], [prompt])[0])
    if arguments.json:
        say_json([_plain(file, scores) for file, scores in zip(arguments.files, results, strict=True)])
    elif arguments.csv:
        _csv(arguments.files, results)
    else:
        _table(arguments.files, results)
    return 0


class _Chosen:
    """The scorers for a video; they are loaded once, and again only where the frame rate matters and differs."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._loaded: dict[tuple[str, float], Scorer] = {}

    def scorer(self, video: Video, file: Path) -> Scorer:
        """The scorers that the user named, or those that know videos of this size; all files share one kind."""
        names = self._arguments.scorers or _by_size(video)
        fps = float(video.fps) if "dynamic_degree" in names.split(",") else 0.0
        if any(names != other for other, _ in self._loaded):
            height, width = video.frames.shape[1:3]
            raise StgTuneError(
                f"{file} has {width}x{height} pixels, the files before it are of the other kind: 64x64 videos are "
                "scored by those of the embedded models, others by the default ones; name the scorers with --scorers"
            )
        if (names, fps) not in self._loaded:
            self._loaded[names, fps] = self._load(names, fps or 8.0)
        return self._loaded[names, fps]

    def _load(self, names: str, fps: float) -> Scorer:
        from stg_tune.score import default_scorers, embedded_scorers
        from stg_tune.score.parts import FEWER_FRAMES
        from stg_tune.score.placement import Placement

        if names == EMBEDDED:
            return embedded_scorers(device=Placement.automatic(self._arguments.device).device)
        return default_scorers(
            self._arguments.device,
            names=names.split(","),
            fast=self._arguments.fast,
            frames=None if self._arguments.all_frames else FEWER_FRAMES,
            fps=fps,
            weights=self._arguments.weights,
        )


def _by_size(video: Video) -> str:
    from stg_tune.score.registry import DEFAULT

    return EMBEDDED if tuple(video.frames.shape[1:3]) == EMBEDDED_SIZE else ",".join(DEFAULT)


def _check_names(names: str | None) -> None:
    """A wrong name is answered before anything heavy is imported."""
    from stg_tune.score.registry import recipe

    for name in (names or "").split(","):
        if names and names != EMBEDDED:
            recipe(name)


def _read(file: Path) -> Video:
    from stg_tune.video import read_video

    return read_video(file)


def _prompts(given: list[str], files: Sequence[Path]) -> list[str]:
    if not files:
        raise StgTuneError("no file to score: give at least one MP4, WebM or GIF file, or a folder of images")
    if len(given) not in (0, 1, len(files)):
        raise StgTuneError(
            f"{len(given)} prompts for {len(files)} file(s): give --prompt once for all files, or once a file"
        )
    return (given or [""]) * (len(files) if len(given) < 2 else 1)


def _say_scorers(*, as_json: bool) -> None:
    from stg_tune.score.registry import DEFAULT, EXACT_CLIP, recipes

    known = recipes().values()
    if as_json:
        say_json(
            [
                {"name": r.name, "default": r.name in DEFAULT, "files": r.needs(EXACT_CLIP), "summary": r.summary}
                for r in known
            ]
        )
        return
    rows = [
        (r.name, "yes" if r.name in DEFAULT else "", ", ".join(r.needs(EXACT_CLIP)) or "-", r.summary) for r in known
    ]
    say_table(("SCORER", "DEFAULT", "FILES", "WHAT"), rows)


def _table(files: list[Path], results: list[dict[str, Score]]) -> None:
    kinds = [score.kind for score in results[0].values()]
    say_table(
        ("FILE", *(kind.name.upper() for kind in kinds)),
        [
            (str(file), *(number(score.value) for score in scores.values()))
            for file, scores in zip(files, results, strict=True)
        ],
    )
    say()
    for kind in kinds:
        say(f"{kind.name}: {kind.unit}, {'more' if kind.direction == 'maximize' else 'less'} is better")
    for file, scores in zip(files, results, strict=True):
        for score in scores.values():
            if score.value is None:
                say(f"{file}: no {score.kind.name}: {score.reason}")


def _csv(files: list[Path], results: list[dict[str, Score]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("file", "scorer", "value", "direction", "unit", "weights", "reason"))
    for file, scores in zip(files, results, strict=True):
        for name, score in scores.items():
            value = "" if score.value is None else repr(score.value)
            kind = score.kind
            writer.writerow((str(file), name, value, kind.direction, kind.unit, kind.weights, score.reason))


def _plain(file: Path, scores: Mapping[str, Score]) -> dict[str, Any]:
    return {
        "file": str(file),
        "scores": {name: score.value for name, score in scores.items()},
        "unscored": {name: score.reason for name, score in scores.items() if score.value is None},
        "weights": {name: score.kind.weights for name, score in scores.items()},
        "direction": {name: score.kind.direction for name, score in scores.items()},
    }
