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
    conclusion: str = ""
    """``better``, ``worse``, ``equivalent``, ``no worse``, ``undecided``; empty in a scorer's own unit: not asked."""
    margin: float = 0.0
    """What counts as no difference in ``conclusion``, in the unit of the gain."""


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
    cost: float = 0.0
    """Denoiser forwards a video over those of the default; 0 when unknown."""
    motion: float | None = None
    """Mean motion over that of the default on the same pairs; ``None`` when no scorer measures motion."""


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
    effect: float | None = None
    """Mean ``||c - p|| / ||c||``."""
    cost: float = 0.0
    """Denoiser forwards a video over those of the default; 0 when unknown."""


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
    more_is_better: bool = True
    """Which way the scorer points."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A limit that a better setting must keep, on the confirmation pairs."""

    name: str
    """``motion at_least_fraction 0.95``."""
    limit: float
    """The limit for ``value``."""
    value: Gain
    """What was measured: a fraction of the default's mean, or standard deviations of the default."""
    state: str
    """``holds`` (the whole interval), ``not proved`` or ``broken`` (even the estimate)."""
    why: str = ""
    """The reason for the guard."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A setting against the default, in all scorers, on pairs that nothing about it was chosen by."""

    name: str
    """``tuned``, ``CFG alone``, ``published: ...``."""
    spec: GuidanceSpec
    """The setting."""
    gain: Gain
    """Objective over the default, in standard deviations of the default."""
    scorers: Mapping[str, Gain]
    """Scorer -> paired gain in the scorer's own unit, positive is better."""
    pairs: str
    """Which pairs these are, in words."""


@dataclass(frozen=True, kw_only=True)
class PairGain:
    """One held-out pair, tuned against default."""

    prompt: str
    """The caption."""
    seed: int
    """Seed of the noise."""
    gain: float
    """Objective over the default, in standard deviations of the default."""
    scores: Mapping[str, tuple[float, float]]
    """Scorer -> (default, tuned), in the scorer's own unit."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """How much one number of the search mattered."""

    name: str
    """``cfg_scale``, ``stg_scale_spatial``, ..."""
    share: float
    """Share of the importance of all numbers, 0 to 1."""
    chance: float
    """What the same trials give with their gains shuffled (19 times in 20 less than this)."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What people said in a blind vote."""

    aspect: str
    """``quality``, ``motion``, ``prompt match``."""
    wins: int
    """Votes for the tuned video."""
    ties: int
    """Votes for neither."""
    losses: int
    """Votes for the default's video."""
    rate: float
    """Share of wins, ties counted half, 0 to 1."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    voters: int
    """People behind it."""


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
    others: Mapping[str, Path] = field(default_factory=dict)
    """Other settings of the race -> MP4, in the order of the page."""


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
    reason: str = ""
    """The verdict in one sentence, without a capital and a full stop; empty before there is one."""
    published: Mapping[str, GuidanceSpec] = field(default_factory=dict)
    """Name -> setting that somebody published for this model, or for a sibling of it, carried over."""
    published_note: str = ""
    """What there is to know where nothing was published for a model with just these blocks."""
    arms: tuple[Arm, ...] = ()
    """Settings against the default, scorer by scorer."""
    prompts: tuple[PairGain, ...] = ()
    """Every confirmation pair, tuned against default."""
    knobs: tuple[Knob, ...] = ()
    """Importance of the numbers that the search turned, most important first; empty: too few trials to tell."""
    guards: tuple[Guard, ...] = ()
    """Each guard on the confirmation pairs."""
    screen_gain: float = 0.0
    """Gain over the default of the setting that the single layers of the screen were added to."""
    effect_steps: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Term of the tuned setting -> ``||c - p|| / ||c||`` of each step; ``None``: not active in that step."""
    exports: tuple[tuple[str, str], ...] = ()
    """(tool, command that writes the preset for it)."""
    votes: tuple[Ballot, ...] = ()
    """The blind vote, an aspect each."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before believing the page."""
    loras: tuple[str, ...] = ()
    """LoRAs that belong to the model, ``NAME=SCALE``."""
    price: float = 0.0
    """Standard deviations that every gain of a setting is short of for each further default video's denoiser work."""
