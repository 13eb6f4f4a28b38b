"""``stg-tune score``: what the scorers say about video files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import number, say, say_json, say_table
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from stg_tune.records import Score


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("score", help="score video files")
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="MP4, WebM or GIF file, or a folder of images"
    )
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="T", help="what the videos should show: once, or once a file"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score each file by itself: lengths and sizes may differ."""
    prompts = _prompts(arguments.prompt, len(arguments.files))
    from stg_tune.score import embedded_scorers
    from stg_tune.video import read_video

    scorer = embedded_scorers()
    results = [
        scorer(read_video(file).to_float()[None], [prompt])[0]
        for file, prompt in zip(arguments.files, prompts, strict=True)
    ]
    if arguments.json:
        say_json([_plain(file, scores) for file, scores in zip(arguments.files, results, strict=True)])
    else:
        _table(arguments.files, results)
    return 0


def _prompts(given: list[str], files: int) -> list[str]:
    if len(given) not in (1, files):
        raise StgTuneError(
            f"{len(given)} prompts for {files} file(s): give --prompt once for all files, or once a file"
        )
    return given * (files if len(given) == 1 else 1)


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


def _plain(file: Path, scores: Mapping[str, Score]) -> dict[str, Any]:
    return {
        "file": str(file),
        "scores": {name: score.value for name, score in scores.items()},
        "unscored": {name: score.reason for name, score in scores.items() if score.value is None},
        "weights": {name: score.kind.weights for name, score in scores.items()},
        "direction": {name: score.kind.direction for name, score in scores.items()},
    }
