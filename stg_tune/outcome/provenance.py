"""Where the numbers come from, and what to know before believing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.preset import published_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stg_tune.search.fidelity_check import FidelityCheck
    from stg_tune.search.result import SearchResult
    from stg_tune.search.verdict import Verdict

FEW_PROMPTS = 20
"""Fewer different held-out prompts than this are said to be few."""


def provenance(result: SearchResult) -> dict[str, str]:
    """What was run, in reading order."""
    plan = result.plan
    prompts = [len({pair.prompt for pair in pairs}) for pairs in (plan.search_pairs, plan.holdout_pairs)]
    facts = {
        "model": plan.model,
        "search space": f"{plan.space.family}, {plan.space.hash()}",
        **_objective(plan.space.objective.price),
        "denoising steps": str(plan.num_steps),
        "seed": str(plan.seed),
        "budget": plan.budget,
        **_division(result),
        **_fidelity(result.check),
        "evaluations": f"{result.spent}, {result.failures} of them failed",
        "evaluation time": f"{result.seconds / 60:.1f} min",
        "prompts": f"{prompts[0]} to search on, {prompts[1]} held out, none in both"
        if _disjoint(result)
        else f"{prompts[0]}, with other seeds for search and held-out pairs",
        "fingerprint": plan.fingerprint(),
    }
    scorers = {f"scorer {kind.name}": f"{kind.direction}, weights {kind.weights}" for kind in plan.scorers}
    return {**facts, **plan.loras, **scorers, **plan.versions}


def about_published(result: SearchResult) -> str:
    """What to know where nothing was published for a model with just these blocks, else nothing."""
    if result.plan.published:
        return ""
    trials = {trial.measurement.config: trial.measurement for trial in result.trials if trial.measurement.deltas}
    known = published_names()
    tried = []
    for start in result.plan.space.warm_starts:
        if start.source in known:
            found = trials.get(start.spec.hash())
            gain = f"in-sample gain {found.mean:+.2f} on {len(found.deltas)} pairs" if found else "not reached"
            tried.append(f"{start.source} ({gain})")
    if not tried:
        return "No published setting is known for this model or for others with these stacks of blocks."
    return (
        "No setting is published for a model with just these blocks. Those of its siblings were tried first, by "
        f"relative depth: {', '.join(tried)}."
    )


def warnings(result: SearchResult) -> Iterator[str]:
    """What a reader would want to have been told."""
    if not result.finished:
        yield "The run is not finished: all gains are on the pairs that chose what is shown, and so too high."
    if result.failures:
        yield f"{result.failures} of {result.spent} evaluations failed; they count against the settings they belong to."
    if not _disjoint(result):
        yield "Search and held-out pairs share prompts: the gain is shown for these prompts only, with other noise."
    measured = [score for score in result.screen.scores if score.pairs] if result.screen else []
    if result.screen and len(measured) < len(result.screen.scores):
        yield f"The budget was enough to screen {len(measured)} of {len(result.screen.scores)} single layers."
    if result.verdict is not None:
        yield from _about(result.verdict, result)


def _about(verdict: Verdict, result: SearchResult) -> Iterator[str]:
    confirm = result.race.confirm if result.race else ()
    prompts = len({pair.prompt for pair in confirm})
    if verdict.warning:
        yield f"{verdict.warning[0].upper()}{verdict.warning[1:]}."
    elif confirm and prompts < FEW_PROMPTS:
        yield f"Only {prompts} different prompts are behind the verdict: a statement about prompts of just this kind."
    for item in verdict.scorers:
        if item.unscored:
            yield f"{item.name} could not score the tuned setting on {item.unscored} pairs; they count as bad ones."
    if verdict.improved and verdict.stg_gain is not None and verdict.stg_gain.low <= 0:
        yield "The gain is proved, but not that skipping layers has a part in it: retuned CFG may do as well."


def _fidelity(check: FidelityCheck | None) -> dict[str, str]:
    return {"fidelity of screen and trials": f"{check.fidelity}: {check.reason}"} if check else {}


def _objective(price: float) -> dict[str, str]:
    if not price:
        return {}
    return {"objective": f"quality, less {price:g} standard deviations for the work of each further default video"}


def _division(result: SearchResult) -> dict[str, str]:
    if result.division is None:
        return {}
    stages = ", ".join(f"{name} {count}" for name, count in result.division.stages().items() if count)
    return {"evaluations planned": stages}


def _disjoint(result: SearchResult) -> bool:
    search, holdout = result.plan.search_pairs, result.plan.holdout_pairs
    return not {pair.prompt for pair in search} & {pair.prompt for pair in holdout}
