"""What is compared on which pairs, and the folder that keeps it: a crash costs the pairs in flight (no torch)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stg_tune.documents import read_limited, write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.evaluate.suites import CFG_SCALES, STG_FACTORS, Suite
from stg_tune.records import Evaluation, GuidanceSpec, Pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

SCHEMA = "stg-tune/evaluation/1"
MAX_BYTES = 200_000_000
BASELINE = "cfg"
"""Name of the first arm, which all others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One setting that is evaluated."""

    name: str
    """For tables: ``cfg``, a preset's name, ``cfg@4.5``."""
    spec: GuidanceSpec
    """The setting."""
    curve: str = ""
    """Which curve it is a point of."""
    scale: float | None = None
    """Where on the curve: CFG scale, or factor of the skip scales."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Everything that decides the numbers; what may differ from run to run is not in it."""

    suite: str
    """Name of the suite."""
    model: str
    """Name of the model."""
    num_steps: int
    """Denoising steps."""
    arms: tuple[Arm, ...]
    """The first is the baseline."""
    pairs: tuple[Pair, ...]
    """Prompts with noise; every arm sees the same."""
    scorers: tuple[str, ...]
    """Scorers by name; empty: those of the embedded models."""
    extractor: str
    """The network that sees videos as features: ``judge``, ``i3d``, or empty."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Name of a score or extractor -> checksum of its weights."""

    def __post_init__(self) -> None:
        """Check that there is something to compare."""
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise StgTuneError(f"two arms of one name ({', '.join(names)}): give each preset file its own name")
        if not self.arms or not self.pairs:
            raise StgTuneError("an evaluation needs at least one setting and one pair")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {
            "schema": SCHEMA,
            "suite": self.suite,
            "model": self.model,
            "num_steps": self.num_steps,
            "arms": [
                {"name": arm.name, "spec": arm.spec.to_dict(), "curve": arm.curve, "scale": arm.scale}
                for arm in self.arms
            ],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "scorers": list(self.scorers),
            "extractor": self.extractor,
            "weights": dict(self.weights),
        }


def arms_of(suite: Suite, cfg_scale: float, presets: Mapping[str, GuidanceSpec]) -> tuple[Arm, ...]:
    """The baseline and the presets; for a curve, each at several scales.

    Args:
        suite: Decides whether curves are drawn.
        cfg_scale: The model's own guidance scale.
        presets: Name -> setting.
    """
    baseline = Arm(name=BASELINE, spec=GuidanceSpec(cfg_scale=cfg_scale), curve=BASELINE, scale=cfg_scale)
    if not suite.curve:
        return (baseline, *(Arm(name=name, spec=spec) for name, spec in presets.items()))
    scales = [scale for scale in CFG_SCALES if scale != cfg_scale]
    plain = [
        Arm(name=f"{BASELINE}@{scale:g}", spec=GuidanceSpec(cfg_scale=scale), curve=BASELINE, scale=scale)
        for scale in scales
    ]
    skipping = [
        Arm(name=f"{name} x{factor:g}", spec=times(spec, factor), curve=name, scale=factor)
        for name, spec in presets.items()
        for factor in STG_FACTORS
    ]
    return (baseline, *plain, *skipping)


def times(spec: GuidanceSpec, factor: float) -> GuidanceSpec:
    """The setting with every skip scale multiplied."""
    segments = tuple(
        replace(segment, terms=tuple(replace(term, stg_scale=term.stg_scale * factor) for term in segment.terms))
        for segment in spec.segments
    )
    return replace(spec, segments=segments)


def pairs_of(prompts: Sequence[str], *, samples: int, seeds: int, seed: int) -> tuple[Pair, ...]:
    """``samples`` pairs that go round the prompts, each prompt with at least ``seeds`` noises if there are enough.

    Args:
        prompts: Captions; duplicates count once.
        samples: Number of pairs.
        seeds: Noises that a prompt should have.
        seed: Decides the noises. Those of a search lie elsewhere: it counts from ``seed * 100_000``.
    """
    captions = list(dict.fromkeys(prompt.strip() for prompt in prompts if prompt.strip()))
    if not captions:
        raise StgTuneError("there is no prompt: give at least one caption, one a line")
    used = captions[: max(1, min(len(captions), samples // seeds))]
    first = 10**9 + seed * 100_000
    return tuple(Pair(prompt=used[i % len(used)], seed=first + i) for i in range(samples))


class Folder:
    """``plan.json``, ``results.jsonl`` (one line a finished pair), ``features/`` of one evaluation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def features(self) -> Path:
        """Where workers leave what the extractor saw."""
        return self.path / "features"

    def begin(self, plan: EvaluationPlan) -> None:
        """Write the plan, or check that the folder holds the same one.

        Raises:
            StgTuneError: The folder holds another evaluation, or something else.
        """
        file = self.path / "plan.json"
        wanted = json.loads(json.dumps(plan.to_dict()))
        if not file.exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise StgTuneError(f"{self.path} is not empty and holds no evaluation: give another folder with --out")
            write_atomic(file, json.dumps(wanted, indent=1) + "\n")
            self.features.mkdir(exist_ok=True)
            return
        held = _read_json(file)
        changed = [name for name in wanted if held.get(name) != wanted[name]]
        if changed:
            raise StgTuneError(
                f"{self.path} holds an evaluation with other {', '.join(changed)}: go on with the same settings, "
                "or give another folder with --out"
            )

    def add(self, evaluation: Evaluation) -> None:
        """Append one finished pair; it is on the disk when this returns."""
        row = {
            "config": evaluation.config,
            "pair": evaluation.pair.to_dict(),
            "scores": dict(evaluation.scores),
            "unscored": dict(evaluation.unscored),
            "seconds": evaluation.seconds,
            "forwards": evaluation.forwards,
            "effects": dict(evaluation.effects),
            "error": evaluation.error,
        }
        file = self.path / "results.jsonl"
        _end_torn_line(file)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def rows(self) -> dict[tuple[str, str], Evaluation]:
        """(configuration, pair key) -> what it gave; a line that a crash tore is not there."""
        file = self.path / "results.jsonl"
        if not file.exists():
            return {}
        lines = read_limited(file, MAX_BYTES, "results of an evaluation").splitlines()
        return {(row.config, row.pair.key): row for row in _parsed(lines)}


def _parsed(lines: Iterable[str]) -> Iterable[Evaluation]:
    for line in lines:
        try:
            data = json.loads(line)
            yield Evaluation(**{**data, "pair": Pair(**data["pair"])})
        except (ValueError, TypeError, KeyError):
            continue  # the pair is simply evaluated again


def _end_torn_line(file: Path) -> None:
    """What a crash left behind must not run into the next line."""
    if file.exists() and file.stat().st_size:
        with file.open("rb+") as stream:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_limited(file, MAX_BYTES, "plan of an evaluation"))
    except (ValueError, RecursionError) as error:
        raise StgTuneError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise StgTuneError(f"{file} is not the plan of an evaluation ({SCHEMA})")
    return data
