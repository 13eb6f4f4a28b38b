"""The story on one screen: load, generate, score, search, prove, film, report. The one place where all stages meet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from stg_tune import models
from stg_tune import preset as presets
from stg_tune.documents import read_limited
from stg_tune.embedded import digits
from stg_tune.errors import StgTuneError
from stg_tune.film import by_workers, film_result, films_of, here
from stg_tune.folder import RunFolder
from stg_tune.models.loras import check_takes, identity, parse_loras
from stg_tune.outcome import keep_preset, report
from stg_tune.records import Evaluation, GuidanceSpec
from stg_tune.score.choice import ScorerChoice, keep_choice
from stg_tune.search import SearchPlan, WarmStart, load_run, load_space, run_search, space_names, split_pairs
from stg_tune.search.budget import in_worker_hours, parse_budget
from stg_tune.search.estimate import Estimate, estimate, probe
from stg_tune.search.executor import attempt
from stg_tune.search.inflight import InFlight, watched
from stg_tune.search.objective import parse_objective
from stg_tune.search.stored import find_row, first_row
from stg_tune.search.workers.placement import Layout, Placement, lay_out
from stg_tune.search.workers.sizing import model_bytes
from stg_tune.studio import ModelRecipe, Studio, at_fidelity, check_same, versions
from stg_tune.video import write_mp4

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stg_tune.models.base import ModelEntry
    from stg_tune.score import Scorer
    from stg_tune.search import Evaluate, Progress, SearchResult, SearchSpace
    from stg_tune.search.fidelity import Policy
    from stg_tune.search.workers import Reference

SEARCH_PAIRS, HOLDOUT_PAIRS = 24, 1200
"""Pairs that are set aside at the start: enough for every named budget, so that a run can be extended."""
SIBLINGS = 3
"""Published settings of sibling models that a search tries first."""
GENERAL_PROMPTS = Path(__file__).with_name("general_prompts.txt")
MAX_PROMPT_BYTES = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for."""

    model: str
    """A name of ``models.names()``."""
    model_path: Path | None = None
    """Local folder with the model's files."""
    loras: tuple[str, ...] = ()
    """LoRAs to load into the model, ``FILE`` or ``FILE=SCALE``."""
    space: str | None = None
    """Name or YAML file of a search space; ``None``: the model's own."""
    prompts: Path | None = None
    """Text file with one caption a line; ``None``: an embedded model's own captions, else a general list."""
    budget: str = "small"
    """``small``, ``medium``, ``large``, a number of evaluations, or a time such as ``2h``, ``16wh``, ``16gpuh``."""
    seed: int = 0
    """Decides split, noise and proposals."""
    objective: str | None = None
    """``quality``, or ``cost=0.1`` to price denoiser work; ``None``: what the space says."""
    fidelity: Policy = "full"
    """``auto``: screen and trials with fewer steps where a check shows that they rank settings alike."""
    warm_starts: tuple[str, ...] = ()
    """Presets to try first: files, or published ones by name; those of sibling models by relative depth."""
    fast: bool = False
    """Scorers with a smaller CLIP: a twentieth of the cost, other numbers."""
    weights: Path | None = None
    """Local folder with the scorers' files; ``None``: of ``STG_TUNE_WEIGHTS``, else the usual caches."""
    placement: Placement = field(default_factory=Placement)
    """Where pairs are evaluated."""


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
    set_aside: Path | None = None
    """Where an earlier preset is now that the verdict of an extended run does not speak for."""


def tune(request: Request, directory: Path, *, storage: str | None, progress: Progress) -> Outcome:
    """Search in a new folder.

    Raises:
        StgTuneError: Something the user can fix; found before the model is loaded where that is possible.
        KeyboardInterrupt: After a clean stop; ``resume`` goes on.
    """
    entry = models.entry(request.model)
    layout = layout_of(request.placement, entry, request.model_path)
    draft = draft_plan(replace(request, budget=in_worker_hours(request.budget, layout.gpus)), entry)
    loras = parse_loras(request.loras)
    folder = RunFolder.new(directory, model_path=request.model_path, loras=tuple(lora.word for lora in loras))
    models.fetch(entry, folder.model_path)
    chosen = scorers_of(request, entry)
    studio = Studio(ModelRecipe(model=entry.name, path=folder.model_path, loras=loras, scorers=chosen))
    return _search(draft(studio.scorer), folder, studio, layout, storage=storage, progress=progress)


