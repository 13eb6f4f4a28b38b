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
from stg_tune.folder import RunFolder
from stg_tune.models.loras import check_takes, identity, parse_loras
from stg_tune.outcome import clip_of, filmed_pairs, filmed_settings, report, write_effects
from stg_tune.records import Evaluation, GuidanceSpec
from stg_tune.search import SearchPlan, WarmStart, load_run, load_space, run_search, space_names, split_pairs
from stg_tune.search.budget import in_worker_hours, parse_budget
from stg_tune.search.estimate import Estimate, estimate, probe
from stg_tune.search.executor import attempt
from stg_tune.search.objective import parse_objective
from stg_tune.search.stored import find_row, first_row
from stg_tune.search.workers.placement import Layout, Placement, lay_out
from stg_tune.search.workers.sizing import model_bytes
from stg_tune.studio import ModelRecipe, Studio, at_fidelity, check_same, versions
from stg_tune.video import write_mp4

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stg_tune.generate import Generator
    from stg_tune.models.base import ModelEntry
    from stg_tune.score import Scorer
    from stg_tune.search import Progress, SearchResult, SearchSpace
    from stg_tune.search.fidelity import Policy
    from stg_tune.search.verdict import Verdict
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
    studio = Studio(ModelRecipe(model=entry.name, path=folder.model_path, loras=loras))
    return _search(draft(studio.scorer), folder, studio, layout, storage=storage, progress=progress)


def resume(directory: Path, *, budget: str | None, progress: Progress, placement: Placement | None = None) -> Outcome:
    """Go on with the run in a folder, if need be with a larger budget or elsewhere; raises as ``tune`` does."""
    run, folder = load_run(directory), RunFolder.open(directory)
    layout = layout_of(placement or Placement(), models.entry(run.plan.model), folder.model_path)
    studio = Studio(ModelRecipe.of(run.plan, folder))
    check_same(run.plan, studio.scorer)
    plan = replace(run.plan, budget=in_worker_hours(budget, layout.gpus) if budget else run.plan.budget)
    reference = first_row(directory) if layout.executor == "ray" else None
    return _search(plan, folder, studio, layout, storage=None, progress=progress, reference=reference)


def _search(
    plan: SearchPlan,
    folder: RunFolder,
    studio: Studio,
    layout: Layout,
    *,
    storage: str | None,
    progress: Progress,
    reference: Reference | None = None,
) -> Outcome:
    studio = studio.previewing(folder.previews, plan.search_pairs[0])
    with layout.open(studio.recipe, lambda: studio.evaluate, reference=reference) as executor:
        if not (folder.path / "run.json").exists():
            folder.make()
        result = run_search(plan, executor=executor, directory=folder.path, storage=storage, progress=progress)
    verdict = result.verdict
    improved = verdict is not None and verdict.improved
    if verdict is not None:
        _film(studio, folder, plan, verdict)
    if improved:
        presets.save(_preset(result, studio.generator), folder.preset)
    return Outcome(
        result=result, improved=improved, preset=folder.preset if improved else None, report=report(folder.path)
    )


def layout_of(placement: Placement, entry: ModelEntry, model_path: Path | None) -> Layout:
    """Where pairs are evaluated on this machine, or the cluster that was named."""
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
    recipe = ModelRecipe(model=entry.name, path=request.model_path, loras=parse_loras(request.loras))
    studio = Studio(recipe)
    plan = draft(studio.scorer)
    evaluate = studio.evaluate if layout.threads is None else recipe(layout.threads)
    return plan, layout, estimate(plan, probe(evaluate, plan, batch=layout.batch), workers=layout.workers or 1)


def draft_plan(request: Request, entry: ModelEntry) -> Callable[[Scorer], SearchPlan]:
    """Check everything that needs no model; the plan is complete when the scorers are known."""
    parse_budget(request.budget)
    loras = parse_loras(request.loras)
    check_takes(entry, loras)
    own = entry.name if entry.name in space_names() else entry.architecture.family
    space = with_warm_starts(load_space(request.space or own, entry.depths), entry, request.warm_starts)
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
    """Name -> published setting that was made for a model with just these blocks; they race with what is found."""
    priors = presets.published(entry.architecture.family)
    return {prior.name: prior.spec for prior in priors if dict(prior.stacks) == dict(entry.depths)}


def with_warm_starts(space: SearchSpace, entry: ModelEntry, names: Sequence[str]) -> SearchSpace:
    """The space with the user's presets, and what is published for sibling models, as settings to try first.

    Siblings are models of the same family with other numbers of blocks; of the settings that skip any, those of the
    least different ones are taken.
    """
    given = [presets.open_preset(name) for name in names]
    priors = presets.published(entry.architecture.family)
    siblings = [
        prior
        for prior in priors
        if dict(prior.stacks) != dict(entry.depths)
        and prior.stacks.keys() == entry.depths.keys()
        and any(segment.terms for segment in prior.spec.segments)
    ]
    siblings.sort(key=lambda prior: sum(abs(depth - entry.depths[name]) for name, depth in prior.stacks.items()))
    warm = [
        WarmStart(
            name=prior.name or prior.model,
            spec=presets.carried_over(prior, entry.depths),
            why=f"a setting for {prior.model}, blocks {dict(prior.stacks)}, by relative depth",
            source=prior.name or "a preset given on the command line",
        )
        for prior in (*given, *siblings[:SIBLINGS])
    ]
    return replace(space, warm_starts=(*space.warm_starts, *warm))


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


def _preset(result: SearchResult, generator: Generator) -> presets.Preset:
    entry, loras = generator.entry, result.plan.loras
    return presets.from_result(
        result,
        family=entry.architecture.family,
        checkpoint=" + ".join(["embedded" if entry.embedded else entry.source, *loras])[:400],
        revision="; ".join(loras.values())[:200],
        generation=generator.defaults,
    )


def _film(studio: Studio, folder: RunFolder, plan: SearchPlan, verdict: Verdict) -> None:
    """Film the default, the winner and what they are compared with; a clip is there when it is whole."""
    settings, series = filmed_settings(plan, verdict), []
    for pair in filmed_pairs(plan):
        for name, spec in settings.items():
            clip = clip_of(folder, plan, pair, spec)
            if not clip.exists():
                made = studio.generator(spec, pair)
                write_mp4(made.video, clip.with_suffix(".part.mp4")).replace(clip)
                series += [made.effect_series] if name == "tuned" else []
    if series:
        steps = studio.generator.defaults.num_inference_steps
        write_effects(folder.effects, verdict.winner, steps, series)
