"""Which predictions a step needs, as named data: pure functions of the specification, the step and the schedule."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from stg_tune.errors import StgTuneError
from stg_tune.records import Combination, GuidanceSpec, Segment, SkipTerm

if TYPE_CHECKING:
    from torch import Tensor

Prompt = Literal["positive", "negative"]

PROMPTED = "prompted"
NEGATIVE = "negative"

_WINDOW_SLACK = 1e-6  # presets store six digits: 0.666667 must exclude step 4 of 6 as 2/3 does
_TIMESTEP_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One prediction of the denoiser."""

    name: str
    """``prompted``, ``negative`` or ``without <term>``; unique within a step."""
    prompt: Prompt
    """Which text the rows carry."""
    skip: SkipTerm | None = None
    """The layers that are skipped; ``None``: the whole model runs."""


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The passes of one step and how their predictions are combined."""

    passes: tuple[Pass, ...]
    """``prompted`` first, then ``negative`` if it is needed, then one pass a term."""
    cfg_scale: float
    """``g`` of eq. 6 of arXiv:2411.18664."""
    combination: Combination
    """Eq. 20 or eq. 21."""
    rescale: float
    """``phi`` of arXiv:2305.08891, 0 to 1; 0 is off."""

    own_scale: bool = False
    """Eq. 6 is left to the pipeline, whose scale may change with the step and the frame."""

    @property
    def terms(self) -> tuple[SkipTerm, ...]:
        """The active terms that are added to eq. 6, in the order of the specification."""
        added = (item for item in self.passes if item.name not in (PROMPTED, NEGATIVE))
        return tuple(item.skip for item in added if item.skip is not None)

    @property
    def needs_negative(self) -> bool:
        """Whether a prediction with the negative prompt enters the result."""
        return any(item.prompt == "negative" for item in self.passes)

    @property
    def has_negative(self) -> bool:
        """Whether ``u`` of eq. 6 enters the result."""
        return any(item.name == NEGATIVE for item in self.passes)

    @property
    def negative_skip(self) -> SkipTerm | None:
        """The term whose layers are skipped in ``u`` of eq. 6 itself."""
        return next((item.skip for item in self.passes if item.name == NEGATIVE), None)

    @property
    def only_cfg(self) -> bool:
        """Whether the result is eq. 6 and nothing else."""
        plain = not self.terms and self.negative_skip is None
        return plain and (self.rescale == 0 or not self.needs_negative)


def plan(spec: GuidanceSpec, step: int, num_steps: int) -> StepPlan:
    """What step ``step`` of ``num_steps`` (counted from 0, the noisiest) has to compute.

    Terms of scale 0 are left out, so they cost nothing; without CFG (scale 1) there is no negative pass.
    """
    segment = _segment_at(spec, step, num_steps)
    cfg_scale = spec.cfg_scale if segment.cfg_scale is None else segment.cfg_scale
    own_scale = spec.cfg_source == "pipeline"
    terms = [drawn(term, step) for term in segment.terms if term.stg_scale != 0]
    replaced = next((term for term in terms if term.branch == "uncond"), None)
    negative = (Pass(name=NEGATIVE, prompt="negative", skip=replaced),) if own_scale or cfg_scale != 1 else ()
    weak = (_weak(term) for term in terms if term.branch != "uncond")
    return StepPlan(
        passes=(Pass(name=PROMPTED, prompt="positive"), *negative, *weak),
        cfg_scale=cfg_scale,
        combination=segment.combination,
        rescale=segment.rescale,
        own_scale=own_scale,
    )


def drawn(term: SkipTerm, step: int) -> SkipTerm:
    """The blocks that a term with ``draw`` skips in a step: the same for the same seed, anew in every step."""
    if not term.draw:
        return term
    pool = [(stack, index) for stack, indices in term.skip_layers.items() for index in indices]
    chosen = random.Random(f"{term.seed} {step}").sample(pool, term.draw)
    layers = {stack: tuple(sorted(index for name, index in chosen if name == stack)) for stack, _ in chosen}
    return replace(term, skip_layers=layers, draw=0, seed=0)


def _weak(term: SkipTerm) -> Pass:
    return Pass(name=f"without {term.name}", prompt="positive" if term.branch == "cond" else "negative", skip=term)


def covers(segment: Segment, step: int, num_steps: int) -> bool:
    """Whether ``start <= step / num_steps < stop``; both bounds have a slack of 1e-6 for rounded fractions."""
    return inside(step, num_steps, segment.start, segment.stop)


def inside(step: int, num_steps: int, start: float, stop: float) -> bool:
    """Whether ``start <= step / num_steps < stop``; both bounds have a slack of 1e-6 for rounded fractions."""
    return start - _WINDOW_SLACK <= step / num_steps < stop - _WINDOW_SLACK


def _segment_at(spec: GuidanceSpec, step: int, num_steps: int) -> Segment:
    inside = (segment for segment in spec.segments if covers(segment, step, num_steps))
    return next(inside, Segment())


def step_of(timestep: Tensor, timesteps: Tensor, position: int | None = None) -> int:
    """Index in the schedule of the timestep a denoiser received.

    Args:
        timestep: Any shape; rows or tokens that are already clean carry less than the step's value, so the largest
            counts.
        timesteps: ``(steps,)``, the schedule. Of entries that are equal in the precision of ``timestep`` the one at
            ``position`` is meant, else the first.
        position: Where the scheduler says it is, if it does.

    Raises:
        StgTuneError: No entry of the schedule is within 0.1 % of the timestep.
    """
    now = float(timestep.max())
    known = (timesteps.to(timestep.dtype) if timestep.is_floating_point() else timesteps).tolist()
    step = min(range(len(known)), key=lambda index: abs(known[index] - now))
    if not abs(known[step] - now) <= _TIMESTEP_TOLERANCE * max(1.0, abs(now)):
        raise StgTuneError(
            f"the denoiser received timestep {now:g}, which is not in pipe.scheduler.timesteps "
            f"({max(known):g} to {min(known):g}, {len(known)} steps). Guidance windows "
            "need the schedule: call the pipeline, not the denoiser, inside the `with`."
        )
    if position is not None and 0 <= position < len(known) and known[position] == known[step]:
        return position
    return step