def resume(
    directory: Path,
    *,
    budget: str | None,
    progress: Progress,
    placement: Placement | None = None,
    takeover: bool = False,
) -> Outcome:
    """Go on with the run in a folder, if need be with a larger budget or elsewhere; raises as ``tune`` does.

    Args:
        directory: Folder of the run.
        budget: A larger one; ``None``: the one it has.
        progress: Told after each evaluation.
        placement: Where pairs are evaluated.
        takeover: The driver on another host that the folder's lock names is gone.
    """
    run, folder = load_run(directory), RunFolder.open(directory)
    layout = layout_of(placement or Placement(), models.entry(run.plan.model), folder.model_path)
    studio = Studio(ModelRecipe.of(run.plan, folder))
    check_same(run.plan, studio.scorer)
    plan = replace(run.plan, budget=in_worker_hours(budget, layout.gpus) if budget else run.plan.budget)
    reference = first_row(directory)
    return _search(
        plan, folder, studio, layout, storage=None, progress=progress, reference=reference, takeover=takeover
    )


def _search(
    plan: SearchPlan,
    folder: RunFolder,
    studio: Studio,
    layout: Layout,
    *,
    storage: str | None,
    progress: Progress,
    reference: Reference | None = None,
    takeover: bool = False,
) -> Outcome:
    studio, films = studio.previewing(folder.previews, plan.search_pairs[0]), films_of(plan, folder)
    inline = layout.executor == "inline"
    recipe = studio.recipe if inline else replace(studio.recipe, films=films)

    def evaluator() -> Evaluate:
        return watched(studio.evaluate, InFlight(folder.path))

    with layout.open(recipe, evaluator, reference=reference) as executor:
        if not (folder.path / "run.json").exists():
            folder.make()
            keep_choice(studio.recipe.scorers, folder.path)
        result = run_search(
            plan,
            executor=executor,
            directory=folder.path,
            storage=storage,
            progress=progress,
            takeover=takeover,
            repeat=reference if inline else None,  # workers are compared by their pool
        )
        verdict = result.verdict
        improved = verdict is not None and verdict.improved
        kept = keep_preset(folder.preset, _preset(result) if improved else None, verdict)
        film_result(result, films, here(studio, films) if inline else by_workers(executor))
    return Outcome(
        result=result,
        improved=improved,
        preset=kept.preset,
        report=report(folder.path),
        set_aside=kept.set_aside,
    )


def layout_of(placement: Placement, entry: ModelEntry, model_path: Path | None) -> Layout:
    """Where pairs are evaluated on this machine, or the cluster that was named.

    A real model is loaded by a worker even when there is to be one only: it may crash or hang without the driver.
    """
    if placement.executor is None and not entry.embedded:
        placement = replace(placement, executor="ray")
    gpus, size = torch.cuda.device_count(), model_bytes(model_path)
    return lay_out(placement, gpus=gpus, worker_bytes=size, batch=entry.batch)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A stored evaluation and the same one made again."""

    stored: Reference
    """What the storage holds."""
    now: Evaluation
    """What it gives here and now."""


def replay(directory: Path, config: str, pair: str, *, out: Path | None = None) -> Replayed:
    """Evaluate a stored row again; nothing is stored.

    Args:
        directory: Folder of the run.
        config: ``default``, ``winner``, a trial's number or the beginning of a hash.
        pair: A search pair's number, ``h`` and a held-out pair's number, or the beginning of a key.
        out: Where to write the video, if it is wanted.
    """
    stored = find_row(directory, config, pair)
    studio = Studio(ModelRecipe.of(load_run(directory).plan, RunFolder.open(directory)))
    task = stored.task
    if out is not None:
        write_mp4(at_fidelity(studio.generator, task.fidelity)(task.spec, task.pair).video, out)
    return Replayed(stored=stored, now=attempt(studio.evaluate, task)[0])


def dry_run(request: Request) -> tuple[SearchPlan, Layout, Estimate]:
    """The plan and what it will cost, from three evaluations that are timed here and now."""
    entry = models.entry(request.model)
    layout = layout_of(request.placement, entry, request.model_path)
    draft = draft_plan(replace(request, budget=in_worker_hours(request.budget, layout.gpus)), entry)
    models.fetch(entry, request.model_path)
    loras = parse_loras(request.loras)
    recipe = ModelRecipe(model=entry.name, path=request.model_path, loras=loras, scorers=scorers_of(request, entry))
    studio = Studio(recipe)
    plan = draft(studio.scorer)
    evaluate = studio.evaluate if layout.threads is None else recipe(layout.threads)
    return plan, layout, estimate(plan, probe(evaluate, plan, batch=layout.batch), workers=layout.workers or 1)


def scorers_of(request: Request, entry: ModelEntry) -> ScorerChoice:
    """What the objective of the search asks for beyond the model's own scorers, and the options about their files."""
    named = _space(request, entry).objective.scorers
    return ScorerChoice.of(named, embedded=entry.embedded, fast=request.fast, weights=request.weights)


