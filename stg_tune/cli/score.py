"""``stg-tune score``: what the scorers say about video files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import complain
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from stg_tune.cli.scored import ScoredFile
    from stg_tune.score import CompositeScorer
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
    from stg_tune.cli.scored import say_scored, say_scorers

    if arguments.list:
        say_scorers(as_json=arguments.json)
        return 0
    prompts = _prompts(arguments.prompt, arguments.files)
    chosen, results, problems = _Chosen(arguments), [], []
    for file, prompt in zip(arguments.files, prompts, strict=True):
        try:
            results.append(_score(file, prompt, chosen))
        except StgTuneError as error:  # what the other files gave must not be lost
            problems.append(str(error))
    if results or not problems:
        say_scored(results, "json" if arguments.json else "csv" if arguments.csv else "table")
    for problem in dict.fromkeys(problems):
        complain(problem)
    return 1 if problems else 0


def _score(file: Path, prompt: str, chosen: _Chosen) -> ScoredFile:
    from stg_tune.cli.scored import ScoredFile
    from stg_tune.video import read_video

    video = read_video(file)
    scorer = chosen.scorer(video, file)
    (scores,) = scorer(video.to_float()[None], [prompt])
    count = len(video.frames)
    return ScoredFile(
        file=file, scores=scores, num_frames=count, frames_seen=scorer.frames_seen(count), clips=chosen.clips(scores)
    )


class _Chosen:
    """The scorers for a video; their networks are loaded once.

    Args:
        arguments: Of the command line; wrong names are answered here, before anything heavy is imported.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._named = _names(arguments.scorers)
        self._names: tuple[str, ...] = ()
        self._loaded: CompositeScorer | StgTuneError | None = None
        if self._named == (EMBEDDED,):
            self._refuse_options("the scorers `embedded`")

    def scorer(self, video: Video, file: Path) -> CompositeScorer:
        """The scorers that the user named, or those that know videos of this size; all files share one kind."""
        names = self._named or _by_size(video)
        height, width = video.frames.shape[1:3]
        if self._names and names != self._names:
            raise StgTuneError(
                f"{file} has {width}x{height} pixels, the files before it are of the other kind: 64x64 videos are "
                "scored by those of the embedded models, others by the default ones; name the scorers with --scorers"
            )
        if names == (EMBEDDED,):
            self._refuse_options(f"{file}, a {width}x{height} video for the scorers of the embedded models")
        if self._loaded is None:
            self._names = names
            self._loaded = self._attempt(names)
        if isinstance(self._loaded, StgTuneError):
            raise self._loaded
        return self._loaded.at(float(video.fps))

    def clips(self, names: Iterable[str]) -> dict[str, str]:
        """Scorer -> the CLIP behind its number, for those that have one of several."""
        from stg_tune.score.registry import EXACT_CLIP, FAST_CLIP, recipe

        if self._names == (EMBEDDED,):
            return {}
        clip = FAST_CLIP if self._arguments.fast else EXACT_CLIP
        return {name: clip for name in names if recipe(name).uses_clip}

    def _refuse_options(self, what: str) -> None:
        given = {"--fast": self._arguments.fast, "--all-frames": self._arguments.all_frames}
        for option in (option for option, value in given.items() if value):
            raise StgTuneError(
                f"{option} changes nothing about {what}, which have one CLIP and look at fixed frames: leave out "
                f"{option}, or name other scorers with --scorers"
            )

    def _attempt(self, names: tuple[str, ...]) -> CompositeScorer | StgTuneError:
        try:
            return self._load(names)
        except StgTuneError as error:  # the other files are not to try the same again
            return error

    def _load(self, names: tuple[str, ...]) -> CompositeScorer:
        from stg_tune.score import default_scorers, embedded_scorers
        from stg_tune.score.default import offer_of_scorers
        from stg_tune.score.parts import FEWER_FRAMES
        from stg_tune.score.placement import Placement

        if names == (EMBEDDED,):
            return embedded_scorers(device=Placement.automatic(self._arguments.device).device)
        return default_scorers(
            self._arguments.device,
            names=names,
            fast=self._arguments.fast,
            frames=None if self._arguments.all_frames else FEWER_FRAMES,
            weights=self._arguments.weights,
            offer=f"{offer_of_scorers()}; those of the embedded models: --scorers {EMBEDDED}",
        )


def _by_size(video: Video) -> tuple[str, ...]:
    from stg_tune.score.registry import DEFAULT

    return (EMBEDDED,) if tuple(video.frames.shape[1:3]) == EMBEDDED_SIZE else DEFAULT


def _names(given: str | None) -> tuple[str, ...]:
    """What ``--scorers`` names; empty: nothing was given."""
    from stg_tune.score.registry import recipe

    names = tuple(name.strip() for name in given.split(",")) if given else ()
    for name in names:
        if names != (EMBEDDED,):
            recipe(name)
    return names


def _prompts(given: list[str], files: Sequence[Path]) -> list[str]:
    if not files:
        raise StgTuneError("no file to score: give at least one MP4, WebM or GIF file, or a folder of images")
    if len(given) not in (0, 1, len(files)):
        raise StgTuneError(
            f"{len(given)} prompts for {len(files)} file(s): give --prompt once for all files, or once a file"
        )
    return (given or [""]) * (len(files) if len(given) < 2 else 1)
