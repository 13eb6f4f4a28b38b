"""The story on one screen: load, generate, score, search, prove, film, report. The one place where all stages meet."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import stg_tune
from stg_tune import models
from stg_tune import preset as presets
from stg_tune.documents import read_limited
from stg_tune.embedded import digits
from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.generate import Generated, GenerationFailedError, Generator
from stg_tune.outcome import filmed_pairs, report
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.score import embedded_scorers
from stg_tune.search import SearchPlan, load_run, load_space, run_search, space_names, split_pairs
from stg_tune.search.budget import parse_budget
from stg_tune.video import write_mp4

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.models.base import ModelEntry
    from stg_tune.score import Scorer
    from stg_tune.search import Progress, SearchResult

SEARCH_PAIRS, HOLDOUT_PAIRS = 24, 1200
"""Pairs that are set aside at the start: enough for every named budget, so that a run can be extended."""
GENERAL_PROMPTS = Path(__file__).with_name("general_prompts.txt")
MAX_PROMPT_BYTES = 2_000_000
LIBRARIES = ("torch", "diffusers", "transformers", "optuna", "numpy")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for."""

    model: str
    """A name of ``models.names()``."""
    model_path: Path | None = None
    """Local folder with the model's files."""
    space: str | None = None
    """Name or YAML file of a search space; ``None``: the model's own."""
    prompts: Path | None = None
    """Text file with one caption a line; ``None``: an embedded model's own captions, else a general list."""
    budget: str = "small"
    """``small``, ``medium``, ``large``, a number of evaluations, or a time such as ``2h``."""
    seed: int = 0
    """Decides split, noise and proposals."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a finished run leaves behind."""

    result: SearchResult
    """All numbers."""
    improved: bool
    """The held-out gain has an interval above zero and every guard holds."""
    preset: Path | None
    """The preset; ``None`` when nothing was better than the default."""
    report: Path
    """The dashboard."""


def tune(request: Request, directory: Path, *, storage: str | None, progress: Progress) -> Outcome:
    """Search in a new folder.

    Raises:
        StgTuneError: Something the user can fix; found before the model is loaded where that is possible.
        KeyboardInterrupt: After a clean stop; ``resume`` goes on.
    """
    entry = models.entry(request.model)
    draft = draft_plan(request, entry)
    folder = RunFolder.new(directory, model_path=request.model_path)
    generator = Generator(models.load(entry, request.model_path), entry)
    scorer = scorer_for(entry)
    folder.make()
    return _search(draft(scorer), folder, generator, scorer, storage=storage, progress=progress)


def resume(directory: Path, *, budget: str | None, progress: Progress) -> Outcome:
    """Go on with the run in a folder, if need be with a larger budget; raises as ``tune`` does."""
    run, folder = load_run(directory), RunFolder.open(directory)
    entry = models.entry(run.plan.model)
    generator = Generator(models.load(entry, folder.model_path), entry, num_inference_steps=run.plan.num_steps)
    plan = replace(run.plan, budget=budget or run.plan.budget)
    return _search(plan, folder, generator, scorer_for(entry), storage=None, progress=progress)


def _search(
    plan: SearchPlan,
    folder: RunFolder,
    generator: Generator,
    scorer: Scorer,
    *,
    storage: str | None,
    progress: Progress,
) -> Outcome:
    evaluate = evaluator(generator, scorer)
    result = run_search(plan, evaluate, directory=folder.path, storage=storage, progress=progress)
    verdict = result.verdict
    improved = verdict is not None and verdict.improved
    if verdict is not None:
        _film(generator, folder, plan, verdict.winner)
    if improved:
        presets.save(_preset(result, generator), folder.preset)
    return Outcome(
        result=result, improved=improved, preset=folder.preset if improved else None, report=report(folder.path)
    )


def evaluator(generator: Generator, scorer: Scorer) -> Callable[[GuidanceSpec, Pair], Evaluation]:
    """``(spec, pair) -> Evaluation``: all that the search ever sees of a model."""

    def evaluate(spec: GuidanceSpec, pair: Pair) -> Evaluation:
        try:
            with warnings.catch_warnings():
                # the search meets settings without effect by itself; the effect is in every row
                warnings.simplefilter("ignore", UserWarning)
                return _scored(spec, pair, generator(spec, pair), scorer)
        except GenerationFailedError as error:
            return Evaluation(config=spec.hash(), pair=pair, error=str(error))

    return evaluate