def _space(request: Request, entry: ModelEntry) -> SearchSpace:
    own = entry.name if entry.name in space_names() else entry.architecture.family
    return load_space(request.space or own, entry.depths)


def draft_plan(request: Request, entry: ModelEntry) -> Callable[[Scorer], SearchPlan]:
    """Check everything that needs no model; the plan is complete when the scorers are known."""
    parse_budget(request.budget)
    loras = parse_loras(request.loras)
    check_takes(entry, loras)
    space = with_warm_starts(_space(request, entry), entry, request.warm_starts)
    if request.objective is not None:
        space = space.priced(parse_objective(request.objective))
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
            published=published_for(entry),
            versions=versions(),
            fidelity=request.fidelity,
            loras=identity(loras),
        )

    return plan


def published_for(entry: ModelEntry) -> dict[str, GuidanceSpec]:
    """Name -> published setting that races with what is found: those made for a model with just these blocks.

    Where there is none, that of the sibling with the least different blocks, carried over by relative depth.
    """
    priors = presets.published(entry.architecture.family)
    own = {prior.name: prior.spec for prior in priors if dict(prior.stacks) == dict(entry.depths)}
    carried = {
        f"{prior.name}, by relative depth": presets.carried_over(prior, entry.depths) for prior in _siblings(entry)[:1]
    }
    return dict(map(_with_one_scale, (own or carried).items()))


def _with_one_scale(named: tuple[str, GuidanceSpec]) -> tuple[str, GuidanceSpec]:
    """The setting with its CFG scale as the only one, where it leaves CFG to the pipeline.

    A search compares settings at a CFG scale of their own, and a pipeline's own CFG cannot be rescaled.
    """
    name, spec = named
    if spec.cfg_source == "spec":
        return named
    return f"{name}, one CFG scale {spec.cfg_scale:g}", replace(spec, cfg_source="spec")


def with_warm_starts(space: SearchSpace, entry: ModelEntry, names: Sequence[str]) -> SearchSpace:
    """The space with the user's presets, and what is published for sibling models, as settings to try first."""
    given = [presets.open_preset(name) for name in names]
    warm = [
        WarmStart(
            name=prior.name or prior.model,
            spec=presets.carried_over(prior, entry.depths),
            why=f"a setting for {prior.model}, blocks {dict(prior.stacks)}, by relative depth",
            source=prior.name or "a preset given on the command line",
        )
        for prior in (*given, *_siblings(entry)[:SIBLINGS])
    ]
    every = [(start, _with_one_scale((start.name, start.spec))) for start in (*space.warm_starts, *warm)]
    return replace(space, warm_starts=tuple(replace(start, name=name, spec=spec) for start, (name, spec) in every))


def _siblings(entry: ModelEntry) -> list[presets.Preset]:
    """Published settings that skip any block, for the same family with other numbers of blocks; the nearest first."""
    siblings = [
        prior
        for prior in presets.published(entry.architecture.family)
        if dict(prior.stacks) != dict(entry.depths)
        and prior.stacks.keys() == entry.depths.keys()
        and any(segment.terms for segment in prior.spec.segments)
    ]
    return sorted(
        siblings, key=lambda prior: sum(abs(depth - entry.depths[name]) for name, depth in prior.stacks.items())
    )


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


def _preset(result: SearchResult) -> presets.Preset:
    entry, loras = models.entry(result.plan.model), result.plan.loras
    return presets.from_result(
        result,
        family=entry.architecture.family,
        checkpoint=" + ".join(["embedded" if entry.embedded else entry.source, *loras])[:400],
        revision="; ".join(loras.values())[:200],
        generation=replace(entry.defaults, num_inference_steps=result.plan.num_steps),
    )
