"""One pass through the stages: baseline, CFG line, screen, search, race.

A run is a function of its plan and of the evaluations. A resumed run goes through the same stages again, is answered
from the table where it has been before, and so continues where it stopped.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from stg_tune.folder import RunFolder
from stg_tune.search.belief import Learner
from stg_tune.search.bench import Bench, Measurement
from stg_tune.search.budget import ARMS, Division, divide, parse_budget, search_pairs_of
from stg_tune.search.cfg_line import CfgLine, run_cfg_line
from stg_tune.search.encoding import Encoding, Params, is_cfg_only
from stg_tune.search.executor import Executor, Task
from stg_tune.search.features import Features
from stg_tune.search.fidelity import FULL, steps_at
from stg_tune.search.fidelity_check import FidelityCheck, check_cost, pointless, run_check
from stg_tune.search.finalists import best_cfg_only, best_trials, repeated_finalists
from stg_tune.search.holdout import holdout_of
from stg_tune.search.inverse import params_of
from stg_tune.search.ledger import Ledger
from stg_tune.search.race import Finalist, Race, Track, run_race
from stg_tune.search.result import SearchResult
from stg_tune.search.screen import ScreenTable, run_screen, single_layers, suggest
from stg_tune.search.statistics import LEVEL
from stg_tune.search.storage import EvaluationTable
from stg_tune.search.study import Trial, TrialStore, TrialStudy
from stg_tune.search.timing import LEAST_TRIALS, Pace, confirmation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stg_tune.records import GuidanceSpec, Pair
    from stg_tune.search.plan import RunFile, SearchPlan
    from stg_tune.search.progress import Stage, Tracker

TIMED_PAIRS = 6
"""Baseline evaluations that turn a time budget into a number."""


def divide_plan(plan: SearchPlan, evaluations: list[int]) -> Division:
    """Divide the first budget; what later ones add goes to search and confirmation, so that earlier choices stay.

    Args:
        plan: Gives the layers, the published settings and the pairs there are.
        evaluations: The budgets in the order they were given, in evaluations.
    """
    layers, published = len(single_layers(plan.space, plan.depths)), len(plan.published)
    pairs = min(search_pairs_of(evaluations[0]), len(plan.search_pairs))
    first = divide(evaluations[0], layers=layers, published=published, search_pairs=pairs)
    last = divide(evaluations[-1], layers=layers, published=published, search_pairs=pairs)
    division = replace(first, confirm=min(last.confirm, len(holdout_of(plan, first).confirm)), search=0)
    return replace(division, search=max(evaluations[-1] - division.total, 0))


class Session:
    """Runs the stages of one run; ``result`` tells at any time what has been found.

    Args:
        run: The run.
        executor: Evaluates what the table does not know.
        tracker: Told about progress.
        directory: Where the run file is updated; ``None``: change nothing (a look at the run).
    """

    def __init__(self, run: RunFile, executor: Executor, tracker: Tracker, *, directory: Path | None) -> None:
        self._run, self._plan, self._tracker, self._directory = run, run.plan, tracker, directory
        self._table = EvaluationTable(run.storage, run.plan.model)
        self._ledger = Ledger(
            self._table,
            executor,
            versions=run.plan.versions,
            on_evaluation=lambda row, is_new: tracker.evaluated(row, is_new, self._ledger.spent),
            on_work=tracker.working,
        )
        self._division: Division | None = None
        self._bench: Bench | None = None
        self._baseline: Measurement | None = None
        self._published: dict[str, Measurement] = {}
        self._cfg_line: CfgLine | None = None
        self._check: FidelityCheck | None = None
        self._reference: Measurement | None = None
        self._screen: ScreenTable | None = None
        self._study: TrialStudy | None = None
        self._race: Race | None = None

    def close(self) -> None:
        """Close the storage."""
        self._table.close()

    def run(self) -> SearchResult:
        """Go through all stages."""
        if self._directory is not None:
            self._table.claim(self._plan.fingerprint())
        evaluations = self._evaluations()
        division = self._division = self._in_time(divide_plan(self._plan, evaluations))
        bench = self._measure_baseline(division)
        pairs = self._pairs
        self._begin("cfg", division.cfg)
        learner = self._learner(self._baseline) if self._plan.rules > 1 and self._baseline else None
        self._cfg_line = run_cfg_line(bench, self._plan.space, self._plan.baseline, pairs, division.cfg, learner)
        best = self._cfg_line.best
        if best != self._plan.baseline:
            self._lead_in_sample("best CFG", bench.measure([best], pairs)[0])
        trying = self._choose_fidelity(bench, self._cfg_line, divide_plan(self._plan, evaluations[:1]))
        self._begin("screen", division.screen)
        self._screen = run_screen(trying, self._plan.space, self._plan.depths, best, pairs, division.screen)
        self._search(trying, self._screen)
        self._race = self._run_race(bench)
        self._note_verdict()
        return self.result()

    def result(self) -> SearchResult:
        """What has been found so far."""
        return SearchResult(
            plan=self._plan,
            division=self._division,
            baseline=self._baseline,
            spread=dict(self._bench.judge.spread) if self._bench else {},
            published=self._published,
            cfg_line=self._cfg_line,
            screen=self._screen,
            trials=self._trials,
            race=self._race,
            spent=self._ledger.spent,
            seconds=self._ledger.seconds,
            failures=sum(bool(row.error) for row in self._ledger.used),
            check=self._check,
            reference=self._reference,
        )

    @property
    def _trials(self) -> tuple[Trial, ...]:
        return tuple(self._study.trials) if self._study else ()

    @property
    def _total(self) -> int:
        allowance = self._run.allowances[-1]
        if allowance.search_end is not None and self._cfg_line is not None:
            return allowance.search_end + self._before_confirm + self._confirming
        return allowance.evaluations or TIMED_PAIRS

    @property
    def _before_confirm(self) -> int:
        """Evaluations between the trials and the confirmation."""
        assert self._division is not None
        again = repeated_finalists(self._division) if self._reference else 0
        return self._division.select + again + (self._division.search_pairs if self._plan.rules > 2 else 0)

    @property
    def _confirming(self) -> int:
        """Evaluations of the confirmation, as planned before the trials."""
        assert self._division is not None
        return self._arms * self._division.confirm

    def _in_time(self, division: Division) -> Division:
        """The division as it became when time ran short in the search stage, if it did."""
        allowance = self._run.allowances[-1]
        if allowance.search_end is None or allowance.confirm is None:
            return division
        earlier = division.search_pairs + division.published + division.cfg + division.screen
        return replace(division, confirm=allowance.confirm, search=max(allowance.search_end - earlier, 0))

    @property
    def _pairs(self) -> tuple[Pair, ...]:
        """The search pairs of this run."""
        return self._plan.search_pairs[: self._division.search_pairs] if self._division else ()

    def _begin(self, stage: Stage, planned: int) -> None:
        self._tracker.begin(stage, planned, self._total)

    def _evaluations(self) -> list[int]:
        """The budgets in evaluations; a time budget is turned into one now, once for all."""
        if self._run.allowances[-1].evaluations is None:
            self._begin("baseline", TIMED_PAIRS)
            pairs = self._plan.search_pairs[:TIMED_PAIRS]
            tasks = [Task(spec=self._plan.baseline, pair=pair, role="search") for pair in pairs]
            seconds = fmean(row.seconds for row in self._ledger.run(tasks))
            count = parse_budget(self._plan.budget).in_evaluations(seconds, self._ledger.slots)
            self._save(self._run.with_allowance(evaluations=count))
        return [item.evaluations for item in self._run.allowances if item.evaluations is not None]

    def _measure_baseline(self, division: Division) -> Bench:
        plan, pairs = self._plan, self._pairs
        self._begin("baseline", division.search_pairs)
        bench = self._bench = Bench.calibrate(self._ledger, plan.baseline, pairs, plan.space.objective, plan.kinds)
        self._baseline = bench.measure([plan.baseline], pairs)[0]
        self._begin("published", division.published)
        measured = bench.measure(list(plan.published.values()), pairs)
        self._published = dict(zip(plan.published, measured, strict=True))
        return bench

    def _choose_fidelity(self, bench: Bench, line: CfgLine, first: Division) -> Bench:
        """What screen and trials are measured with; ``first`` is the first budget's, so that it is chosen once."""
        if self._plan.fidelity == FULL:
            return bench
        reason = pointless(self._plan, first, repeated_finalists(first))
        if reason:
            self._check = FidelityCheck(fidelity=FULL, reason=reason)
            return bench
        self._begin("fidelity", check_cost(first.search_pairs))
        self._check, cheap = run_check(bench, self._plan, line, self._pairs)
        if cheap is not None:
            self._reference = cheap.measure([self._plan.baseline], self._pairs)[0]
        return cheap or bench

    def _search(self, bench: Bench, screen: ScreenTable) -> None:
        division = self._division
        assert division is not None
        end = self._total - self._before_confirm - self._confirming
        finalists = self._before_confirm - division.select
        self._begin("search", max(end + finalists - self._ledger.spent, 0))
        steps = steps_at(bench.fidelity, self._plan.num_steps)  # a window of no step would be measured as no window
        encoding = Encoding(space=self._plan.space, orders=screen.orders, num_steps=steps)
        previews = RunFolder(path=self._directory).previews if self._directory else None
        store = TrialStore(self._run.storage, self._plan.model, read_only=self._directory is None, previews=previews)
        learner, earlier = self._prior(bench, screen)
        study = self._study = TrialStudy(
            encoding,
            bench,
            self._pairs,
            seed=self._plan.seed,
            store=store,
            on_lead=self._lead_in_sample,
            learner=learner,
            earlier=earlier,
        )
        starts, others = self._starts(encoding)
        for spec in others:
            study.warm_spec(spec, end)
        replayed = study.replay()
        for params in starts[:replayed]:  # a run from before these were told to the sampler
            study.warm_spec(encoding.decode(params), end)
        study.believe()
        self._try_out(study, [*starts, *suggest(screen, encoding)], end)

    def _try_out(self, study: TrialStudy, starts: Sequence[Params], end: int) -> None:
        """Make trials up to ``end``, or as long as the time for what follows them is not touched; where is kept."""
        allowance, budget, division = self._run.allowances[-1], parse_budget(self._plan.budget), self._division
        assert division is not None
        if allowance.search_end is not None or self._directory is None:
            study.run(starts, min(end, allowance.search_end or end))
            return
        after = self._before_confirm + self._confirming

        def left() -> float:
            return self._pace.affordable(budget)

        def in_time(trials: int) -> bool:
            return trials < LEAST_TRIALS or left() >= len(self._pairs) + after

        if not study.run(starts, end, in_time):
            confirm = confirmation(left(), self._before_confirm, self._arms, division.confirm)
            self._save(self._run.with_allowance(search_end=self._ledger.spent, confirm=confirm))
            self._division = self._in_time(division)

    @property
    def _pace(self) -> Pace:
        ledger = self._ledger
        each = max(ledger.seconds_each, 1e-9)
        return Pace(elapsed=self._tracker.elapsed, worked=ledger.seconds, seconds_each=each, slots=ledger.slots)

    @property
    def _arms(self) -> int:
        """Settings that the confirmation is paid for: one less where no CFG-only setting can beat the default.

        A run that is extended may come to another winner, and has paid for the one before.
        """
        assert self._cfg_line is not None
        tuned = self._cfg_line.best != self._plan.baseline or any(map(is_cfg_only, self._plan.published.values()))
        return ARMS if tuned or self._run.looks > 1 or self._plan.rules < 2 else ARMS - 1

    def _learner(self, baseline: Measurement) -> Learner:
        features = Features(space=self._plan.space, depths=self._plan.depths)
        return Learner(features, baseline, strict=self._plan.rules < 2)

    def _prior(self, bench: Bench, screen: ScreenTable) -> tuple[Learner, list[Measurement]]:
        """What learns in this search, and what the stages before have measured at the fidelity of the trials."""
        assert self._baseline is not None
        assert self._cfg_line is not None
        baseline = self._reference or self._baseline
        learner = self._learner(baseline)
        full = () if self._reference else (*self._cfg_line.points, *self._published.values())
        distinct = {item.config: item for item in (*full, *screen.measured)}
        return learner, [item for config, item in distinct.items() if config != baseline.config]

    def _starts(self, encoding: Encoding) -> tuple[list[Params], list[GuidanceSpec]]:
        """Published settings and warm starts as numbers to try first, and the warm starts that have no numbers."""
        plan = self._plan
        warm = [item.spec for item in plan.space.warm_starts]
        found = [
            (spec, params_of(encoding, spec, num_steps=plan.num_steps)) for spec in (*plan.published.values(), *warm)
        ]
        numbers = {encoding.decode(params).hash(): params for _, params in found if params is not None}
        return list(numbers.values()), [spec for spec, params in found if params is None and spec in warm]

    def _lead_in_sample(self, name: str, leader: Measurement) -> None:
        self._tracker.leader(name, leader.interval(), held_out=False)

    def _run_race(self, bench: Bench) -> Race:
        division = self._division
        assert division is not None
        finalists, best_cfg = self._finalists(bench)
        pairs = division.confirm
        if best_cfg != self._plan.baseline:
            pairs = self._confirming // max(self._arms, ARMS)  # a third setting is paid for with pairs
        held = holdout_of(self._plan, division).first(pairs)
        self._begin("select", division.select)
        track = Track(
            select=held.select,
            select_budget=division.select,
            confirm=held.confirm,
            level=1 - (1 - LEVEL) / 2 ** (self._run.looks - 1),
            warning=held.warning,
            until_clear=self._plan.rules < 2,
            hasty_default=self._plan.rules < 4,
        )
        return run_race(
            bench,
            self._plan.baseline,
            best_cfg,
            finalists,
            track,
            announce=lambda name, gain: self._tracker.leader(name, gain, held_out=True),
            on_confirm=lambda: self._begin("confirm", self._confirming),
        )

    def _finalists(self, bench: Bench) -> tuple[list[Finalist], GuidanceSpec]:
        """The best trials, every published setting that keeps the guards, and the best CFG-only setting."""
        assert self._study is not None
        assert self._cfg_line is not None
        belief = self._study.believe()
        best = best_trials(self._new_trials(), belief)
        trials = [
            Finalist(name=f"trial {trial.number}", origin="search", in_sample=measured)
            for trial, measured in self._at_full(bench, best)
        ]
        published = [
            Finalist(name=f"published: {name}", origin="published", in_sample=measured)
            for name, measured in self._published.items()
            if measured.feasible
        ]
        best_cfg = self._cfg_line.best
        if self._plan.rules > 2:
            best_cfg = best_cfg_only(belief, best_cfg, [item.in_sample.spec for item in (*trials, *published)])
        cfg = bench.measure([best_cfg], self._pairs)[0]
        return [*trials, *published, Finalist(name="best CFG", origin="cfg", in_sample=cfg)], best_cfg

    def _new_trials(self) -> list[Trial]:
        """The trials without published settings, which race by their own names."""
        published = {spec.hash() for spec in self._plan.published.values()}
        return [trial for trial in self._trials if trial.measurement.config not in published]

    def _at_full(self, bench: Bench, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Measurement]]:
        """The trials as they are; those of a cheaper fidelity made again, as far as they then keep the guards."""
        if self._reference is None:
            yield from ((trial, trial.measurement) for trial in trials)
            return
        again = bench.measure([trial.measurement.spec for trial in trials], self._pairs)
        yield from ((trial, measured) for trial, measured in zip(trials, again, strict=True) if measured.feasible)

    def _note_verdict(self) -> None:
        if self._race is not None and self._race.verdict is not None:
            self._save(self._run.with_allowance(verdict=True))

    def _save(self, run: RunFile) -> None:
        self._run = run
        if self._directory is not None:
            run.save(self._directory)
