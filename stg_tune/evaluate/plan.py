"""What is compared on which pairs, and the folder that keeps it: a crash costs the pairs in flight (no torch)."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stg_tune.documents import read_limited, write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.records import Evaluation, Pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from stg_tune.evaluate.arms import Arm

SCHEMA = "stg-tune/evaluation/1"
MAX_BYTES = 200_000_000
EMBEDDED = "embedded"
"""What ``scorers`` calls those of the embedded models."""


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
    """Scorers by name; ``embedded`` alone: those of the embedded models."""
    extractor: str
    """The network that sees videos as features: ``judge``, ``i3d``, or empty."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Name of a score, extractor or LoRA -> checksum of its weights."""
    checkpoint: str = ""
    """Fingerprint of the model's files where they are at hand, else where they come from."""
    video: Mapping[str, int] = field(default_factory=dict)
    """``height``, ``width``, ``num_frames`` and ``fps`` of a video."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Libraries that decide what an evaluation gives -> version."""

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
            "arms": [arm.to_dict() for arm in self.arms],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "scorers": list(self.scorers),
            "extractor": self.extractor,
            "weights": dict(self.weights),
            "checkpoint": self.checkpoint,
            "video": dict(self.video),
            "versions": dict(self.versions),
        }


def pairs_of(prompts: Sequence[str], *, samples: int, seeds: int, seed: int) -> tuple[Pair, ...]:
    """``samples`` pairs that go round the prompts, each prompt with at least ``seeds`` noises if there are enough.

    Lists of captions are often sorted: they are shuffled, always in the same way, so that few pairs see all kinds, too.

    Args:
        prompts: Captions; duplicates count once.
        samples: Number of pairs.
        seeds: Noises that a prompt should have.
        seed: Decides the noises. Those of a search lie elsewhere: it counts from ``seed * 100_000``.
    """
    captions = list(dict.fromkeys(prompt.strip() for prompt in prompts if prompt.strip()))
    if not captions:
        raise StgTuneError("there is no prompt: give at least one caption, one a line")
    random.Random("stg-tune evaluate prompts").shuffle(captions)
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
        changed = _changes(_read_json(file), wanted)
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


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``num_steps (10 then, 2 here)``, ``versions (torch (2.0 then, 2.1 here))``; of long lists the name alone."""
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return [_change(name, then.get(name), now.get(name)) for name in names]


def _change(name: str, then: Any, now: Any) -> str:
    if isinstance(now, dict):
        return f"{name} ({', '.join(_changes(then if isinstance(then, dict) else {}, now))})"
    if isinstance(now, list):
        return name
    before, here = (value if value not in (None, "") else "nothing" for value in (then, now))
    return f"{name} ({before} then, {here} here)"


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
