"""What a run hands to the report and the preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stg_tune.search.bench import Measurement
    from stg_tune.search.budget import Division
    from stg_tune.search.cfg_line import CfgLine
    from stg_tune.search.fidelity_check import FidelityCheck
    from stg_tune.search.plan import SearchPlan
    from stg_tune.search.race import Race
    from stg_tune.search.screen import ScreenTable
    from stg_tune.search.study import Trial
    from stg_tune.search.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Everything a run has found; parts that it has not reached are ``None`` or empty."""

    plan: SearchPlan
    """What the run is made of."""
    division: Division | None
    """Evaluations of each stage."""
    baseline: Measurement | None
    """The default on the search pairs."""
    spread: Mapping[str, float]
    """Scorer -> between-pair standard deviation of the default, the unit of all gains."""
    published: Mapping[str, Measurement]
    """Published settings on the search pairs."""
    cfg_line: CfgLine | None
    """What CFG alone can do."""
    screen: ScreenTable | None
    """Score of every single layer."""
    trials: tuple[Trial, ...]
    """Configurations that the search tried."""
    race: Race | None
    """The choice of the winner and the verdict."""
    spent: int
    """Evaluations used."""
    seconds: float
    """Evaluation time behind them, summed over the workers."""
    failures: int
    """Evaluations that failed."""
    check: FidelityCheck | None = None
    """What the check of a cheaper fidelity has found; ``None``: there was none."""
    reference: Measurement | None = None
    """The default at the fidelity of screen and trials, where that is a cheaper one."""

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.race is not None

    @property
    def trial_baseline(self) -> Measurement | None:
        """The default as screen and trials were compared with it."""
        return self.reference or self.baseline

    @property
    def verdict(self) -> Verdict | None:
        """The held-out result, once there is one."""
        return self.race.verdict if self.race is not None else None
