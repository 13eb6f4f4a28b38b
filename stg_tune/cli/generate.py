"""``stg-tune generate``: one video, with a preset or with plain CFG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.cli.lora import add_loras, warn_of_other_loras
from stg_tune.cli.output import say
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("generate", help="make one video")
    parser.add_argument("--model", required=True, metavar="M", help="a name that `stg-tune models` lists")
    parser.add_argument("--model-path", type=Path, metavar="DIR", help="local folder with the model's files")
    add_loras(parser)
    parser.add_argument(
        "--preset",
        metavar="P",
        help="preset to follow: a file, or a published one such as mochi/published (default: plain CFG)",
    )
    parser.add_argument("--prompt", required=True, metavar="T", help="what the video should show")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default: 0)")
    parser.add_argument("--cfg-scale", type=float, metavar="G", help="plain CFG with this scale; not with --preset")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: the model's own)")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="FILE.mp4", help="where to write the video")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Generate and write; everything that can be wrong is checked before the model is loaded."""
    entry = models.entry(arguments.model)
    if arguments.preset and arguments.cfg_scale is not None:
        raise StgTuneError("--preset states its own cfg_scale: leave out --cfg-scale or --preset")
    if arguments.out.suffix.lower() != ".mp4":
        raise StgTuneError(f"--out {arguments.out}: only MP4 is written; type -o {arguments.out.with_suffix('.mp4')}")
    if arguments.steps is not None and arguments.steps < 1:
        raise StgTuneError(f"--steps must be at least 1, got {arguments.steps}")
    if arguments.preset:
        warn_of_other_loras(arguments.preset, arguments.lora)
    from stg_tune.film import render
    from stg_tune.records import Pair

    made = render(
        entry,
        Pair(prompt=arguments.prompt, seed=arguments.seed),
        arguments.out,
        model_path=arguments.model_path,
        loras=arguments.lora,
        preset=arguments.preset,
        cfg_scale=arguments.cfg_scale,
        num_inference_steps=arguments.steps,
    )
    say(f"{arguments.out}: {made.seconds:.1f} s, {made.forwards:.1f} denoiser forwards")
    for term, effect in made.effects.items():
        say(f"{term}: skipping moves the prediction by {effect:.2%}")
    return 0
