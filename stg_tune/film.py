"""Films single pairs for people to look at, pairs of a run or any other; the model is loaded when a clip is missing."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.outcome import filmed_pairs, filmed_settings, write_effects
from stg_tune.preset import open_for, spec_for
from stg_tune.records import GuidanceSpec
from stg_tune.report.facts import describe
from stg_tune.search import load_run, snapshot
from stg_tune.search.executor import Executor, Task
from stg_tune.vote import Arm, Ballot, Item

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stg_tune.generate import Films, Generated
    from stg_tune.models.base import ModelEntry
    from stg_tune.records import Pair
    from stg_tune.search import SearchPlan, SearchResult
    from stg_tune.studio import Studio

    Make = Callable[[Sequence[Task]], None]


def render(
    entry: ModelEntry,
    pair: Pair,
    out: Path,
    *,
    model_path: Path | None = None,
    loras: Sequence[str] = (),
    preset: str | Path | None = None,
    cfg_scale: float | None = None,
    num_inference_steps: int | None = None,
) -> Generated:
    """Generate one video into a file, by a preset (a file, or a published one by name) or with plain CFG."""
    scale = entry.defaults.cfg_scale if cfg_scale is None else cfg_scale
    setting = open_for(preset, entry) if preset else GuidanceSpec(cfg_scale=scale)
    from stg_tune.generate import Generator
    from stg_tune.models.loras import parse_loras
    from stg_tune.video import write_mp4

    pipe = models.load(entry, model_path, parse_loras(loras))
    generator = Generator(pipe, entry, num_inference_steps=num_inference_steps)
    made = generator(setting, pair)
    write_mp4(made.video, out)
    return made


def films_of(plan: SearchPlan, folder: RunFolder) -> Films:
    """Where the videos of a run's result go."""
    from stg_tune.generate import Films

    pairs = frozenset(pair.key for pair in filmed_pairs(plan))
    return Films(folder=folder.path.absolute(), pairs=pairs, default=plan.baseline.hash())


def film_result(result: SearchResult, films: Films, make: Make) -> None:
    """Have the default, the winner and what they are compared with filmed, as far as that has not been done.

    What has been found is stored already: whatever goes wrong costs videos, and is told as a warning.

    Args:
        result: What was found.
        films: Where videos go.
        make: Makes the videos of tasks, each a single pair.
    """
    settings, pairs = filmed_settings(result).values(), filmed_pairs(result.plan)
    tasks = [Task(spec=spec, pair=pair, role="holdout") for spec in settings for pair in pairs]
    missing = [task for task in tasks if not films.clip(task.spec, task.pair).exists()]
    try:
        if missing:
            make(missing)
            _keep_effects(result, films)
    except Exception as error:  # noqa: BLE001 - torch, Ray, the disk: any of them may fail here
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(f"filming what was found has failed ({said})", UserWarning, stacklevel=2)


def here(studio: Studio, films: Films) -> Make:
    """Make videos with the model of this process."""

    def make(tasks: Sequence[Task]) -> None:
        for task in tasks:
            films.write(task.spec, task.pair, studio.generator(task.spec, task.pair))

    return make


def by_workers(executor: Executor) -> Make:
    """Have videos made by workers whose recipe knows where they go, so that this process needs no model."""

    def make(tasks: Sequence[Task]) -> None:
        failed = [one.error for done in executor.run(tasks) for one in done.evaluations if one.error]
        if failed:
            raise StgTuneError(f"{len(failed)} of {len(tasks)} videos cannot be made; {failed[0]}")

    return make


def _keep_effects(result: SearchResult, films: Films) -> None:
    """The mean over the winner's videos."""
    folder, winner = RunFolder(path=films.folder), result.verdict.winner if result.verdict else None
    if winner is None:
        return
    files = [folder.effect_series(winner, pair) for pair in filmed_pairs(result.plan)]
    series = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    if series:
        write_effects(folder.effects, winner, result.plan.num_steps, series)


def ballot_of(
    directory: Path, *, presets: Sequence[str] = (), pairs: int, tell: Callable[[str], None] = lambda _: None
) -> Ballot:
    """The ballot of a run: default against tuned, or two presets, on the last held-out pairs, filmed where need be.

    Args:
        directory: Folder of the run.
        presets: Two files or names of published presets; empty: the default and what the run has found.
        pairs: Number of pairs.
        tell: Told what takes time.

    Raises:
        StgTuneError: No run, nothing found yet, presets of another model, or not that many pairs.
    """
    plan = load_run(directory).plan
    specs = _specs(directory, plan, presets)
    chosen, folder = _pairs(plan, pairs), RunFolder.open(directory)
    settings = {_name(plan, spec): spec for spec in specs}
    _film(folder, plan, settings, chosen, tell)
    a, b = (Arm(name=name, words=describe(spec)) for name, spec in settings.items())
    items = (Item(pair=pair, a=folder.clip(pair, a.name), b=folder.clip(pair, b.name)) for pair in chosen)
    return Ballot(a=a, b=b, items=tuple(items))


def _specs(directory: Path, plan: SearchPlan, presets: Sequence[str]) -> tuple[GuidanceSpec, GuidanceSpec]:
    if presets:
        if len(presets) != 2:
            raise StgTuneError(f"a vote is between two presets, got {len(presets)}: give --preset twice, or not at all")
        entry = models.entry(plan.model)
        first, second = (spec_for(preset, entry) for preset in presets)
    else:
        verdict = snapshot(directory).verdict
        if verdict is None:
            raise StgTuneError(
                f"the run in {directory} has not come to a verdict: type stg-tune resume {directory}, or give two "
                "settings with --preset A --preset B"
            )
        first, second = plan.baseline, verdict.winner
    if first.hash() == second.hash():
        raise StgTuneError(f"both settings are the same ({describe(first)}): there is nothing to vote on")
    return first, second


def _name(plan: SearchPlan, spec: GuidanceSpec) -> str:
    """As the clips are named: those that the run has filmed already are found by it."""
    return "default" if spec.hash() == plan.baseline.hash() else f"tuned-{spec.hash()}"


def _pairs(plan: SearchPlan, count: int) -> tuple[Pair, ...]:
    if not 1 <= count <= len(plan.holdout_pairs):
        raise StgTuneError(f"the run has {len(plan.holdout_pairs)} held-out pairs, {count} cannot be shown: --pairs N")
    return plan.holdout_pairs[-count:]


def _film(
    folder: RunFolder,
    plan: SearchPlan,
    settings: Mapping[str, GuidanceSpec],
    pairs: Sequence[Pair],
    tell: Callable[[str], None],
) -> None:
    missing = [
        (pair, name, spec) for pair in pairs for name, spec in settings.items() if not folder.clip(pair, name).exists()
    ]
    if not missing:
        return
    tell(f"filming {len(missing)} clips with {plan.model}")
    from stg_tune.studio import ModelRecipe, Studio
    from stg_tune.video import write_mp4

    studio = Studio(ModelRecipe.of(plan, folder))
    for number, (pair, name, spec) in enumerate(missing, start=1):
        clip = folder.clip(pair, name)
        write_mp4(studio.generator(spec, pair).video, clip.with_suffix(".part.mp4")).replace(clip)
        tell(f"{number} of {len(missing)} clips")
