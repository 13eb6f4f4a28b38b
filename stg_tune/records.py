"""The words every stage speaks: frozen, keyword-only dataclasses of plain fields (standard library only)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from stg_tune.checks import between, finite, one_of, read_fields, read_list, whole
from stg_tune.errors import StgTuneError

SkipOp = Literal[
    "attention",
    "residual",
    "attention_all",
    "attention_with_text",
    "attention_off",
    "attention_input",
    "attention_projected_input",
    "feed_forward",
    "blur",
    "salient_blur",
    "weak_model",
]
"""The first two are the paper's (arXiv:2411.18664), the others come from other tools and methods.

``attention``: STG-A, eq. 16-17. Every video token attends to itself alone: the block gets ``to_out(V)``. Text tokens of
a joint attention keep their own attention.
``residual``: STG-R, eq. 14-15. The whole residual block returns its input, in every stream.
``attention_all``: as ``attention``, but text tokens of a joint attention return their values too (diffusers, ComfyUI).
``attention_with_text``: a video token sees itself and all valid text (HunyuanVideo STG-A of the paper's authors).
``attention_off``: the attention adds nothing to the video tokens (Wan2GP).
``attention_input``: the attention returns what it was given (diffusers, ``skip_attention`` alone).
``attention_projected_input``: ``to_out`` of what the attention was given (LTX-Video ``attention_skip``).
``feed_forward``: the feed-forward returns what it was given (diffusers, ``skip_ff`` alone).
``blur``: the video queries are blurred, SEG (arXiv:2408.00760); without ``blur_sigma`` each is the mean query.
``salient_blur``: no block is changed; the latents are blurred where the attention of the listed blocks rests, SAG
(arXiv:2210.00939, threshold 1). Needs ``blur_sigma``.
``weak_model``: no block is touched; a second, weaker model predicts (Autoguidance, arXiv:2406.02507).
"""
SKIP_OPS: tuple[SkipOp, ...] = ("attention", "residual")
"""What is searched: the two operations of the paper."""

ALL_SKIP_OPS: tuple[SkipOp, ...] = (
    *SKIP_OPS,
    "attention_all",
    "attention_with_text",
    "attention_off",
    "attention_input",
    "attention_projected_input",
    "feed_forward",
    "blur",
    "salient_blur",
    "weak_model",
)
"""What a specification may name."""

_BLURS: tuple[SkipOp, ...] = ("blur", "salient_blur")

Branch = Literal["cond", "uncond", "crossed", "from_guided"]
"""Which prompt the weak prediction sees, and what it is taken from; ``p(y)``: prediction with text y, layers skipped.

``cond`` is the paper's: ``+ w (c - p(c))``. ``uncond``: ``p(u)`` takes the place of ``u`` in eq. 6, no scale of its own
(``stg_scale`` must be 1), no extra pass. ``crossed``: ``+ w (c - p(u))``. ``from_guided``: ``+ w (x - p(u))``, where
x is the result of eq. 6."""

Combination = Literal["independent", "orthogonal"]
"""``independent`` is eq. 20, ``orthogonal`` is eq. 21 (later terms lose their part along earlier ones)."""

Direction = Literal["maximize", "minimize"]

BRANCHES: tuple[Branch, ...] = ("cond", "uncond", "crossed", "from_guided")
COMBINATIONS: tuple[Combination, ...] = ("independent", "orthogonal")


@dataclass(frozen=True, kw_only=True)
class SkipTerm:
    """One weak prediction ``p_k`` and the strength with which the sample is pushed away from it."""

    name: str
    """What the effect report and the plots call it: ``spatial``, ``temporal``, ``joint``, ..."""
    skip_layers: Mapping[str, tuple[int, ...]]
    """Stack name -> zero-based block indices, ascending, no duplicates; at least one index in all."""
    skip_op: SkipOp
    """What happens in a listed block."""
    stg_scale: float
    """``w`` in ``+ w (c - p)``; 0 switches the term off. Any finite number; published values are 0.5 to 4."""
    branch: Branch = "cond"
    """Which prompt the weak prediction sees."""
    draw: int = 0
    """So many of the listed blocks, drawn anew in every step (S2-Guidance, arXiv:2508.12880); 0 skips them all."""
    seed: int = 0
    """Seed of the draws, 0 or more."""
    blur_sigma: float | None = None
    """Standard deviation of the blur, above 0 and up to 1000: in tokens for ``blur`` (``None``: infinite), in latent
    pixels for ``salient_blur``."""

    def __post_init__(self) -> None:
        """Freeze and check the fields."""
        layers = {
            stack: _indices(self.name, stack, indices) for stack, indices in sorted(self.skip_layers.items()) if indices
        }
        if not layers and self.skip_op != "weak_model":
            raise StgTuneError(f"term {self.name!r} skips no layer: give at least one index in skip_layers")
        object.__setattr__(self, "skip_layers", MappingProxyType(layers))
        one_of(self.skip_op, ALL_SKIP_OPS, f"skip_op of term {self.name!r}")
        finite(self.stg_scale, f"stg_scale of term {self.name!r}")
        one_of(self.branch, BRANCHES, f"branch of term {self.name!r}")
        if self.branch == "uncond" and self.stg_scale not in (0, 1):
            raise StgTuneError(
                f"stg_scale of term {self.name!r} must be 1 on the branch uncond (0: off), got {self.stg_scale!r}: the "
                "weak prediction takes the place of the negative one and has no scale of its own"
            )

        whole(self.draw, 0, sum(map(len, layers.values())), f"draw of term {self.name!r}")
        whole(self.seed, 0, 2**63 - 1, f"seed of term {self.name!r}")
        self._check_blur()

    def _check_blur(self) -> None:
        what = f"blur_sigma of term {self.name!r}"
        if self.blur_sigma is not None:
            between(self.blur_sigma, 0.0, 1000.0, what)
            if self.skip_op not in _BLURS or self.blur_sigma == 0:
                raise StgTuneError(
                    f"{what} is {self.blur_sigma!r} with skip_op {self.skip_op!r}: only {' and '.join(_BLURS)} blur, "
                    "and by more than 0; leave blur_sigma out"
                )
        elif self.skip_op == "salient_blur":
            raise StgTuneError(f"term {self.name!r} has skip_op 'salient_blur' without blur_sigma: give one, e.g. 1.0")
        if self.skip_op == "salient_blur" and self.branch != "cond":
            raise StgTuneError(
                f"term {self.name!r} has skip_op 'salient_blur' on the branch {self.branch!r}: its map and its latents "
                "come from the prompted prediction, so the branch must be 'cond'"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through plain dictionaries (a mapping proxy cannot be pickled)."""
        return (_term_from_dict, (self.to_dict(),))

    def __hash__(self) -> int:
        """Hash the canonical JSON form."""
        return hash(_canonical(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; the usual branch and draw are left out: files and hashes from before them stay the same."""
        return {
            "name": self.name,
            "skip_layers": {stack: list(indices) for stack, indices in self.skip_layers.items()},
            "skip_op": self.skip_op,
            "stg_scale": self.stg_scale,
            **({} if self.branch == "cond" else {"branch": self.branch}),
            **({"draw": self.draw, "seed": self.seed} if self.draw else {}),
            **({} if self.blur_sigma is None else {"blur_sigma": self.blur_sigma}),
        }


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The guidance inside one half-open window of the schedule, ``start <= step / num_steps < stop``."""

    start: float = 0.0
    """First fraction of the schedule that is inside, 0 to 1 (0 = the noisiest step)."""
    stop: float = 1.0
    """First fraction that is outside again, ``start`` to 1."""
    cfg_scale: float | None = None
    """``g`` of eq. 6 inside the window; ``None`` keeps the scale of the specification."""
    terms: tuple[SkipTerm, ...] = ()
    """Weak predictions, in the order eq. 21 orthogonalises them."""
    combination: Combination = "independent"
    """How several terms are added."""
    rescale: float = 0.0
    """``phi`` of arXiv:2305.08891: 0 is off, 1 gives the result the per-sample std of the prompted prediction."""

    def __post_init__(self) -> None:
        """Check the fields."""
        where = f"segment [{self.start}, {self.stop})"
        for bound in (self.start, self.stop):
            between(bound, 0.0, 1.0, f"a bound of {where}")
        if self.stop < self.start:
            raise StgTuneError(f"{where} ends before it starts: start must be <= stop")
        if self.cfg_scale is not None:
            finite(self.cfg_scale, f"cfg_scale of {where}")
        one_of(self.combination, COMBINATIONS, f"combination of {where}")
        between(self.rescale, 0.0, 1.0, f"rescale of {where}")
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            raise StgTuneError(f"{where} has two terms of one name ({', '.join(names)}): give each its own name")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {
            "start": self.start,
            "stop": self.stop,
            "cfg_scale": self.cfg_scale,
            "terms": [term.to_dict() for term in self.terms],
            "combination": self.combination,
            "rescale": self.rescale,
        }


@dataclass(frozen=True, kw_only=True)
class Restart:
    """Restart sampling (arXiv:2306.14878): from ``stop`` back to the noise of ``start``, again, ``count`` times.

    Both are fractions of the schedule as in ``Segment``; at least one step must lie between them.
    """

    start: float
    """Where the repeated stretch begins, 0 to 1."""
    stop: float
    """Where it ends, ``start`` to 1."""
    count: int = 1
    """How often it is repeated, 1 to 100."""

    def __post_init__(self) -> None:
        """Check the fields."""
        for bound in (self.start, self.stop):
            between(bound, 0.0, 1.0, "a bound of restart")
        if self.stop <= self.start:
            raise StgTuneError(f"restart [{self.start}, {self.stop}) is empty: start must be < stop")
        whole(self.count, 1, 100, "count of restart")


@dataclass(frozen=True, kw_only=True)
class GuidanceSpec:
    """A whole guidance setting: plain CFG with ``cfg_scale`` outside all segments, the segment's setting inside."""

    cfg_scale: float
    """``g`` of eq. 6, ``u + g (c - u)``; 1 means no classifier-free guidance."""
    segments: tuple[Segment, ...] = ()
    """Segments that do not overlap, in ascending order."""
    cfg_source: Literal["spec", "pipeline"] = "spec"
    """``pipeline``: eq. 6 is left to the pipeline, with its own scale of each step and frame; the terms are added."""
    restart: Restart | None = None
    """Stretch of the schedule that is sampled several times; ``None``: once."""

    def __post_init__(self) -> None:
        """Check the fields."""
        finite(self.cfg_scale, "cfg_scale")
        one_of(self.cfg_source, ("spec", "pipeline"), "cfg_source")
        for earlier, later in zip(self.segments, self.segments[1:], strict=False):
            if later.start < earlier.stop:
                raise StgTuneError(
                    f"segment [{later.start}, {later.stop}) begins before [{earlier.start}, {earlier.stop}) has ended: "
                    "list segments in ascending order without overlap"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; ``GuidanceSpec.from_dict`` reads it back."""
        return {
            "cfg_scale": self.cfg_scale,
            "segments": [segment.to_dict() for segment in self.segments],
            **({} if self.cfg_source == "spec" else {"cfg_source": self.cfg_source}),
            **({} if self.restart is None else {"restart": asdict(self.restart)}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GuidanceSpec:
        """Read the form of ``to_dict``; unknown and missing fields raise ``StgTuneError`` by name."""
        fields = read_fields(data, {"cfg_scale"}, {"segments", "cfg_source", "restart"}, "guidance")
        segments = read_list(fields.get("segments", ()), "segments")
        fields["segments"] = tuple(_segment_from_dict(item) for item in segments)
        if fields.get("restart") is not None:
            fields["restart"] = Restart(**read_fields(fields["restart"], {"start", "stop"}, {"count"}, "restart"))
        return cls(**fields)

    def hash(self) -> str:
        """16 hex digits over the canonical JSON (floats rounded to 6 digits): the key of a configuration."""
        return hashlib.sha256(_canonical(self.to_dict()).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One test case: the same prompt and the same initial noise for every configuration."""

    prompt: str
    """The caption."""
    seed: int
    """Seed of the CPU generator that draws the initial noise."""

    @property
    def key(self) -> str:
        """A short stable name, the same in the storage and in file names."""
        return hashlib.sha256(f"{self.seed}\n{self.prompt}".encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {"prompt": self.prompt, "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class ScoreKind:
    """What a number of a scorer means."""

    name: str
    """``aesthetic``, ``alignment``, ``temporal_lpips``, ``imaging_quality``, ``motion``, ``saturation``, ..."""
    direction: Direction
    """Which way is better."""
    low: float
    """Least possible value (``-inf`` when unbounded)."""
    high: float
    """Greatest possible value (``inf`` when unbounded)."""
    unit: str
    """Unit in words, for axes and tables."""
    weights: str = "none"
    """SHA-256 (first 16 digits) of the weights behind the score; ``none`` when it is plain arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of one video, or the reason why there is none (never 0 in its place)."""

    kind: ScoreKind
    """What is measured."""
    value: float | None
    """The number, or ``None``: could not score."""
    reason: str = ""
    """Why there is no number."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one (configuration, pair) gave; one row of the table ``evaluations``."""

    config: str
    """``GuidanceSpec.hash()`` of the configuration."""
    pair: Pair
    """The test case."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scorer name -> raw value; a scorer that could not score is absent."""
    unscored: Mapping[str, str] = field(default_factory=dict)
    """Scorer name -> why it could not score."""
    seconds: float = 0.0
    """Wall time of generation and scoring."""
    forwards: float = 0.0
    """Denoiser-forward equivalents of one row (prefix reuse makes late layers cheaper)."""
    effects: Mapping[str, float] = field(default_factory=dict)
    """Term name -> mean of ``||c - p|| / ||c||`` over the active steps."""
    error: str = ""
    """Typed failure (``nan``, ``oom``, ``timeout``, ...) with its message; empty when the pair is fine."""


def _term_from_dict(data: Mapping[str, Any]) -> SkipTerm:
    fields = read_fields(
        data, {"name", "skip_layers", "skip_op", "stg_scale"}, {"branch", "draw", "seed", "blur_sigma"}, "term"
    )
    layers = fields["skip_layers"]
    if not isinstance(layers, Mapping):
        raise StgTuneError(f"skip_layers must map a stack name to a list of indices, got {layers!r}")
    frozen = {stack: tuple(read_list(indices, f"skip_layers.{stack}")) for stack, indices in layers.items()}
    return SkipTerm(**{**fields, "skip_layers": frozen})


def _segment_from_dict(data: Mapping[str, Any]) -> Segment:
    optional = {"start", "stop", "cfg_scale", "terms", "combination", "rescale"}
    fields = read_fields(data, set(), optional, "segment")
    fields["terms"] = tuple(_term_from_dict(item) for item in read_list(fields.get("terms", ()), "terms"))
    return Segment(**fields)


def _indices(term: str, stack: str, indices: tuple[int, ...]) -> tuple[int, ...]:
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise StgTuneError(f"skip_layers.{stack} of term {term!r}: {index!r} is not a block index (0, 1, 2, ...)")
    if len(set(indices)) != len(indices):
        raise StgTuneError(f"skip_layers.{stack} of term {term!r} names a block twice: {list(indices)}")
    return tuple(sorted(indices))


def _canonical(data: object) -> str:
    return json.dumps(_rounded(data), sort_keys=True, separators=(",", ":"))


def _rounded(data: object) -> object:
    if isinstance(data, float):
        return round(data, 6) + 0.0
    if isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_rounded(value) for value in data]
    return data
