"""What is compared, on which pairs, and the folder that keeps it."""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune import preset as presets
from stg_tune.documents import read_limited, write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.models.loras import check_takes, identity, parse_loras
from stg_tune.records import GuidanceSpec, Pair, ScoreKind
from stg_tune.score.choice import ScorerChoice
from stg_tune.search import load_run, load_space, space_names, split_pairs
from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.plan import LEAST_HOLDOUT_PAIRS
from stg_tune.search.workers.placement import Placement
from stg_tune.studio import numbers_identity
from stg_tune.tune import SEARCH_PAIRS, default_prompts, read_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from stg_tune.models.base import ModelEntry
    from stg_tune.score import Scorer
    from stg_tune.search.objective import Objective

SCHEMA = "stg-tune/comparison/1"
PAIRS = 100
"""Pairs unless the user says otherwise: a gain of 0.3 at a paired deviation of 1 is then proven in 85 % of cases."""
MAX_BYTES = 16_000_000
PLAN, LOCK = "comparison.json", "driver.lock"


@dataclass(frozen=True, kw_only=True)
class ComparisonRequest:
    """What the user asks for."""

    model: str
    """A name of ``models.names()``."""
    first: str
    """The setting that may be better: a preset file, a published preset's name, ``published``, ``cfg``, ``cfg=2.5``."""
    second: str = "cfg"
    """What it is compared with, in the same words."""
    model_path: Path | None = None
    """Local folder with the model's files."""
    loras: tuple[str, ...] = ()
    """LoRAs to load into the model, ``FILE`` or ``FILE=SCALE``."""
    pairs: int = PAIRS
    """Number of (prompt, seed) pairs, 20 or more; fixed before the first one is evaluated."""
    prompts: Path | None = None
    """Text file with one caption a line; ``None``: an embedded model's own captions, else a general list."""
    space: str | None = None
    """Name or file of the search space whose weights and guards judge; ``None``: the model's own."""
    num_steps: int | None = None
    """Denoising steps; ``None``: the model's own."""
    seed: int = 0
    """Decides the pairs."""
    fast: bool = False
    """Scorers with a smaller CLIP: a twentieth of the cost, other numbers."""
    weights: Path | None = None
    """Local folder with the scorers' files; ``None``: of ``STG_TUNE_WEIGHTS``, else the usual caches."""
    placement: Placement = field(default_factory=Placement)
    """Where pairs are evaluated."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One of the two settings."""

    name: str
    """What the user calls it."""
    spec: GuidanceSpec
    """The setting."""
    searched: frozenset[str] = frozenset()
    """Captions that guided the search which found it."""


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """Everything that decides the numbers."""

    model: str
    """Name of the model."""
    num_steps: int
    """Denoising steps."""
    first: Contender
    """The setting that may be better."""
    second: Contender
    """What it is compared with."""
    objective: Objective
    """Weights and guards."""
    scorers: tuple[ScoreKind, ...]
    """What the evaluations hold."""
    pairs: tuple[Pair, ...]
    """Both settings, and the first without its terms, see just these."""
    versions: Mapping[str, str]
    """Version or checksum of all that decides what an evaluation gives."""
    loras: Mapping[str, str] = field(default_factory=dict)
    """``lora NAME`` -> checksum and strength."""
    fast: bool = False
    """The smaller CLIP has judged."""

    @property
    def bare(self) -> Contender | None:
        """The first setting without its terms, a third arm: what skip guidance adds on top of it.

        ``None`` when the first skips nothing.
        """
        spec = without_terms(self.first.spec)
        return (
            None if is_cfg_only(self.first.spec) else Contender(name=f"{self.first.name} without its terms", spec=spec)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "num_steps": self.num_steps,
            "names": [self.first.name, self.second.name],
            "settings": [self.first.spec.to_dict(), self.second.spec.to_dict()],
            "objective": self.objective.to_dict(),
            "pairs": [pair.to_dict() for pair in self.pairs],
            "versions": dict(self.versions),
            **({"loras": dict(self.loras)} if self.loras else {}),
            **({"fast": True} if self.fast else {}),
        }

    def identity(self) -> str:
        """16 hex digits over all that must not change in one folder; what the settings are called may."""
        data = {key: value for key, value in self.to_dict().items() if key not in ("names", "versions")}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def draft_comparison(request: ComparisonRequest, entry: ModelEntry) -> Callable[[Scorer], ComparisonPlan]:
    """Check everything that needs no model; the plan is complete when the scorers are known."""
    for name, value, least in (("--pairs", request.pairs, LEAST_HOLDOUT_PAIRS), ("--steps", request.num_steps, 1)):
        if value is not None and value < least:
            raise StgTuneError(f"{name} must be at least {least}, got {value}")
    loras = parse_loras(request.loras)
    check_takes(entry, loras)
    objective = replace(_objective(request, entry), price=0.0)  # a comparison is about quality
    lists = [read_prompts(request.prompts)] if request.prompts else []
    lists.append(default_prompts(entry))
    first, second = (contender(word, entry, lists) for word in (request.first, request.second))
    if first.spec.hash() == second.spec.hash():
        raise StgTuneError(f"{first.name} and {second.name} are the same setting: there is nothing to compare")
    pairs = new_pairs(lists[0], first.searched | second.searched, count=request.pairs, seed=request.seed)

    def plan(scorer: Scorer) -> ComparisonPlan:
        objective.check({kind.name: kind for kind in scorer.kinds})
        return ComparisonPlan(
            model=entry.name,
            num_steps=request.num_steps or entry.defaults.num_inference_steps,
            first=first,
            second=second,
            objective=objective,
            scorers=scorer.kinds,
            pairs=pairs,
            versions=numbers_identity(scorer),
            loras=identity(loras),
            fast=request.fast,
        )

    return plan


