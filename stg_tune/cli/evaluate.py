"""``stg-tune evaluate``: the paper's tables and curves for a model and presets."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.cli.lora import add_loras
from stg_tune.cli.output import complain, number, say, say_json, say_table
from stg_tune.cli.score import EMBEDDED_SIZE
from stg_tune.cli.search import add_batch, add_placement, placement_of
from stg_tune.cli.stopping import code_of, held, terminable
from stg_tune.errors import StgTuneError
from stg_tune.evaluate.suites import SUITES, check_samples, least_videos, suite

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from stg_tune.evaluate import EvaluationPlan, Row
    from stg_tune.evaluate.arms import Candidate
    from stg_tune.evaluate.plan import Folder
    from stg_tune.evaluate.real import FirstFrames
    from stg_tune.evaluate.rows import Difference
    from stg_tune.evaluate.run import EvaluationRecipe
    from stg_tune.evaluate.suites import Suite
    from stg_tune.models.base import ModelEntry

VIDEO = ("height", "width", "num_frames", "fps")
"""Of a model's defaults, what decides what its videos are."""


def add(commands: Any) -> None:
    """Register the command."""
    suites = "; ".join(f"{each.name}: {each.summary} ({each.repeats} of the paper)" for each in SUITES)
    parser = commands.add_parser("evaluate", help="repeat the paper's tables for a model and presets")
    parser.add_argument("--model", required=True, metavar="M", help="a name that `stg-tune models` lists")
    parser.add_argument("--model-path", type=Path, metavar="DIR", help="local folder with the model's files")
    add_loras(parser)
    parser.add_argument("--suite", required=True, metavar="S", help=suites)
    parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="PRESET",
        help="preset file, or a published preset, to compare with plain CFG and, where its evidence names it, with its "
        "best CFG alone; repeatable",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the evaluation; the same one goes on")
    parser.add_argument("--samples", type=int, metavar="N", help="videos of each setting (default: the suite's)")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="captions, one a line (default: the model's own, or a general list)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="real videos to compare with, UCF-101 for the paper's")
    parser.add_argument(
        "--scorers", metavar="NAMES", help="scorers in place of the suite's own, commas between them, or `embedded`"
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="local folder with the scorers' files")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides the noise (default: 0)")
    add_placement(parser)
    add_batch(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate what is missing, then the table."""
    chosen, entry = suite(arguments.suite), models.entry(arguments.model)
    _check_numbers(arguments, chosen, entry)
    from stg_tune.evaluate.plan import Folder
    from stg_tune.evaluate.run import evaluate, known_row, with_identity
    from stg_tune.models.loras import check_takes, parse_loras
    from stg_tune.tune import layout_of

    check_takes(entry, parse_loras(arguments.lora))
    folder = Folder(arguments.out or Path("evaluations") / f"{Path(entry.name).name}-{chosen.name}")
    pictures = _pictures(arguments, chosen, entry, folder)
    draft = _plan(arguments, chosen, entry, [str(path) for path in pictures.paths] if pictures else [])
    recipe = _recipe(arguments, draft, folder)
    scorer = recipe.scorer()
    extractor = recipe.extracting()
    plan = with_identity(draft, scorer, extractor, recipe.model)
    layout = layout_of(placement_of(arguments), entry, recipe.model.path)
    folder.begin(plan)
    if pictures:
        pictures.write()
    show, here = _silent if arguments.quiet else _Progress(), partial(recipe.evaluate, scorer, extractor)
    try:
        with terminable(), layout.open(recipe, here, reference=known_row(plan, folder)) as executor:
            table = evaluate(
                plan, folder, executor, scorer, extractor, data=arguments.data, batch=layout.batch, progress=held(show)
            )
    except KeyboardInterrupt as stop:
        complain("stopped; every finished pair is kept: the same command goes on")
        return code_of(stop)
    _say(plan, table, folder.path, as_json=arguments.json)
    return 0


def _check_numbers(arguments: argparse.Namespace, chosen: Suite, entry: ModelEntry) -> None:
    """Too few videos, generated or real, are known before anything is loaded."""
    extractor = _extractor(chosen, entry)
    check_samples(chosen, extractor, _samples(arguments, chosen, entry))
    if extractor == "i3d" and arguments.data is not None:
        from stg_tune.evaluate.real import check_enough

        check_enough(arguments.data, least_videos(extractor))


def _extractor(chosen: Suite, entry: ModelEntry) -> str:
    return "judge" if entry.embedded else "i3d" if chosen.features else ""


def _pictures(arguments: argparse.Namespace, chosen: Suite, entry: ModelEntry, folder: Folder) -> FirstFrames | None:
    """What a model that continues a picture is given unless the user names pictures: first frames of real videos."""
    if not entry.image_source or entry.embedded or arguments.prompts:
        return None
    if arguments.data is None:
        raise StgTuneError(
            f"{entry.name} continues a picture: give --data DIR with videos whose first frames it continues, or "
            "--prompts FILE with the path of one picture a line"
        )
    from stg_tune.evaluate.real import FirstFrames

    samples = _samples(arguments, chosen, entry)
    return FirstFrames.of(arguments.data, folder.path / "first_frames", max(samples // chosen.seeds, 1))


def _samples(arguments: argparse.Namespace, chosen: Suite, entry: ModelEntry) -> int:
    usual = chosen.embedded_samples if entry.embedded else chosen.samples
    return usual if arguments.samples is None else int(arguments.samples)


def _plan(arguments: argparse.Namespace, chosen: Suite, entry: ModelEntry, pictures: Sequence[str]) -> EvaluationPlan:
    from stg_tune.evaluate.arms import arms_of
    from stg_tune.evaluate.plan import EvaluationPlan, pairs_of
    from stg_tune.tune import default_prompts, read_prompts

    prompts = pictures or (read_prompts(arguments.prompts) if arguments.prompts else default_prompts(entry))
    usual = entry.defaults
    return EvaluationPlan(
        suite=chosen.name,
        model=entry.name,
        num_steps=arguments.steps or usual.num_inference_steps,
        arms=arms_of(chosen, usual.cfg_scale, _presets(arguments.preset, entry)),
        pairs=pairs_of(prompts, samples=_samples(arguments, chosen, entry), seeds=chosen.seeds, seed=arguments.seed),
        scorers=_scorers(arguments.scorers, chosen, entry, pictures),
        extractor=_extractor(chosen, entry),
        video={name: number for name, number in asdict(usual).items() if name in VIDEO},
    )


def _scorers(words: str | None, chosen: Suite, entry: ModelEntry, pictures: Sequence[str]) -> tuple[str, ...]:
    from stg_tune.evaluate.plan import EMBEDDED

    given = tuple(words.split(",")) if words else ()
    if EMBEDDED in given or (entry.embedded and not given):
        _check_embedded(given, entry)
        return (EMBEDDED,)
    # a path says nothing to CLIP
    return given or tuple(name for name in chosen.scorers if not pictures or name != "alignment")


def _check_embedded(given: Sequence[str], entry: ModelEntry) -> None:
    size = entry.defaults.height, entry.defaults.width
    if len(given) > 1:
        raise StgTuneError(f"--scorers {','.join(given)}: `embedded` means six scorers and goes with no other name")
    if size != EMBEDDED_SIZE:
        raise StgTuneError(
            f"--scorers embedded: these know videos of {EMBEDDED_SIZE[1]}x{EMBEDDED_SIZE[0]} pixels of moving digits "
            f"only, and {entry.name} makes {size[1]}x{size[0]}; leave --scorers out, or name others that "
            "`stg-tune score --list` shows"
        )


def _presets(names: list[str], entry: ModelEntry) -> Mapping[str, Candidate]:
    from stg_tune import preset as presets
    from stg_tune.evaluate.arms import Candidate

    found: dict[str, Candidate] = {}
    for given in names:
        name = Path(given).stem
        if name in found:
            raise StgTuneError(f"two presets are called {name}: rename one of the files")
        preset = presets.open_for(given, entry)
        found[name] = Candidate(
            spec=presets.bare_spec(preset), best_cfg=preset.evidence.best_cfg if preset.evidence else None
        )
    return found


def _recipe(arguments: argparse.Namespace, plan: EvaluationPlan, folder: Any) -> EvaluationRecipe:
    from stg_tune.evaluate.run import EvaluationRecipe
    from stg_tune.models.loras import parse_loras
    from stg_tune.studio import ModelRecipe

    loras, steps = parse_loras(arguments.lora), plan.num_steps
    path = _whole(arguments.model_path)
    return EvaluationRecipe(
        model=ModelRecipe(model=plan.model, path=path, num_inference_steps=steps, loras=loras),
        scorers=plan.scorers,
        extractor=plan.extractor,
        features=folder.features.absolute(),
        weights=_whole(arguments.weights),
    )


def _whole(folder: Path | None) -> Path | None:
    """What a worker, which has a working folder of its own, can find."""
    return folder.expanduser().resolve() if folder else None


def _silent(done: int, total: int) -> None:
    """Say nothing."""


class _Progress:
    """One line that is written over on a terminal; elsewhere a line whenever another 50 videos are there."""

    def __init__(self) -> None:
        self._told = -1

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {total} videos" + ("\n" if done == total else ""))
            sys.stderr.flush()
        elif done == total or done // 50 > self._told:
            self._told = done // 50
            complain(f"{done} of {total} videos")


def _say(plan: EvaluationPlan, table: list[Row], folder: Path, *, as_json: bool) -> None:
    if as_json:
        say_json({"folder": str(folder), **plan.to_dict(), "table": [row.to_dict() for row in table]})
        return
    from stg_tune.evaluate.result import SUMMARY, TABLE

    alone = any(row.alone for row in table)
    versus = ("- ITS CFG ALONE", "95 % INTERVAL") if alone else ()
    heads = ("METRIC", "BETTER", "SETTING", "MEAN", "SE", "- CFG", "95 % INTERVAL", *versus, "N", "FAILED", "UNSCORED")
    say_table(heads, [_cells(row, alone=alone) for row in table])
    say()
    for kind in dict.fromkeys(row.kind for row in table):
        say(f"{kind.name}: {kind.unit}, {kind.low:g} to {kind.high:g}")
    say(f"\n{plan.suite} on {plan.model}, {plan.num_steps} steps; {folder} keeps every pair")
    say(f"This table with all digits: {folder / SUMMARY}, {folder / TABLE}")
    if suite(plan.suite).remark:
        say(suite(plan.suite).remark)


def _cells(row: Row, *, alone: bool) -> tuple[str, ...]:
    better = "more" if row.kind.direction == "maximize" else "less"
    numbers = (number(row.mean), number(row.error, 2), *_compared(row.difference))
    versus = _compared(row.alone) if alone else ()
    counts = (str(row.samples), str(row.failed), str(row.unscored))
    return (row.kind.name, better, row.arm.name, *numbers, *versus, *counts)


def _compared(difference: Difference | None) -> tuple[str, str]:
    """The difference, and its interval where both ends are known."""
    if difference is None:
        return "", ""
    known = difference.low is not None and difference.high is not None
    return f"{difference.mean:+.3g}", f"{difference.low:+.3g} to {difference.high:+.3g}" if known else "unbounded"