def _scored(spec: GuidanceSpec, pair: Pair, made: Generated, scorer: Scorer) -> Evaluation:
    (scores,) = scorer(made.video.to_float()[None], [pair.prompt])
    return Evaluation(
        config=spec.hash(),
        pair=pair,
        scores={name: score.value for name, score in scores.items() if score.value is not None},
        unscored={name: score.reason for name, score in scores.items() if score.value is None},
        seconds=made.seconds,
        forwards=made.forwards,
        effects=made.effects,
    )


def scorer_for(entry: ModelEntry) -> Scorer:
    """The scorers that know what the model shows."""
    if entry.embedded:
        return embedded_scorers()
    raise StgTuneError(
        f"there are no scorers for {entry.name} in this version: those that ship with it know the embedded models only "
        "and their numbers would mean nothing here; `stg-tune generate` and stg_tune.guided work with every model"
    )


def draft_plan(request: Request, entry: ModelEntry) -> Callable[[Scorer], SearchPlan]:
    """Check everything that needs no model; the plan is complete when the scorers are known."""
    parse_budget(request.budget)
    own = entry.name if entry.name in space_names() else entry.architecture.family
    space = load_space(request.space or own, entry.depths)
    prompts = read_prompts(request.prompts) if request.prompts else default_prompts(entry)
    search, holdout = split_pairs(prompts, seed=request.seed, search=SEARCH_PAIRS, holdout=HOLDOUT_PAIRS)
    baseline = GuidanceSpec(cfg_scale=entry.defaults.cfg_scale)

    def plan(scorer: Scorer) -> SearchPlan:
        return SearchPlan(
            model=entry.name,
            space=space,
            depths=entry.depths,
            num_steps=entry.defaults.num_inference_steps,
            baseline=baseline,
            scorers=scorer.kinds,
            search_pairs=search,
            holdout_pairs=holdout,
            budget=request.budget,
            seed=request.seed,
            versions={"stg-tune": stg_tune.__version__, **{name: metadata.version(name) for name in LIBRARIES}},
        )

    return plan


def read_prompts(path: Path) -> list[str]:
    """Captions of a text file, one a line; blank lines and lines that begin with ``#`` do not count."""
    lines = (line.strip() for line in read_limited(path, MAX_PROMPT_BYTES, "prompts file").splitlines())
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise StgTuneError(f"the prompts file {path} holds no caption: write one a line, twenty or more")
    return prompts


def default_prompts(entry: ModelEntry) -> list[str]:
    """The captions that an embedded model was trained on; for other models the general list of the package."""
    return digits.captions() if entry.embedded else read_prompts(GENERAL_PROMPTS)


def render(
    entry: ModelEntry,
    pair: Pair,
    out: Path,
    *,
    model_path: Path | None = None,
    preset: Path | None = None,
    cfg_scale: float | None = None,
    num_inference_steps: int | None = None,
) -> Generated:
    """Generate one video into a file, by a preset or with plain CFG."""
    scale = entry.defaults.cfg_scale if cfg_scale is None else cfg_scale
    spec = _spec_of(preset, entry) if preset else GuidanceSpec(cfg_scale=scale)
    generator = Generator(models.load(entry, model_path), entry, num_inference_steps=num_inference_steps)
    made = generator(spec, pair)
    write_mp4(made.video, out)
    return made


def _spec_of(preset: Path, entry: ModelEntry) -> GuidanceSpec:
    """The setting of a preset file, which must be made for a model with the same blocks."""
    loaded = presets.load(preset)
    if (loaded.family, dict(loaded.stacks)) != (entry.architecture.family, dict(entry.depths)):
        raise StgTuneError(
            f"the preset {preset} is for {loaded.model} ({loaded.family}, blocks {dict(loaded.stacks)}), not for "
            f"{entry.name} ({entry.architecture.family}, blocks {dict(entry.depths)}): its layers mean nothing there"
        )
    return loaded.spec


def _preset(result: SearchResult, generator: Generator) -> presets.Preset:
    entry = generator.entry
    return presets.from_result(
        result,
        family=entry.architecture.family,
        checkpoint="embedded" if entry.embedded else entry.source,
        generation=generator.defaults,
    )


def _film(generator: Generator, folder: RunFolder, plan: SearchPlan, winner: GuidanceSpec) -> None:
    """Film the default and the winner."""
    for pair in filmed_pairs(plan):
        for spec, kind in ((plan.baseline, "default"), (winner, f"tuned-{winner.hash()}")):
            if not folder.clip(pair, kind).exists():
                write_mp4(generator(spec, pair).video, folder.clip(pair, kind))
