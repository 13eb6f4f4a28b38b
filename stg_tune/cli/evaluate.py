"""``stg-tune evaluate``: the paper's tables and curves for a model and presets."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.cli.lora import add_loras
from stg_tune.cli.output import complain, number, say, say_json, say_table
from stg_tune.cli.search import add_batch, add_placement, placement_of
from stg_tune.errors import StgTuneError
from stg_tune.evaluate.suites import SUITES, suite

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from stg_tune.evaluate import EvaluationPlan, Row
    from stg_tune.evaluate.plan import Folder
    from stg_tune.evaluate.real import FirstFrames
    from stg_tune.evaluate.run import EvaluationRecipe
    from stg_tune.evaluate.suites import Suite
    from stg_tune.models.base import ModelEntry
    from stg_tune.records import GuidanceSpec


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
        help="preset file, or a published preset, to compare with plain CFG; repeatable",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the evaluation; the same one goes on")
    parser.add_argument("--samples", type=int, metavar="N", help="videos of each setting (default: the paper's number)")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="captions, one a line")
    parser.add_argument("--data", type=Path, metavar="DIR", help="real videos to compare with, UCF-101 for the paper's")
    parser.add_argument("--scorers", metavar="NAMES", help="scorers in place of the suite's own, commas between them")
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
    if arguments.samples is not None and arguments.samples < 2:
        raise StgTuneError(f"--samples must be at least 2, got {arguments.samples}")
    from stg_tune.evaluate.plan import Folder
    from stg_tune.evaluate.run import evaluate, known_row, with_weights
    from stg_tune.models.loras import check_takes, identity, parse_loras
    from stg_tune.tune import layout_of

    check_takes(entry, parse_loras(arguments.lora))
    folder = Folder(arguments.out or Path("evaluations") / f"{Path(entry.name).name}-{chosen.name}")
    pictures = _pictures(arguments, chosen, entry, folder)
    draft = _plan(arguments, chosen, entry, [str(path) for path in pictures.paths] if pictures else [])
    recipe = _recipe(arguments, draft, folder)
    scorer = recipe.scorer()
    extractor = recipe.extracting()
    plan = with_weights(draft, scorer, extractor)
    plan = replace(plan, weights={**plan.weights, **identity(recipe.model.loras)})
    layout = layout_of(placement_of(arguments), entry, arguments.model_path)
    folder.begin(plan)
    if pictures:
        pictures.write()
    show, here = _silent if arguments.quiet else _Progress(), partial(recipe.evaluate, scorer, extractor)
    try:
        with layout.open(recipe, here, reference=known_row(plan, folder)) as executor:
            table = evaluate(
                plan,
                folder,
                executor,
                scorer,
                extractor,
                data=arguments.data,
                num_frames=entry.defaults.num_frames,
                batch=layout.batch,
                progress=show,
            )
    except KeyboardInterrupt:
        complain("stopped; every finished pair is kept: the same command goes on")
        return 130
    _say(plan, table, folder.path, as_json=arguments.json)
    return 0


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

    return FirstFrames.of(arguments.data, folder.path / "first_frames", _samples(arguments, chosen, entry))


def _samples(arguments: argparse.Namespace, chosen: Suite, entry: ModelEntry) -> int:
    return arguments.samples or (chosen.embedded_samples if entry.embedded else chosen.samples)


def _plan(arguments: argparse.Namespace, chosen: Suite, entry: ModelEntry, pictures: Sequence[str]) -> EvaluationPlan:
    from stg_tune.evaluate.plan import EvaluationPlan, arms_of, pairs_of
    from stg_tune.tune import default_prompts, read_prompts

    prompts = pictures or (read_prompts(arguments.prompts) if arguments.prompts else default_prompts(entry))
    usual = [name for name in chosen.scorers if not pictures or name != "alignment"]  # a path says nothing to CLIP
    named = tuple(arguments.scorers.split(",") if arguments.scorers else usual)
    return EvaluationPlan(
        suite=chosen.name,
        model=entry.name,
        num_steps=arguments.steps or entry.defaults.num_inference_steps,
        arms=arms_of(chosen, entry.defaults.cfg_scale, _presets(arguments.preset, entry)),
        pairs=pairs_of(prompts, samples=_samples(arguments, chosen, entry), seeds=chosen.seeds, seed=arguments.seed),
        scorers=() if entry.embedded and not arguments.scorers else named,
        extractor="judge" if entry.embedded else "i3d" if chosen.features else "",
    )


def _presets(names: list[str], entry: ModelEntry) -> Mapping[str, GuidanceSpec]:
    from stg_tune import preset as presets

    specs: dict[str, GuidanceSpec] = {}
    for given in names:
        name = Path(given).stem
        if name in specs:
            raise StgTuneError(f"two presets are called {name}: rename one of the files")
        specs[name] = presets.spec_for(given, entry)
    return specs


def _recipe(arguments: argparse.Namespace, plan: EvaluationPlan, folder: Any) -> EvaluationRecipe:
    from stg_tune.evaluate.run import EvaluationRecipe
    from stg_tune.models.loras import parse_loras
    from stg_tune.studio import ModelRecipe

    loras, steps = parse_loras(arguments.lora), plan.num_steps
    return EvaluationRecipe(
        model=ModelRecipe(model=plan.model, path=arguments.model_path, num_inference_steps=steps, loras=loras),
        scorers=plan.scorers,
        extractor=plan.extractor,
        features=folder.features.absolute(),
        weights=arguments.weights,
    )


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
    heads = ("METRIC", "BETTER", "SETTING", "MEAN", "SE", "- CFG", "95 % INTERVAL", "N")
    say_table(heads, [_cells(row) for row in table])
    say(f"\n{plan.suite} on {plan.model}, {plan.num_steps} steps; {folder} keeps every pair")
    if suite(plan.suite).remark:
        say(suite(plan.suite).remark)


def _cells(row: Row) -> tuple[str, ...]:
    interval = "" if row.low is None or row.high is None else f"{row.low:+.3g} to {row.high:+.3g}"
    gap = "" if row.difference is None else f"{row.difference:+.3g}"
    better = "more" if row.direction == "maximize" else "less"
    return row.metric, better, row.arm, number(row.mean), number(row.error, 2), gap, interval, str(row.samples)
