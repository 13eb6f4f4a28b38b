"""Evaluates what a comparison does not hold yet, and judges."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from stg_tune import models
from stg_tune.compare.plan import begin, check_folder, draft_comparison, scorers_of
from stg_tune.documents import write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.models.loras import parse_loras
from stg_tune.search.bench import Bench
from stg_tune.search.differences import gain_between
from stg_tune.search.executor import Task
from stg_tune.search.ledger import Ledger
from stg_tune.search.lock import DriverLock
from stg_tune.search.objective import Judge
from stg_tune.search.progress import Tracker, silent
from stg_tune.search.statistics import LEVEL, MARGIN, conclude
from stg_tune.search.storage import EvaluationTable
from stg_tune.search.verdict import Arms, judge_arms
from stg_tune.search.workers.selftest import Reference
from stg_tune.studio import ModelRecipe, Studio
from stg_tune.tune import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stg_tune.compare.plan import ComparisonPlan, ComparisonRequest, Contender
    from stg_tune.records import Evaluation
    from stg_tune.search import Progress
    from stg_tune.search.differences import GuardEvidence
    from stg_tune.search.executor import Executor
    from stg_tune.search.statistics import Interval
    from stg_tune.search.verdict import ScorerEvidence, Verdict
    from stg_tune.search.workers.placement import Layout

BLOCK = 16
"""Pairs that one setting is given before it is the other's turn: a stopped comparison has both on nearly all pairs."""

Side = Literal["first", "second"]
Arm: TypeAlias = "tuple[Contender, Sequence[Evaluation]]"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came out."""

    plan: ComparisonPlan
    """What was compared."""
    better: Side | None
    """Which one is proven better and keeps the guards against the other; ``None``: neither."""
    reason: str
    """The same in one sentence."""
    gain: Interval
    """Objective of the first over the second, in standard deviations that the second has between pairs."""
    stg_gain: Interval | None
    """Objective of the first over itself without its terms (``ComparisonPlan.bare``), in the same unit: what skip
    guidance adds; ``None``: the first skips nothing, or makes hardly a video without."""
    scorers: tuple[ScorerEvidence, ...]
    """Each scorer apart; ``baseline`` is the second, ``value`` the first, a positive gain is better."""
    guards: tuple[GuardEvidence, ...]
    """Where the first stands to each guard, the second in the place of the default."""
    relative_cost: float
    """Denoiser forwards of the first over those of the second; 0: unknown."""
    effects: Mapping[Side, Mapping[str, float]]
    """Term -> mean ``||c - p|| / ||c||``, of each setting."""
    failures: Mapping[Side, int]
    """Pairs that gave no video."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        scorers = {
            item.name: {
                "direction": item.direction,
                "unit": item.unit,
                "weight": item.weight,
                "first": item.value,
                "second": item.baseline,
                "gain": item.gain.to_dict(),
                "unscored": item.unscored,
            }
            for item in self.scorers
        }
        first, second = self.plan.first, self.plan.second
        return {
            "model": self.plan.model,
            "first": {"name": first.name, "spec": first.spec.to_dict()},
            "second": {"name": second.name, "spec": second.spec.to_dict()},
            "better": self.better,
            "reason": self.reason,
            "gain": self.gain.to_dict(),
            "stg_gain": self.stg_gain.to_dict() if self.stg_gain is not None else None,
            "scorers": scorers,
            "guards": {item.name: _guard_to_dict(item) for item in self.guards},
            "relative_cost": self.relative_cost,
            "effects": {side: dict(terms) for side, terms in self.effects.items()},
            "failures": dict(self.failures),
        }


