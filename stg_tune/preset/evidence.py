"""Why a preset should be believed, as frozen records (no torch)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from stg_tune.records import Direction, GuidanceSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

GuardRule = Literal["at_least_fraction", "at_most_fraction", "drop_at_most_sd"]
OPTIONAL = ("votes", "guard_values", "warning")
"""Fields of the evidence that presets of earlier versions do not have."""


@dataclass(frozen=True, kw_only=True)
class GainInterval:
    """A paired gain with its confidence interval; positive is better."""

    mean: float
    """The estimate."""
    low: float | None
    """Lower end; ``None``: unbounded."""
    high: float | None
    """Upper end; ``None``: unbounded."""
    level: float
    """Two-sided confidence level, 0 to 1."""
    pairs: int
    """Held-out (prompt, seed) pairs behind it."""
    clusters: int
    """Different prompts behind it."""


@dataclass(frozen=True, kw_only=True)
class ScorerGain:
    """One scorer on the held-out pairs."""

    name: str
    """The scorer."""
    direction: Direction
    """Which way is better."""
    unit: str
    """Unit of ``baseline``, ``value``, ``spread`` and ``gain``."""
    weights: str
    """Checksum of the scorer's weights."""
    weight: float
    """Weight in the objective; 0: reported only."""
    baseline: float
    """Mean of the model's default."""
    value: float
    """Mean of the preset."""
    spread: float
    """Between-pair standard deviation of the default: the unit of the objective."""
    gain: GainInterval
    """Paired gain; positive is better whatever the direction."""
    unscored: int
    """Pairs that could not be scored."""


@dataclass(frozen=True, kw_only=True)
class GuardValue:
    """Where the preset stands to a guard on the held-out pairs."""

    name: str
    """``motion at_least_fraction 0.95``."""
    rule: GuardRule
    """How the limit is formed."""
    limit: float
    """The least (``at_most_fraction``: the greatest) mean of ``value`` that is allowed."""
    value: GainInterval
    """The mean over the default's mean or, for ``drop_at_most_sd``, the gain in baseline standard deviations."""
    holds: bool
    """The whole interval is on the allowed side."""


@dataclass(frozen=True, kw_only=True)
class VoteCount:
    """What people said about one question in a blind vote, the preset against the default."""

    question: str
    """``quality``, ``motion`` or ``prompt``."""
    wins: int
    """Votes for the preset's video."""
    losses: int
    """Votes for the default's video."""
    ties: int
    """Votes that saw no difference."""
    voters: int
    """People behind them."""
    pairs: int
    """Different (prompt, seed) pairs behind them."""
    rate: float
    """Share of wins, ties counted half, 0 to 1; 0.5 is no preference."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    level: float
    """Two-sided confidence level, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Why the preset should be believed."""

    improved: bool
    """The lower end of ``gain`` is above 0 and all guards hold."""
    reason: str
    """The same in one sentence."""
    baseline: GuidanceSpec
    """The model's default, which everything is compared with."""
    best_cfg: GuidanceSpec
    """The best setting without skip guidance."""
    gain: GainInterval
    """Objective over the default, in baseline standard deviations."""
    stg_gain: GainInterval | None
    """Objective of skip guidance over the best setting without it."""
    cfg_gain: GainInterval | None
    """Objective of the best setting without skip guidance over the default; ``None``: the default is the best."""
    scorers: tuple[ScorerGain, ...]
    """Each scorer apart."""
    guards: Mapping[str, float]
    """Guard -> by how much its interval reaches over the limit; 0 or less: it holds."""
    relative_cost: float
    """Denoiser forwards of a video over those of the default; 0: unknown."""
    evaluations: int
    """Evaluations of one (configuration, pair) that the run spent in all."""
    budget: str
    """As the user wrote it."""
    looks: int
    """Planned looks at the confirmation; the intervals hold for all of them together."""
    seed: int
    """Of the run."""
    versions: Mapping[str, str]
    """Library versions."""
    date: str
    """``YYYY-MM-DD``."""
    votes: tuple[VoteCount, ...] = ()
    """A blind vote, one count a question; empty: nobody was asked."""
    guard_values: tuple[GuardValue, ...] = ()
    """Each guard with its estimate and interval; empty: written by an earlier version."""
    warning: str = ""
    """What was wrong with the held-out prompts; empty: nothing."""

    def __post_init__(self) -> None:
        """Freeze the mappings."""
        for name in ("guards", "versions"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


def evidence_to_dict(evidence: Evidence) -> dict[str, Any]:
    """Plain JSON form; what is empty of ``OPTIONAL`` is left out."""
    plain = {name: getattr(evidence, name) for name in Evidence.__dataclass_fields__ if name not in OPTIONAL}
    intervals = {name: _interval_to_dict(plain[name]) for name in ("gain", "stg_gain", "cfg_gain")}
    return {
        **plain,
        **intervals,
        "baseline": evidence.baseline.to_dict(),
        "best_cfg": evidence.best_cfg.to_dict(),
        "scorers": [asdict(item) for item in evidence.scorers],
        "guards": dict(evidence.guards),
        "versions": dict(evidence.versions),
        **({"votes": [asdict(item) for item in evidence.votes]} if evidence.votes else {}),
        **({"guard_values": [asdict(item) for item in evidence.guard_values]} if evidence.guard_values else {}),
        **({"warning": evidence.warning} if evidence.warning else {}),
    }


def evidence_from_dict(data: Mapping[str, Any]) -> Evidence:
    """Read a mapping that fits ``preset.schema.json``."""
    intervals = {name: _interval_from_dict(data[name]) for name in ("gain", "stg_gain", "cfg_gain")}
    scorers = tuple(ScorerGain(**{**item, "gain": GainInterval(**item["gain"])}) for item in data["scorers"])
    specs = {name: GuidanceSpec.from_dict(data[name]) for name in ("baseline", "best_cfg")}
    votes = tuple(VoteCount(**item) for item in data.get("votes", ()))
    guards = tuple(
        GuardValue(**{**item, "value": GainInterval(**item["value"])}) for item in data.get("guard_values", ())
    )
    return Evidence(**{**data, **intervals, **specs, "scorers": scorers, "votes": votes, "guard_values": guards})


def _interval_to_dict(interval: GainInterval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def _interval_from_dict(data: Mapping[str, Any] | None) -> GainInterval | None:
    return None if data is None else GainInterval(**data)
