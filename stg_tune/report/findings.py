"""What a report is made from: the plain results of a run (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stg_tune.records import GuidanceSpec


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A paired gain with its interval; positive is better."""

    mean: float
    """Mean over the pairs."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    pairs: int
    """Number of (prompt, seed) pairs behind it."""
    level: float = 0.95
    """Two-sided confidence level, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration that was tried, in the order of the run."""

    stage: str
    """``baseline``, ``published``, ``cfg`` or ``search``."""
    spec: GuidanceSpec
    """The configuration."""
    gains: tuple[float, ...]
    """Gain over the default on each finished search pair; empty when every pair failed."""
    effects: Mapping[str, float] = field(default_factory=dict)
    """Term name -> mean of ``||c - p|| / ||c||``."""
    pruned: bool = False
    """Stopped before all pairs were seen."""
    broken: tuple[str, ...] = ()
    """Guards that it breaks."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What skipping one layer did in the screen."""

    stack: str
    """Its stack."""
    layer: int
    """Its index."""
    op: str
    """``attention`` or ``residual``."""
    scale: float
    """``stg_scale`` at which it was tried."""
    gain: float
    """Mean paired gain over the same setting without it."""
    error: float
    """Standard error of ``gain``; ``inf`` when unknown."""
    pairs: int
    """Pairs behind it, at least 1."""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A setting that raced on held-out pairs."""

    name: str
    """``trial 12``, ``best CFG``, ..."""
    spec: GuidanceSpec
    """The setting."""
    in_sample: float
    """Mean gain on the pairs that chose it: optimistic."""
    held_out: float | None
    """Mean gain in its last heat, on pairs that the search never saw; ``None`` when there was no heat."""


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """One scorer on the confirmation pairs, tuned against default, in the scorer's own unit."""

    name: str
    """Name of the scorer."""
    unit: str
    """Unit in words."""
    weight: float
    """Weight in the objective; 0: reported only."""
    baseline: float
    """Mean of the default."""
    tuned: float
    """Mean of the tuned setting."""
    gain: Gain
    """Paired gain, positive is better whichever way the scorer points."""
    unscored: int = 0
    """Pairs that the tuned setting has no score for."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The same pair with the default and with the tuned setting, as MP4 files."""

    prompt: str
    """The caption."""
    seed: int
    """Seed of the noise."""
    baseline: Path
    """MP4 of the default."""
    tuned: Path
    """MP4 of the tuned setting."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything the page shows. Gains of whole settings are in standard deviations of the default between pairs."""

    model: str
    """Name of the model."""
    finished: bool
    """False while the run still goes on or was stopped."""
    improved: bool
    """The lower end of ``tuned_gain`` is above 0 and every guard holds."""
    default: GuidanceSpec
    """The model's default."""
    tuned: GuidanceSpec | None
    """The setting that won, ``None`` before there is one."""
    tuned_gain: Gain | None
    """Tuned setting against the default, held out."""
    cfg: GuidanceSpec | None
    """Best setting without STG."""
    cfg_gain: Gain | None
    """That setting against the default, held out; ``None`` when the default is the best."""
    stg_gain: Gain | None
    """Best setting with STG against ``cfg``, held out."""
    cost: float
    """Denoiser forwards a video of the tuned setting over those of the default; 0 when unknown."""
    broken: tuple[str, ...]
    """Guards that the tuned setting breaks."""
    trials: tuple[Trial, ...]
    """Configurations in the order in which they were tried."""
    layers: tuple[Layer, ...]
    """The screen."""
    depths: Mapping[str, int]
    """Stack name -> number of blocks."""
    finalists: tuple[Finalist, ...]
    """The race."""
    scorers: tuple[Scorer, ...]
    """One a scorer."""
    clips: tuple[Clip, ...]
    """Side-by-side clips; the page takes as many as fit."""
    preset: Mapping[str, Any] | None
    """The preset's JSON."""
    provenance: Mapping[str, str]
    """What was run, with which versions and weights, in reading order."""
