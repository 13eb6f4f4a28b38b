"""Where a run is: the schedule of the pipeline's scheduler, and the plan of each of its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stg_tune.errors import StgTuneError
from stg_tune.guidance.checks import warn_idle_windows
from stg_tune.guidance.passes import StepPlan, plan, step_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.models.base import Architecture
    from stg_tune.records import GuidanceSpec


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps of one run of a pipeline."""

    source: Any
    """``scheduler.timesteps``, by identity: a new one is a new run."""
    timesteps: Tensor
    """The same on the CPU, ``(steps,)``."""
    plans: tuple[StepPlan, ...]
    """What each step has to compute."""

    @property
    def needs_negative(self) -> bool:
        """Whether any step needs a prediction with the negative prompt."""
        return any(step.needs_negative and not step.own_scale for step in self.plans)

    @property
    def cfg_scale(self) -> float:
        """The first ``g`` for which a negative prediction is needed."""
        return next((step.cfg_scale for step in self.plans if step.needs_negative), 1.0)


class Clock:
    """Says which step of which schedule a call of the denoiser belongs to."""

    def __init__(self, pipe: Any, spec: GuidanceSpec, record: Architecture) -> None:
        self._pipe = pipe
        self._spec = spec
        self._record = record
        self._schedule: Schedule | None = None

    def schedule(self) -> Schedule:
        """The current schedule; raises ``StgTuneError`` when the scheduler has none."""
        source = getattr(self._pipe.scheduler, "timesteps", None)
        if source is None or len(source) == 0:
            raise StgTuneError(
                "pipe.scheduler.timesteps is empty: call the pipeline inside the `with`, or scheduler.set_timesteps."
            )
        if self._schedule is None or self._schedule.source is not source:
            self._schedule = self._read(source)
        return self._schedule

    def step(self, timestep: Tensor) -> int:
        """Index in the schedule of the step that is running.

        Args:
            timestep: What the denoiser received.
        """
        schedule = self.schedule()
        position = getattr(self._pipe.scheduler, "step_index", None)
        if self._record.clock == "scheduler":
            return min(position or 0, len(schedule.plans) - 1)
        return step_of(timestep, schedule.timesteps, position)

    def _read(self, source: Any) -> Schedule:
        timesteps = torch.as_tensor(source).detach().cpu()
        steps = _original_steps(self._pipe.scheduler, len(timesteps))
        num_steps = max(steps) + 1
        known = self._schedule
        if known is None or len(known.plans) != len(timesteps):
            warn_idle_windows(self._spec, num_steps)
        plans = tuple(plan(self._spec, step, num_steps) for step in steps)
        return Schedule(source=source, timesteps=timesteps, plans=plans)


def _original_steps(scheduler: Any, num_steps: int) -> Sequence[int]:
    """For every entry of the schedule the step it repeats; the schedule itself where nothing is repeated."""
    found: Sequence[int] | None = getattr(scheduler, "stg_tune_steps", None)
    return range(num_steps) if found is None or len(found) != num_steps else found
