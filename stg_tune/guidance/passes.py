"""Which predictions a step needs, as named data: pure functions of the specification, the step and the schedule."""

from __future__ import annotations

from dataclasses import dataclass
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

    @property
    def terms(self) -> tuple[SkipTerm, ...]:
        """The active terms, in the order of the specification."""
        return tuple(item.skip for item in self.passes if item.skip is not None)

    @property
    def needs_negative(self) -> bool:
        """Whether the prediction with the negative prompt enters the result."""
        return any(item.prompt == "negative" for item in self.passes)

    @property
    def only_cfg(self) -> bool:
        """Whether the result is eq. 6 and nothing else."""
        return not self.terms and (self.rescale == 0 or not self.needs_negative)


def plan(spec: GuidanceSpec, step: int, num_steps: int) -> StepPlan:
    """What step ``step`` of ``num_steps`` (counted from 0, the noisiest) has to compute.

    Terms of scale 0 are left out, so they cost nothing; without CFG (scale 1) there is no negative pass.
    """
    segment = _segment_at(spec, step, num_steps)
    cfg_scale = spec.cfg_scale if segment.cfg_scale is None else segment.cfg_scale
    negative = (Pass(name=NEGATIVE, prompt="negative"),) if cfg_scale != 1 else ()
    weak = (
        Pass(name=f"without {term.name}", prompt="positive", skip=term) for term in segment.terms if term.stg_scale != 0
    )
    return StepPlan(
        passes=(Pass(name=PROMPTED, prompt="positive"), *negative, *weak),
        cfg_scale=cfg_scale,
        combination=segment.combination,
        rescale=segment.rescale,
    )


def covers(segment: Segment, step: int, num_steps: int) -> bool:
    """Whether ``start <= step / num_steps < stop``; both bounds have a slack of 1e-6 for rounded fractions."""
    return segment.start - _WINDOW_SLACK <= step / num_steps < segment.stop - _WINDOW_SLACK


def _segment_at(spec: GuidanceSpec, step: int, num_steps: int) -> Segment:
    inside = (segment for segment in spec.segments if covers(segment, step, num_steps))
    return next(inside, Segment())


def step_of(timestep: Tensor, timesteps: Tensor) -> int:
    """Index in the schedule of the timestep a denoiser received.

    Args:
        timestep: Any shape; rows or tokens that are already clean carry less than the step's value, so the largest
            counts.
        timesteps: ``(steps,)``, the schedule. Of equal entries the first is meant.

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
    return step
