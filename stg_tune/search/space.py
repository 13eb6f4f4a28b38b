"""What may be searched for one model family: ranges with their reasons, as frozen records."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from stg_tune.errors import StgTuneError
from stg_tune.records import Combination, GuidanceSpec, SkipOp
from stg_tune.search.objective import Objective
from stg_tune.search.ranges import Choices, Range, RestartRange, Screen, SecondPart, StackRange

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "stg-tune/space/1"

TermLayout = Literal["separate", "joint"]
"""``separate``: one weak prediction a stack (eq. 20); ``joint``: one weak prediction that skips in all stacks."""

TERM_LAYOUTS: tuple[TermLayout, ...] = get_args(TermLayout)


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A setting that is worth trying first."""

    name: str
    """For tables."""
    spec: GuidanceSpec
    """The setting."""
    why: str
    """The reason."""
    source: str
    """Where it comes from."""


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Everything a search may try, and what it is judged by."""

    family: str
    """The family or model it is written for."""
    stacks: Mapping[str, StackRange]
    """Stack name -> what may be skipped there."""
    cfg_scale: Range
    """``g`` of eq. 6."""
    stg_scale: Range
    """``w`` of eq. 13 and 20; each term has its own."""
    rescale: Range
    """``phi`` of arXiv:2305.08891."""
    start: Range
    """Begin of the window, fraction of the schedule."""
    stop: Range
    """End of the window, fraction of the schedule."""
    terms: Choices
    """Allowed ``TermLayout``."""
    combination: Choices
    """Allowed ``Combination``."""
    screen: Screen
    """The single-layer screen."""
    warm_starts: tuple[WarmStart, ...] = ()
    """Settings tried first."""
    objective: Objective
    """Weights and guards."""
    segments: SecondPart | None = None
    """Searched only when it is there."""
    restart: RestartRange | None = None
    """Searched only when it is there."""

    def __post_init__(self) -> None:
        """Freeze the stacks."""
        object.__setattr__(self, "stacks", MappingProxyType(dict(self.stacks)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through plain dictionaries (a mapping proxy cannot be pickled)."""
        return (SearchSpace.from_dict, (self.to_dict(),))

    @property
    def ops(self) -> tuple[SkipOp, ...]:
        """Operations that some stack allows."""
        return tuple(dict.fromkeys(op for stack in self.stacks.values() for op in stack.ops))

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """Allowed combinations, typed."""
        return tuple(word for word in get_args(Combination) if word in self.combination.choices)

    @property
    def layouts(self) -> tuple[TermLayout, ...]:
        """Allowed term layouts, typed."""
        return tuple(word for word in TERM_LAYOUTS if word in self.terms.choices)

    def priced(self, price: float) -> SearchSpace:
        """The same space with another ``Objective.price``."""
        return replace(self, objective=replace(self.objective, price=price))

    def hash(self) -> str:
        """16 hex digits over the canonical JSON: a resumed run must have the same."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The form of the YAML file; ``from_dict`` reads it back."""
        warm = [{**_texts(item), "name": item.name, "spec": item.spec.to_dict()} for item in self.warm_starts]
        return {
            "schema": SCHEMA,
            "family": self.family,
            "stacks": {name: {**asdict(stack), "ops": list(stack.ops)} for name, stack in self.stacks.items()},
            "cfg_scale": asdict(self.cfg_scale),
            "stg_scale": asdict(self.stg_scale),
            "rescale": _fraction(self.rescale),
            "window": {"start": _fraction(self.start), "stop": _fraction(self.stop)},
            "terms": {**_texts(self.terms), "choices": list(self.terms.choices)},
            "combination": {**_texts(self.combination), "choices": list(self.combination.choices)},
            "screen": asdict(self.screen),
            "warm_starts": warm,
            "objective": self.objective.to_dict(),
            # left out where they are not: files and hashes from before them stay the same
            **({"segments": _second_to_dict(self.segments)} if self.segments else {}),
            **({"restart": _restart_to_dict(self.restart)} if self.restart else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchSpace:
        """Read a mapping that fits ``space.schema.json``; bad values raise ``FieldError``."""
        window = data["window"]
        stacks = {name: _stack(item) for name, item in data["stacks"].items()}
        warm = data.get("warm_starts", ())
        return cls(
            family=data["family"],
            stacks=stacks,
            cfg_scale=_range("cfg_scale", data["cfg_scale"]),
            stg_scale=_range("stg_scale", data["stg_scale"]),
            rescale=_range("rescale", data["rescale"]),
            start=_range("window.start", window["start"]),
            stop=_range("window.stop", window["stop"]),
            terms=_choices(data["terms"]),
            combination=_choices(data["combination"]),
            screen=Screen(**data["screen"]),
            warm_starts=tuple(_warm_start(index, item) for index, item in enumerate(warm)),
            objective=_at("objective", Objective.from_dict, data["objective"]),
            segments=_second(data["segments"]) if "segments" in data else None,
            restart=_restart(data["restart"]) if "restart" in data else None,
        )


class FieldError(StgTuneError):
    """A value that is wrong on its own; ``field`` says where, for the line number."""

    def __init__(self, field: str, message: str) -> None:
        """Keep the dotted field beside the message."""
        super().__init__(f"{field}: {message}")
        self.field = field


def check_depths(space: SearchSpace, depths: Mapping[str, int]) -> None:
    """Raise ``FieldError`` when the space speaks of blocks that the model does not have."""
    for name, stack in space.stacks.items():
        if name not in depths:
            raise FieldError(f"stacks.{name}", f"the model has no such stack; its stacks are {', '.join(depths)}")
        if stack.max_layers + stack.max_offset > depths[name]:
            raise FieldError(
                f"stacks.{name}.max_layers",
                f"max_layers {stack.max_layers} + max_offset {stack.max_offset} is more than the {depths[name]} blocks "
                f"of the stack; allowed: a sum of 0 to {depths[name]}",
            )
    for index, warm in enumerate(space.warm_starts):
        check_spec(warm.spec, depths, f"warm_starts[{index}]")


def check_spec(spec: GuidanceSpec, depths: Mapping[str, int], field: str) -> None:
    """Raise ``FieldError`` when ``spec`` skips a stack or block that the model does not have."""
    layers = [(stack, i) for seg in spec.segments for term in seg.terms for stack, i in _pairs(term.skip_layers)]
    for stack, index in layers:
        if stack not in depths:
            raise FieldError(field, f"the model has no stack {stack!r}; its stacks are {', '.join(depths)}")
        if index >= depths[stack]:
            raise FieldError(
                field, f"layer {index} of stack {stack!r} does not exist; allowed: 0 to {depths[stack] - 1}"
            )


def _pairs(skip_layers: Mapping[str, tuple[int, ...]]) -> list[tuple[str, int]]:
    return [(stack, index) for stack, indices in skip_layers.items() for index in indices]


def _texts(item: Choices | WarmStart) -> dict[str, str]:
    return {"why": item.why, "source": item.source}


def _fraction(item: Range) -> dict[str, Any]:
    return {key: value for key, value in asdict(item).items() if key != "scale"}


def _at(field: str, build: Any, data: Any) -> Any:
    try:
        return build(data)
    except FieldError:
        raise
    except StgTuneError as error:
        raise FieldError(field, str(error)) from None


def _range(field: str, data: Mapping[str, Any]) -> Range:
    built: Range = _at(field, lambda item: Range(**item), data)
    return built


def _second(data: Mapping[str, Any]) -> SecondPart:
    return SecondPart(**{name: _range(f"segments.{name}", item) for name, item in data.items()})


def _second_to_dict(part: SecondPart) -> dict[str, Any]:
    return {
        "split": _fraction(part.split),
        "cfg_scale": asdict(part.cfg_scale),
        "stg_factor": asdict(part.stg_factor),
    }


def _restart(data: Mapping[str, Any]) -> RestartRange:
    ends = {name: _range(f"restart.{name}", data[name]) for name in ("start", "stop")}
    return RestartRange(**{**data, **ends})


def _restart_to_dict(restart: RestartRange) -> dict[str, Any]:
    return {**asdict(restart), "start": _fraction(restart.start), "stop": _fraction(restart.stop)}


def _stack(data: Mapping[str, Any]) -> StackRange:
    return StackRange(**{**data, "ops": tuple(data["ops"])})


def _choices(data: Mapping[str, Any]) -> Choices:
    return Choices(choices=tuple(data["choices"]), why=data["why"], source=data["source"])


def _warm_start(index: int, data: Mapping[str, Any]) -> WarmStart:
    spec = _at(f"warm_starts[{index}].spec", GuidanceSpec.from_dict, data["spec"])
    return WarmStart(**{**data, "spec": spec})
