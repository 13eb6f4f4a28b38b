"""The parts of a search space: intervals and choices, each with its reason and source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from stg_tune.records import SkipOp


@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval of numbers, with the reason for its ends."""

    low: float
    """Least value."""
    high: float
    """Greatest value; equal to ``low`` fixes the number."""
    scale: Literal["linear", "log"] = "linear"
    """How values are spread; ``log`` needs ``low > 0``."""
    why: str
    """The reason for the ends."""
    source: str
    """Where the numbers come from."""

    def __post_init__(self) -> None:
        """Check the ends."""
        if self.high < self.low:
            raise StgTuneError(f"high ({self.high:g}) is below low ({self.low:g}); swap them")
        if self.scale == "log" and self.low <= 0:
            raise StgTuneError(f"low is {self.low:g}, but a log scale needs low > 0; raise it or use scale: linear")

    def clip(self, value: float) -> float:
        """The nearest value inside."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True, kw_only=True)
class StackRange:
    """How many and which blocks of one stack may be skipped."""

    max_layers: int
    """Most blocks skipped at a time, taken from the screened order."""
    max_offset: int = 0
    """How many of the best-ranked blocks may be passed over."""
    ops: tuple[SkipOp, ...]
    """Allowed operations."""
    why: str
    """The reason."""
    source: str
    """Where it comes from."""


@dataclass(frozen=True, kw_only=True)
class SecondPart:
    """A window in two parts, the second with a CFG scale and a strength of its own; one part stays possible."""

    split: Range
    """Share of the window's steps that the first part takes; each part has at least one."""
    cfg_scale: Range
    """``g`` of eq. 6 in the second part."""
    stg_factor: Range
    """Strength of every term in the second part over that in the first; 0: no term."""


@dataclass(frozen=True, kw_only=True)
class RestartRange:
    """Restart sampling (arXiv:2306.14878); none stays possible."""

    start: Range
    """Begin of the stretch that is repeated, fraction of the schedule."""
    stop: Range
    """Its end; the stretch has at least one step."""
    max_count: int
    """Most repetitions, 1 to 100."""
    why: str
    """The reason."""
    source: str
    """Where it comes from."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A choice among words, with the reason."""

    choices: tuple[str, ...]
    """Allowed words, at least one."""
    why: str
    """The reason."""
    source: str
    """Where it comes from."""


@dataclass(frozen=True, kw_only=True)
class Screen:
    """How single layers are tried one by one."""

    stg_scale: float
    """Strength at which every layer is tried."""
    why: str
    """The reason."""
    source: str
    """Where it comes from."""
