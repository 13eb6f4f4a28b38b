"""What a preset is, as frozen records (no torch)."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from stg_tune.errors import StgTuneError
from stg_tune.models.base import GenerationDefaults
from stg_tune.preset.evidence import Evidence, evidence_from_dict, evidence_to_dict
from stg_tune.records import GuidanceSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA = "stg-tune/preset/1"

CombineSpace = Literal["velocity", "epsilon", "v_prediction", "sample"]
"""What is combined and rescaled: the raw prediction of a flow, noise or v model, or (``sample``) x0, the clean latents
that a prediction implies, whatever the model predicts."""

COMBINE_SPACES: tuple[CombineSpace, ...] = get_args(CombineSpace)
WINDOW_RULE = "start <= step / num_steps < stop"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A guidance setting for one model; ``stg_tune.guided(pipe, preset)`` runs ``preset.spec``."""

    name: str
    """For people."""
    family: str
    """Model family: ``open-sora``, ``mochi``, ..."""
    model: str
    """What ``--model`` takes."""
    checkpoint: str
    """Hub id, or ``embedded``."""
    revision: str
    """Revision or checksum of the checkpoint; empty: unknown."""
    stacks: Mapping[str, int]
    """Stack name -> number of blocks, so that indices mean something."""
    spec: GuidanceSpec
    """The setting."""
    combine_space: CombineSpace = "velocity"
    """Space in which predictions are combined and rescaled."""
    generation: GenerationDefaults
    """How videos were made: size, frames, steps."""
    evidence: Evidence | None = None
    """Why it should be believed; ``None``: written by hand."""
    sigmas: tuple[float, ...] = ()
    """Noise level of every step, descending, 1 = pure noise in flow models; for tools whose windows are sigmas."""
    source: str = ""
    """Where the numbers were published; empty: they are stg-tune's own, or somebody's."""
    notes: tuple[str, ...] = ()
    """What to know before the numbers are used or copied."""
    branch: Literal["cond"] = field(default="cond", init=False)
    """Branch of the terms that name none: weak predictions see the prompt."""
    rescale_std: Literal["per_sample"] = field(default="per_sample", init=False)
    """What standard deviations of the rescale are taken over; a factor of 0 is off, 1 is full."""

    def __post_init__(self) -> None:
        """Check that every layer exists."""
        object.__setattr__(self, "stacks", MappingProxyType(dict(self.stacks)))
        if self.combine_space not in COMBINE_SPACES:
            allowed = ", ".join(COMBINE_SPACES)
            raise StgTuneError(f"combine_space must be one of {allowed}, got {self.combine_space!r}")
        for stack, index in _layers(self.spec):
            _check_layer(stack, index, self.stacks)
        _check_sigmas(self.sigmas, self.generation.num_inference_steps)

    def hash(self) -> str:
        """16 hex digits over all that decides what comes out: not over name, evidence, source and notes."""
        data = {key: value for key, value in self.to_dict().items() if key not in ("name", "evidence", "origin")}
        text = json.dumps(_rounded(data), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, the content of a preset file."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "model": {
                "family": self.family,
                "name": self.model,
                "checkpoint": self.checkpoint,
                "revision": self.revision,
                "stacks": dict(self.stacks),
            },
            "guidance": self.spec.to_dict(),
            "meaning": {
                "branch": self.branch,
                "combine_space": self.combine_space,
                "rescale_std": self.rescale_std,
                "window": WINDOW_RULE,
            },
            "generation": asdict(self.generation),
            **({"sigmas": list(self.sigmas)} if self.sigmas else {}),
            **({"origin": {"source": self.source, "notes": list(self.notes)}} if self.source or self.notes else {}),
            "evidence": None if self.evidence is None else evidence_to_dict(self.evidence),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preset:
        """Read a mapping that fits ``preset.schema.json``; a layer that does not exist raises ``StgTuneError``."""
        model, evidence, origin = data["model"], data["evidence"], data.get("origin", {})
        for stack in _named_stacks(data["guidance"]):
            _check_stack(stack, model["stacks"])
        return cls(
            name=data["name"],
            family=model["family"],
            model=model["name"],
            checkpoint=model["checkpoint"],
            revision=model["revision"],
            stacks=model["stacks"],
            spec=GuidanceSpec.from_dict(data["guidance"]),
            combine_space=data["meaning"]["combine_space"],
            generation=GenerationDefaults(**data["generation"]),
            evidence=None if evidence is None else evidence_from_dict(evidence),
            sigmas=tuple(data.get("sigmas", ())),
            source=origin.get("source", ""),
            notes=tuple(origin.get("notes", ())),
        )


def _layers(spec: GuidanceSpec) -> list[tuple[str, int]]:
    terms = [term for segment in spec.segments for term in segment.terms]
    return [(stack, index) for term in terms for stack, indices in term.skip_layers.items() for index in indices]


def _named_stacks(guidance: Mapping[str, Any]) -> Iterator[str]:
    """Stacks as the file names them: one without indices does not reach the specification."""
    for segment in guidance.get("segments", ()):
        for term in segment.get("terms", ()):
            yield from term["skip_layers"]


def _check_stack(stack: str, stacks: Mapping[str, int]) -> None:
    if stack not in stacks:
        raise StgTuneError(f"skip_layers names the stack {stack!r}; the model has {', '.join(sorted(stacks))}")


def _check_layer(stack: str, index: int, stacks: Mapping[str, int]) -> None:
    _check_stack(stack, stacks)
    if index >= stacks[stack]:
        raise StgTuneError(f"skip_layers.{stack}: there is no layer {index}; allowed: 0 to {stacks[stack] - 1}")


def _check_sigmas(sigmas: tuple[float, ...], num_steps: int) -> None:
    if sigmas and len(sigmas) != num_steps:
        raise StgTuneError(
            f"sigmas has {len(sigmas)} entries, but there are {num_steps} steps: give one a step, or none"
        )
    if any(later >= earlier for earlier, later in pairwise(sigmas)) or not all(
        0 <= sigma < math.inf for sigma in sigmas
    ):
        raise StgTuneError(f"sigmas must be finite, descend and not be negative, got {list(sigmas)!s:.80}")


def _rounded(data: Any) -> Any:
    """Numbers as in ``GuidanceSpec.hash``: 6 digits, and 1 is 1.0."""
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_rounded(value) for value in data]
    return round(float(data), 6) + 0.0 if isinstance(data, int | float) and not isinstance(data, bool) else data