def compare(request: ComparisonRequest, directory: Path | None, *, progress: Progress = silent) -> Comparison:
    """Evaluate what a folder does not hold yet, and judge.

    Args:
        request: What is compared.
        directory: Keeps every finished pair; the same folder goes on. ``None``: ``comparisons/MODEL-IDENTITY``.
        progress: Told after each evaluation.

    Raises:
        StgTuneError: Something the user can fix; found before the model is loaded where that is possible.
        KeyboardInterrupt: After a clean stop; calling again goes on.
    """
    entry = models.entry(request.model)
    layout = layout_of(request.placement, entry, request.model_path)
    draft = draft_comparison(request, entry)
    models.fetch(entry, request.model_path)
    path = request.model_path.resolve() if request.model_path else None
    loras = parse_loras(request.loras)
    recipe = ModelRecipe(
        model=entry.name,
        path=path,
        num_inference_steps=request.num_steps,
        loras=loras,
        scorers=scorers_of(request, entry),
    )
    studio = Studio(recipe)
    plan = draft(studio.scorer)
    folder = directory or Path("comparisons") / f"{Path(entry.name).name}-{plan.identity()[:8]}"
    return run_comparison(plan, folder, studio, layout, progress=progress)


def run_comparison(
    plan: ComparisonPlan, directory: Path, studio: Studio, layout: Layout, *, progress: Progress = silent
) -> Comparison:
    """Evaluate all settings on every pair, here or on workers, and judge; a folder that was begun goes on."""
    check_folder(plan, directory)  # before the lock: nothing is left behind in a folder of something else
    with DriverLock(directory):
        begin(plan, directory)
        url = f"sqlite:///{(directory / 'study.db').resolve()}"
        with closing(EvaluationTable(url, "compare")) as table:
            table.claim(plan.identity())
            with layout.open(studio.recipe, lambda: studio.evaluate, reference=_reference(table)) as executor:
                found = _measure(plan, table, executor, Tracker(progress, directory))
    write_atomic(directory / "result.json", json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n")
    return found


def _measure(plan: ComparisonPlan, table: EvaluationTable, executor: Executor, tracker: Tracker) -> Comparison:
    ledger = Ledger(table, executor, versions=plan.versions, on_evaluation=tracker.evaluated, on_work=tracker.working)
    bare = plan.bare
    specs = [plan.second.spec, plan.first.spec]
    specs += [bare.spec] if bare is not None and bare.spec.hash() not in {spec.hash() for spec in specs} else []
    blocks = [plan.pairs[at : at + BLOCK] for at in range(0, len(plan.pairs), BLOCK)]
    tasks = [Task(spec=spec, pair=pair, role="holdout") for block in blocks for spec in specs for pair in block]
    tracker.begin("confirm", len(tasks), len(tasks))
    try:
        rows = {(row.config, row.pair.key): row for row in ledger.run(tasks)}
    except KeyboardInterrupt:
        tracker.finish("interrupted", "stopped by the user; the same command goes on")
        raise
    except Exception as error:
        tracker.finish("failed", f"{type(error).__name__}: {error}")
        raise
    tracker.finish("finished")

    def of(side: Contender) -> list[Evaluation]:
        return [rows[side.spec.hash(), pair.key] for pair in plan.pairs]

    return _judge(plan, ledger, first=of(plan.first), second=of(plan.second), bare=of(bare) if bare else None)


def _judge(
    plan: ComparisonPlan,
    ledger: Ledger,
    *,
    first: Sequence[Evaluation],
    second: Sequence[Evaluation],
    bare: Sequence[Evaluation] | None,
) -> Comparison:
    for side, rows in ((plan.first, first), (plan.second, second)):
        _refuse_failing(side, rows)
    verdict = _verdict(plan, ledger, candidate=(plan.first, first), reference=(plan.second, second))
    better, reason = _outcome(
        plan, verdict, lambda: _verdict(plan, ledger, candidate=(plan.second, second), reference=(plan.first, first))
    )
    sides: tuple[tuple[Side, Sequence[Evaluation]], ...] = (("first", first), ("second", second))
    return Comparison(
        plan=plan,
        better=better,
        reason=reason,
        gain=verdict.gain,
        stg_gain=_attributed(plan, ledger, first=first, second=second, bare=bare) if bare else None,
        scorers=verdict.scorers,
        guards=verdict.guards,
        relative_cost=verdict.forwards,
        effects={side: _mean_effects(rows) for side, rows in sides},
        failures={side: sum(bool(row.error) for row in rows) for side, rows in sides},
    )


def _verdict(plan: ComparisonPlan, ledger: Ledger, *, candidate: Arm, reference: Arm) -> Verdict:
    """The reference plays the part that the model's default has in a search."""
    (one, mine), (other, theirs) = candidate, reference
    judge = _judge_of(plan, theirs)
    bench = Bench(ledger, judge)
    arms = Arms(baseline=other.spec, winner=one.spec, best_cfg=other.spec, best_stg=None)
    return judge_arms(judge, arms, [bench.judged(other.spec, theirs), bench.judged(one.spec, mine)], level=LEVEL)


def _judge_of(plan: ComparisonPlan, reference: Sequence[Evaluation]) -> Judge:
    kinds = {kind.name: kind for kind in plan.scorers}
    return Judge.calibrate(plan.objective, kinds, reference).in_units_of(plan.pairs)


def _attributed(
    plan: ComparisonPlan,
    ledger: Ledger,
    *,
    first: Sequence[Evaluation],
    second: Sequence[Evaluation],
    bare: Sequence[Evaluation],
) -> Interval | None:
    """What the first gains over itself without its terms, in standard deviations of the second."""
    if sum(bool(row.error) for row in bare) * 2 > len(bare):
        return None
    bench = Bench(ledger, _judge_of(plan, second))
    one, other = (bench.judged(plan.first.spec, rows) for rows in (first, bare))
    return gain_between(bench.judge, one, other, level=LEVEL)


def _outcome(plan: ComparisonPlan, verdict: Verdict, back: Callable[[], Verdict]) -> tuple[Side | None, str]:
    """Who is better, and a sentence; ``back`` gives the verdict with the parts exchanged, for the guards of the second.

    It is asked only when it decides: a setting that freezes every video can be compared, but not be compared with.
    """
    first, second = plan.first.name, plan.second.name
    found = conclude(verdict.gain)
    if found == "better":
        doubt = _doubt(verdict)
        return (None, f"{first} scores higher than {second}, but {doubt}") if doubt else ("first", _wins(first, second))
    if found == "worse":
        doubt = _doubt(back())
        return (
            (None, f"{second} scores higher than {first}, but {doubt}") if doubt else ("second", _wins(second, first))
        )
    return None, {
        "equivalent": f"{first} and {second} are equivalent: less than {MARGIN:g} standard deviations apart",
        "no worse": f"{first} is not proven better than {second}; it is at most {MARGIN:g} standard deviations worse",
    }.get(found, f"no difference is proven between {first} and {second}")


def _wins(winner: str, loser: str) -> str:
    return f"{winner} is better than {loser}"


def _doubt(verdict: Verdict) -> str:
    """Why a setting that scores higher is not called better; empty: it is."""
    broken = [item.name for item in verdict.guards if item.broken]
    if broken:
        return f"breaks the guard {broken[0]!r}"
    if verdict.improved:
        return ""
    unmeasured = [item.name for item in verdict.guards if not item.measured]
    if unmeasured:
        return f"the guard {unmeasured[0]!r} cannot be measured"
    unproved = [item.name for item in verdict.guards if not item.holds]
    return f"it is not proven that it keeps the guard {unproved[0]!r}" if unproved else "some of its pairs failed"


def _guard_to_dict(item: GuardEvidence) -> dict[str, Any]:
    return {"limit": item.limit, "value": item.value.to_dict(), "holds": item.holds, "broken": item.broken}


def _mean_effects(rows: Sequence[Evaluation]) -> dict[str, float]:
    terms = dict.fromkeys(term for row in rows for term in row.effects)
    return {term: fmean(row.effects[term] for row in rows if term in row.effects) for term in terms}


def _refuse_failing(side: Contender, rows: Sequence[Evaluation]) -> None:
    failed = [row for row in rows if row.error]
    if len(failed) * 2 > len(rows):
        raise StgTuneError(
            f"{side.name} gives no video on {len(failed)} of {len(rows)} pairs: there is nothing to compare; the first "
            f"failure: {failed[0].error}"
        )


def _reference(table: EvaluationTable) -> Reference | None:
    """A row of an earlier session, which new workers must be able to repeat."""
    row = next((row for row in table.rows() if not row.evaluation.error), None)
    if row is None:
        return None
    task = Task(spec=row.spec, pair=row.evaluation.pair, role=row.role)
    return Reference(task=task, evaluation=row.evaluation, worker=row.worker)
