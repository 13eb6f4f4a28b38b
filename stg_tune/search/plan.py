"""What a run is made of, and ``DIR/run.json``, which holds all of it, so that ``resume DIR`` needs nothing else."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stg_tune.checks import one_of
from stg_tune.documents import read_limited, write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.records import GuidanceSpec, Pair, ScoreKind
from stg_tune.search.budget import parse_budget
from stg_tune.search.fidelity import POLICIES, Policy
from stg_tune.search.space import SearchSpace, check_depths, check_spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SCHEMA = "stg-tune/run/1"
LEAST_SEARCH_PAIRS = 6
"""The pruner cannot decide on fewer."""
LEAST_HOLDOUT_PAIRS = 20
"""Fewer cannot support a verdict."""
RULES = 4
"""How a run comes to its verdict. 1 to 3, runs of before: the default is what skip guidance has to beat as soon as the
best CFG-only setting has the lower mean. 1 and 2: that setting is the best of the CFG line, whatever the trials have
found since. 1: choice and confirmation share prompts when there are few, a race stops as soon as its gain is decided, a
guard that looks broken on the search pairs excludes a setting, the best mean decides the CFG line, and the budget is
divided alike however many settings are compared at the end."""
MAX_BYTES = 16_000_000
_SEARCH_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """Everything that decides the numbers of a run."""

    model: str
    """Name of the model (and of the study in the storage)."""
    space: SearchSpace
    """What may be tried, and what it is judged by."""
    depths: Mapping[str, int]
    """Stack name -> number of blocks."""
    num_steps: int
    """Denoising steps of a generation."""
    baseline: GuidanceSpec
    """The model's default setting."""
    scorers: tuple[ScoreKind, ...]
    """What the evaluations hold."""
    search_pairs: tuple[Pair, ...]
    """Pairs that guide the search, at least 6."""
    holdout_pairs: tuple[Pair, ...]
    """Pairs that the search never sees, at least 20."""
    budget: str = "small"
    """``small``, ``medium``, ``large``, a number of evaluations, or a time such as ``2h``."""
    seed: int = 0
    """Decides every proposal."""
    published: Mapping[str, GuidanceSpec] = field(default_factory=dict)
    """Name -> published settings of this model; they race as well."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Library versions, recorded with each row."""
    fidelity: Policy = "full"
    """``auto``: screen and trials are made with fewer steps where a check shows that they rank settings alike."""
    loras: Mapping[str, str] = field(default_factory=dict)
    """``lora NAME`` -> checksum and strength, of LoRAs beside the model's own weights."""
    rules: int = RULES
    """``RULES`` of the time when the run was begun; it ends by the same ones."""

    def __post_init__(self) -> None:
        """Check what can be checked before anything is spent."""
        for name in ("depths", "published", "versions", "loras"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        parse_budget(self.budget)
        one_of(self.fidelity, POLICIES, "the fidelity of a search")
        if self.rules not in range(1, RULES + 1):
            raise StgTuneError(f"the run was begun by a later stg-tune (rules {self.rules!r}): go on with that version")
        _check_pairs(self.search_pairs, self.holdout_pairs)
        check_depths(self.space, self.depths)
        for name, spec in {"baseline": self.baseline, **self.published}.items():
            check_spec(spec, self.depths, name)
        self.space.objective.check(self.kinds)

    @property
    def kinds(self) -> dict[str, ScoreKind]:
        """Scorer name -> what it means."""
        return {kind.name: kind for kind in self.scorers}

    def fingerprint(self) -> str:
        """Hash over everything that decides the numbers, budget and library versions apart."""
        data = {key: value for key, value in self.to_dict().items() if key not in {"budget", "versions"}}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; ``from_dict`` reads it back."""
        return {
            "model": self.model,
            "space": self.space.to_dict(),
            "depths": dict(self.depths),
            "num_steps": self.num_steps,
            "baseline": self.baseline.to_dict(),
            "scorers": [_kind_to_dict(kind) for kind in self.scorers],
            "search_pairs": [pair.to_dict() for pair in self.search_pairs],
            "holdout_pairs": [pair.to_dict() for pair in self.holdout_pairs],
            "budget": self.budget,
            "seed": self.seed,
            "published": {name: spec.to_dict() for name, spec in self.published.items()},
            "versions": dict(self.versions),
            **({} if self.fidelity == "full" else {"fidelity": self.fidelity}),
            **({"loras": dict(self.loras)} if self.loras else {}),
            **({} if self.rules == 1 else {"rules": self.rules}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchPlan:
        """Read the form of ``to_dict``."""
        return cls(
            model=data["model"],
            space=SearchSpace.from_dict(data["space"]),
            depths=data["depths"],
            num_steps=data["num_steps"],
            baseline=GuidanceSpec.from_dict(data["baseline"]),
            scorers=tuple(_kind_from_dict(item) for item in data["scorers"]),
            search_pairs=tuple(Pair(**item) for item in data["search_pairs"]),
            holdout_pairs=tuple(Pair(**item) for item in data["holdout_pairs"]),
            budget=data["budget"],
            seed=data["seed"],
            published={name: GuidanceSpec.from_dict(item) for name, item in data["published"].items()},
            versions=data["versions"],
            fidelity=data.get("fidelity", "full"),
            loras=data.get("loras", {}),
            rules=data.get("rules", 1),
        )


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """One budget that was given to a run; a run that is extended has several."""

    budget: str
    """As the user wrote it."""
    evaluations: int | None = None
    """What it came to; ``None`` until the baseline has been timed."""
    verdict: bool = False
    """Whether the run has given a verdict under it."""
    search_end: int | None = None
    """Evaluations at which the search stage ended because the time was needed afterwards; ``None``: it did not."""
    confirm: int | None = None
    """Held-out pairs an arm for which there was still time then."""


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """The content of ``DIR/run.json``."""

    plan: SearchPlan
    """What the run is made of."""
    storage: str
    """URL of the evaluations and the Optuna study."""
    allowances: tuple[Allowance, ...]
    """Budgets in the order they were given; the last one is in force."""

    @property
    def looks(self) -> int:
        """1 for the first verdict of the run, 2 for the second, ..."""
        return 1 + sum(item.verdict for item in self.allowances[:-1])

    def with_allowance(self, **changes: Any) -> RunFile:
        """The same run with changes to the budget in force."""
        return replace(self, allowances=(*self.allowances[:-1], replace(self.allowances[-1], **changes)))

    def save(self, directory: Path) -> None:
        """Write ``DIR/run.json`` atomically."""
        data = {
            "schema": SCHEMA,
            "storage": self.storage,
            "allowances": [_allowance_to_dict(item) for item in self.allowances],
            "plan": self.plan.to_dict(),
        }
        write_atomic(directory / "run.json", json.dumps(data, indent=1) + "\n")


def load_run(directory: Path) -> RunFile:
    """Read ``DIR/run.json``; a folder without one, or a broken one, is an ``StgTuneError``."""
    path = directory / "run.json"
    if not path.is_file():
        raise StgTuneError(
            f"{directory} is not the folder of a run: it has no run.json; start one with stg-tune search"
        )
    text = read_limited(path, MAX_BYTES, "run file")
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise StgTuneError(
                f"{path} has the schema {data['schema']!r}; this stg-tune reads {SCHEMA}. Nothing was changed: use the "
                "stg-tune that wrote it, or start anew in another folder"
            )
        allowances = tuple(_allowance_from_dict(item, path) for item in data["allowances"])
        return RunFile(plan=SearchPlan.from_dict(data["plan"]), storage=data["storage"], allowances=allowances)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StgTuneError(
            f"{path} is damaged ({type(error).__name__}: {error}); start anew in another folder"
        ) from None


def split_pairs(
    prompts: Sequence[str], *, seed: int, search: int, holdout: int
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Make search pairs and held-out pairs that share no initial noise and, given four prompts or more, no prompt.

    Prompts are shuffled; a quarter, but not more than needed, goes to the search. Pairs go round the prompts, so that
    as many different prompts as possible are seen before one is seen again with another seed.

    Args:
        prompts: Captions; duplicates and blanks are dropped.
        seed: Decides shuffle and noise.
        search: Number of search pairs.
        holdout: Number of held-out pairs.

    Raises:
        StgTuneError: No prompt is left.
    """
    captions = list(dict.fromkeys(prompt.strip() for prompt in prompts if prompt.strip()))
    if not captions:
        raise StgTuneError("there is no prompt: give at least one caption, better twenty or more, one a line")
    random.Random(f"stg-tune prompts {seed}").shuffle(captions)
    cut = min(math.ceil(len(captions) * _SEARCH_SHARE), search)
    mine, others = (captions[:cut], captions[cut:]) if len(captions) >= 4 else (captions, captions)
    seeds = itertools.count(seed * 100_000)
    first = tuple(Pair(prompt=mine[i % len(mine)], seed=next(seeds)) for i in range(search))
    return first, tuple(Pair(prompt=others[i % len(others)], seed=next(seeds)) for i in range(holdout))


def _check_pairs(search: Sequence[Pair], holdout: Sequence[Pair]) -> None:
    if len(search) < LEAST_SEARCH_PAIRS or len(holdout) < LEAST_HOLDOUT_PAIRS:
        raise StgTuneError(
            f"{len(search)} search pairs and {len(holdout)} held-out pairs are too few: at least {LEAST_SEARCH_PAIRS} "
            f"and {LEAST_HOLDOUT_PAIRS} are needed; give more prompts or seeds"
        )
    keys = [pair.key for pair in (*search, *holdout)]
    if len(set(keys)) != len(keys):
        raise StgTuneError("a (prompt, seed) pair is listed twice: search and held-out pairs must all differ")


def _allowance_to_dict(allowance: Allowance) -> dict[str, Any]:
    late = {"search_end", "confirm"}  # left out where they say nothing: run files from before them stay the same
    return {name: value for name, value in asdict(allowance).items() if value is not None or name not in late}


def _allowance_from_dict(data: Mapping[str, Any], path: Path) -> Allowance:
    unknown = sorted(data.keys() - {field.name for field in fields(Allowance)})
    if unknown:
        raise StgTuneError(f"{path} holds {', '.join(unknown)}, which this stg-tune does not know: use a newer one")
    return Allowance(**data)


def _kind_to_dict(kind: ScoreKind) -> dict[str, Any]:
    ends = {name: value for name, value in (("low", kind.low), ("high", kind.high)) if math.isfinite(value)}
    return {"name": kind.name, "direction": kind.direction, "unit": kind.unit, "weights": kind.weights, **ends}


def _kind_from_dict(data: Mapping[str, Any]) -> ScoreKind:
    return ScoreKind(**{"low": -math.inf, "high": math.inf, **data})
