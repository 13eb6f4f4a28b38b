"""The trials: Optuna proposes, the table answers, a Wilcoxon pruner stops what is clearly worse.

The live study is in memory; each finished trial is copied into the storage, which therefore never holds a trial that is
half done. A trial's seed depends only on the run's seed and the number of finished trials, so a resumed run proposes
what the uninterrupted one would have proposed.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy as sa
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from stg_tune.errors import StgTuneError
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.patience import patiently, reason
from stg_tune.search.previews import artifact
from stg_tune.search.proposals import SurrogateSampler, distribution
from stg_tune.search.storage import connect_arguments, tune_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stg_tune.search.belief import Belief, Learner
    from stg_tune.search.bench import Bench, Measurement
    from stg_tune.search.encoding import Encoding, Params

PRUNE_AT = 0.1
"""One-sided p below which a trial is stopped; with it nothing can be stopped before the fourth pair."""
PRUNE_FROM = 3
"""Pairs before the first test."""
MAX_REPEATS = 30
"""Proposals in a row that were known already, after which the space counts as exhausted."""
FAILED_VALUE = -10.0
"""Told for a configuration that could not be compared on any pair, in baseline standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration that the search tried."""

    number: int
    """0, 1, 2, ... in the order of the search."""
    measurement: Measurement
    """What it gave, in-sample."""
    pruned: bool
    """Stopped before all pairs were seen, because it was clearly worse than the best (or failed)."""
    repeated: bool
    """Proposed before: answered from the table at no cost."""
    params: Mapping[str, float]
    """The optimiser's numbers; empty for a warm start that the numbers cannot express."""