def scorers_of(request: ComparisonRequest, entry: ModelEntry) -> ScorerChoice:
    """What the objective asks for beyond the model's own scorers, and the options about their files."""
    named = _objective(request, entry).scorers
    return ScorerChoice.of(named, embedded=entry.embedded, fast=request.fast, weights=request.weights)


def _objective(request: ComparisonRequest, entry: ModelEntry) -> Objective:
    own = entry.name if entry.name in space_names() else entry.architecture.family
    return load_space(request.space or own).objective


def contender(word: str, entry: ModelEntry, lists: Sequence[Sequence[str]]) -> Contender:
    """The setting that a word of the command line means.

    Args:
        word: ``cfg``, ``cfg=G``, ``published``, a preset file, or the name of a published preset.
        entry: The model; its blocks must be those of the preset.
        lists: Lists of captions that a search may have drawn from.
    """
    if word == "cfg" or word.startswith("cfg="):
        scale = entry.defaults.cfg_scale if word == "cfg" else _scale(word)
        return Contender(name=f"cfg={scale:g}", spec=GuidanceSpec(cfg_scale=scale))
    if word == "published":
        prior = presets.prior_for(entry)
        return Contender(name=prior.name, spec=presets.bare_spec(prior))
    preset = presets.open_for(word, entry)
    return Contender(
        name=word, spec=presets.bare_spec(preset), searched=frozenset(_searched(Path(word).parent, preset, lists))
    )


def without_terms(spec: GuidanceSpec) -> GuidanceSpec:
    """A setting with all it has but skip guidance: CFG scales, rescale, restart; segments that then do nothing go."""
    plain = (replace(segment, terms=(), combination="independent") for segment in spec.segments)
    kept = (segment for segment in plain if segment.rescale or segment.cfg_scale not in (None, spec.cfg_scale))
    return replace(spec, segments=tuple(kept))


def new_pairs(captions: Sequence[str], avoid: Collection[str], *, count: int, seed: int) -> tuple[Pair, ...]:
    """Pairs whose noise no search has seen and whose captions are not among those to avoid.

    A search counts its seeds up from ``seed * 100_000``; these are 48 bits of a hash, so none of them comes back.

    Raises:
        StgTuneError: No caption is left.
    """
    unique = list(dict.fromkeys(captions))
    left = [caption for caption in unique if caption not in avoid]
    if not left:
        raise StgTuneError(
            f"all {len(unique)} captions have guided the search behind a preset that is compared, so they would "
            "flatter it: give a file with others, --prompts FILE"
        )
    random.Random(f"stg-tune compare {seed}").shuffle(left)
    noises = (hashlib.sha256(f"stg-tune compare {seed} {number}".encode()).digest()[:6] for number in range(count))
    return tuple(
        Pair(prompt=left[number % len(left)], seed=int.from_bytes(noise)) for number, noise in enumerate(noises)
    )


def begin(plan: ComparisonPlan, directory: Path) -> None:
    """Write the plan into its folder, or check that the folder holds the same one.

    Raises:
        StgTuneError: The folder holds another comparison, other numbers, or something else.
    """
    check_folder(plan, directory)
    write_atomic(directory / PLAN, json.dumps(plan.to_dict(), indent=1) + "\n")


def check_folder(plan: ComparisonPlan, directory: Path) -> None:
    """Raises as ``begin`` does, and changes nothing."""
    file = directory / PLAN
    if not file.exists():
        if directory.exists() and (not directory.is_dir() or {item.name for item in directory.iterdir()} - {LOCK}):
            raise StgTuneError(f"{directory} is not empty and holds no comparison: give another folder with --out")
        return
    held, wanted = _read(file), json.loads(json.dumps(plan.to_dict()))
    changed = [name for name in {**held, **wanted} if name != "names" and held.get(name) != wanted.get(name)]
    if changed:
        raise StgTuneError(
            f"{directory} holds a comparison with other {', '.join(changed)}: go on with the same, or give another "
            "folder with --out"
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_limited(file, MAX_BYTES, "comparison"))
    except (ValueError, RecursionError) as error:
        raise StgTuneError(f"{file} is not valid JSON ({error}): give another folder with --out") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise StgTuneError(f"{file} is not a comparison ({SCHEMA}): give another folder with --out")
    return data


def _scale(word: str) -> float:
    try:
        scale = float(word.removeprefix("cfg="))
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise StgTuneError(f"--preset {word}: the scale of CFG must be a number, such as cfg=2.5")
    return scale


def _searched(folder: Path, preset: presets.Preset, lists: Sequence[Sequence[str]]) -> Iterator[str]:
    """Captions that guided the search behind a preset.

    The run that the preset lies in knows them. Away from it, the preset's seed says how a list of captions was split,
    and the lists at hand are those that the search may have been given.
    """
    if (folder / "run.json").is_file():
        yield from (pair.prompt for pair in load_run(folder).plan.search_pairs)
    elif preset.evidence is not None:
        for captions in lists:
            search, _ = split_pairs(captions, seed=preset.evidence.seed, search=SEARCH_PAIRS, holdout=0)
            yield from (pair.prompt for pair in search)