class TrialStudy:
    """Asks for configurations, evaluates them pair by pair, tells their mean paired gain.

    Args:
        encoding: Numbers <-> settings.
        bench: Measures.
        pairs: Search pairs, at least 6 (fewer can never reach ``PRUNE_AT``).
        seed: Of the sampler.
        store: Where finished trials are kept.
        on_lead: Called with name and measurement of what is held to be best, whenever that changes.
        learner: Learns from what was measured; the sampler proposes by it.
        earlier: Settings other than the baseline that the stages before have measured, each once.
    """

    def __init__(
        self,
        encoding: Encoding,
        bench: Bench,
        pairs: Sequence[Pair],
        *,
        seed: int,
        store: TrialStore,
        on_lead: Callable[[str, Measurement], None],
        learner: Learner,
        earlier: Sequence[Measurement],
    ) -> None:
        self._encoding, self._bench, self._pairs = encoding, bench, pairs
        self._seed, self._store, self._on_lead = seed, store, on_lead
        self._learner, self._earlier = learner, tuple(earlier)
        self._leader = ""
        self._distributions = {knob.name: distribution(knob) for knob in encoding.knobs()}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="maximize", pruner=_pruner())
        self.trials: list[Trial] = []
        self._told: dict[str, Trial] = {}

    def replay(self) -> int:
        """Take over the trials that an earlier session finished; how many they are."""
        finished = self._store.finished()
        for frozen in finished:
            spec = GuidanceSpec.from_dict(json.loads(frozen.user_attrs["spec"]))
            rows = self._bench.measure([spec], self._pairs[: frozen.user_attrs["pairs"]])[0]
            self._study.add_trial(frozen)
            self._keep(rows, frozen.params, pruned=frozen.user_attrs["pruned"])
        return len(finished)

    def run(
        self, warm_starts: Sequence[Params], budget_end: int, in_time: Callable[[int], bool] = lambda trials: True
    ) -> bool:
        """Try configurations until the run has spent ``budget_end`` evaluations or nothing new is proposed.

        Args:
            warm_starts: Tried first, in this order.
            budget_end: A trial begins only if all of its pairs fit below this.
            in_time: Asked before each trial, with the number of those before it, whether there is time for it.

        Returns:
            Whether it went as far as that; false: ``in_time`` has ended it.
        """
        repeats = 0
        while self._bench.ledger.spent + len(self._pairs) <= budget_end and repeats < MAX_REPEATS:
            if not in_time(len(self.trials)):
                return False
            number = len(self._study.get_trials(deepcopy=False))
            trial = self._ask(number, warm_starts[number] if number < len(warm_starts) else None)
            finished = self._evaluate(trial)
            repeats = repeats + 1 if finished.repeated else 0
        return True

    def warm_spec(self, spec: GuidanceSpec, budget_end: int) -> None:
        """Try a setting that the numbers cannot express: a candidate, but unknown to the sampler."""
        known = spec.hash() in self._told
        if not known and self._bench.ledger.spent + self._bench.missing([spec], self._pairs) <= budget_end:
            self._keep(self._bench.measure([spec], self._pairs)[0], {}, pruned=False)

    def _ask(self, number: int, params: Params | None) -> optuna.Trial:
        seed = _seed_of(self._seed, number)
        if params is None:
            self._study.sampler = self._sampler(seed)
        else:
            self._study.sampler = optuna.samplers.RandomSampler(seed=seed)  # is asked, though nothing is left to it
            self._study.enqueue_trial({name: self._typed(name, value) for name, value in params.items()})
        return self._study.ask(self._distributions)

    def _sampler(self, seed: int) -> SurrogateSampler:
        belief = self.believe()
        tried = {config: trial.params for config, trial in self._told.items() if trial.params}
        known = {item.config for item in belief.measured} | set(self._told)
        return SurrogateSampler(self._encoding, belief, tried, known, seed=seed)

    def believe(self) -> Belief:
        """What is believed after all that was measured so far; a new leader is announced."""
        found = {item.config: item for item in self._earlier}
        for trial in self.trials:
            before = found.get(trial.measurement.config)
            if before is None or len(before.rows) <= len(trial.measurement.rows):
                found[trial.measurement.config] = trial.measurement
        belief = self._learner.learn([*found.values()])
        leader = belief.leader()
        if leader is not None and leader[0].config != self._leader:
            self._leader = leader[0].config
            self._on_lead(self._name(leader[0]), leader[0])
        return belief

    def _name(self, measurement: Measurement) -> str:
        trial = self._told.get(measurement.config)
        if trial is not None:
            return f"trial {trial.number}"
        return "best CFG" if is_cfg_only(measurement.spec) else "single layer"

    def _typed(self, name: str, value: float) -> float:
        return int(value) if isinstance(self._distributions[name], IntDistribution) else float(value)

    def _evaluate(self, trial: optuna.Trial) -> Trial:
        spec = self._encoding.decode(trial.params)
        earlier = self._told.get(spec.hash())
        if earlier is not None:
            measurement, pruned = earlier.measurement, earlier.pruned
            _report_all(trial, measurement, self._pairs)
        else:
            measurement, pruned = self._follow(trial, spec)
        self._tell(trial, measurement, pruned=pruned, repeated=earlier is not None)
        return self._keep(measurement, trial.params, pruned=pruned)

    def _follow(self, trial: optuna.Trial, spec: GuidanceSpec) -> tuple[Measurement, bool]:
        rows = []
        with closing(self._bench.follow(spec, self._pairs)) as stream:
            for step, row in enumerate(stream):
                rows.append(row)
                delta = self._bench.judge.delta(row)
                if delta is not None:
                    trial.report(delta, step)
                if row.error or trial.should_prune():
                    break
        return self._bench.judged(spec, rows), len(rows) < len(self._pairs)

    def _tell(self, trial: optuna.Trial, measurement: Measurement, *, pruned: bool, repeated: bool) -> None:
        for name, value in measurement.violations.items():
            trial.set_constraint(name, value)
        attributes: dict[str, Any] = {
            "spec": json.dumps(measurement.spec.to_dict()),
            "config": measurement.config,
            "pairs": len(measurement.rows),
            "pruned": pruned,
            "repeated": repeated,
            "feasible": measurement.feasible,
        }
        for key, attribute in attributes.items():
            trial.set_user_attr(key, attribute)
        # the mean over the pairs seen, never PRUNED: that would keep the value of one arbitrary pair
        value = measurement.mean if measurement.deltas else FAILED_VALUE
        self._store.add(self._study.tell(trial, value))

    def _keep(self, measurement: Measurement, params: Mapping[str, Any], *, pruned: bool) -> Trial:
        config = measurement.config
        trial = Trial(
            number=len(self.trials),
            measurement=measurement,
            pruned=pruned,
            repeated=config in self._told,
            params=dict(params),
        )
        self.trials.append(trial)
        self._told.setdefault(config, trial)
        return trial


class TrialStore:
    """The Optuna study in the storage URL: finished trials only, for resuming and for the dashboards of Optuna.

    Args:
        url: The storage.
        study: Name of the study.
        read_only: Keep nothing (a look at a run that another process drives).
        previews: Folder of clips named by the settings' hashes, which trials get as artifacts.
    """

    def __init__(self, url: str, study: str, *, read_only: bool = False, previews: Path | None = None) -> None:
        self._read_only, self._previews = read_only, previews
        self._where = sa.make_url(url).render_as_string(hide_password=True)
        self._kept: int | None = None
        self._tried = False
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            storage = optuna.storages.RDBStorage(
                url, engine_kwargs={"connect_args": connect_arguments(url), "pool_pre_ping": True}
            )
            tune_sqlite(storage.engine)
            self._study = optuna.create_study(
                storage=storage, study_name=study, direction="maximize", load_if_exists=True
            )
        except (SQLAlchemyError, ImportError, RuntimeError, optuna.exceptions.OptunaError) as error:
            raise StgTuneError(
                f"the storage {self._where} cannot hold the Optuna study {study!r}: {reason(error)}. Every finished "
                "pair is kept; when that is mended, `stg-tune resume` goes on"
            ) from None

    def finished(self) -> list[FrozenTrial]:
        """The trials, in the order they were finished."""
        trials = self._patiently(lambda: self._study.get_trials(states=(TrialState.COMPLETE,)))
        self._kept = len(trials)
        return [_plain(trial) for trial in trials]

    def add(self, trial: FrozenTrial) -> None:
        """Keep a finished trial."""
        if self._read_only:
            return
        kept = len(self.finished()) if self._kept is None else self._kept
        self._patiently(lambda: self._add(trial, kept))
        self._kept = kept + 1

    def _add(self, trial: FrozenTrial, kept: int) -> None:
        """Unless the try that was cut off has done it."""
        if self._tried and len(self._study.get_trials(states=(TrialState.COMPLETE,))) > kept:
            return
        self._tried = True
        self._study.add_trial(_plain(trial, artifact(self._previews, trial)))
        self._tried = False

    def _patiently(self, action: Callable[[], Any]) -> Any:
        try:
            return patiently(action, self._where)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise StgTuneError(
                f"cannot use the storage {self._where}: {reason(error)}. Every finished pair is kept; when that is "
                "mended, `stg-tune resume` goes on"
            ) from None


def _plain(trial: FrozenTrial, attrs: Mapping[str, Any] = MappingProxyType({})) -> FrozenTrial:
    """The trial without number and identifiers, which the study it is added to gives anew."""
    return create_trial(
        state=trial.state,
        value=trial.value,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=dict(attrs),
        intermediate_values=trial.intermediate_values,
        constraints=trial.constraints,
    )


def _report_all(trial: optuna.Trial, measurement: Measurement, pairs: Sequence[Pair]) -> None:
    for step, pair in enumerate(pairs):
        if pair.key in measurement.deltas:
            trial.report(measurement.deltas[pair.key], step)


def _seed_of(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def _pruner() -> optuna.pruners.WilcoxonPruner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.WilcoxonPruner(p_threshold=PRUNE_AT, n_startup_steps=PRUNE_FROM)
