"""Restart sampling (arXiv:2306.14878) in an unmodified pipeline: its scheduler walks a stretch of the schedule again.

While a ``with`` lasts, ``set_timesteps`` lists the repeated steps several times, and the last step of a stretch is
followed by noise that leads back to where the stretch began. A multistep solver forgets its history there. Schedulers
whose pipelines carry predictions from step to step themselves cannot go back.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stg_tune.errors import StgTuneError
from stg_tune.guidance.noise import Share, shares_of
from stg_tune.guidance.passes import inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stg_tune.models.base import Architecture
    from stg_tune.records import Restart

_ONE_STEP = (
    "FlowMatchEulerDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "EDMEulerScheduler",
    "DDIMScheduler",
    "CogVideoXDDIMScheduler",
    "OpenSoraScheduler",
)
_MULTISTEP = ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")


@contextmanager
def restarted(scheduler: Any, restart: Restart) -> Iterator[None]:
    """Inside the ``with``, every run of ``scheduler`` repeats the stretch of ``restart``.

    Raises:
        StgTuneError: The scheduler cannot go back.
    """
    known = type(scheduler).__name__ in (*_ONE_STEP, *_MULTISTEP)
    if not known or getattr(scheduler.config, "stochastic_sampling", False):
        raise StgTuneError(
            f"restart cannot go back in a {type(scheduler).__name__}, which (or whose pipeline) carries predictions or "
            f"noise of its own from step to step: use one of {', '.join((*_ONE_STEP, *_MULTISTEP))} "
            "(pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)), or no restart"
        )
    walker = _Walker(scheduler, restart)
    names = ("set_timesteps", "step")
    own = {name: vars(scheduler)[name] for name in names if name in vars(scheduler)}
    scheduler.set_timesteps, scheduler.step = walker.set_timesteps, walker.step
    try:
        yield
    finally:
        for name in (*names, "stg_tune_steps"):
            vars(scheduler).pop(name, None)
        vars(scheduler).update(own)


def refuse_restart(record: Architecture) -> None:
    """Raises ``StgTuneError`` for a family that steps further outputs with a scheduler of its own."""
    if record.side_outputs:
        raise StgTuneError(
            f"restart cannot go back in the family {record.family}: its audio has another scheduler, which "
            "would not follow"
        )


class _Walker:
    """``set_timesteps`` and ``step`` of a scheduler that restarts."""

    def __init__(self, scheduler: Any, restart: Restart) -> None:
        self._scheduler = scheduler
        self._restart = restart
        self._position = -1
        self._jumps: dict[int, tuple[Share, Share]] = {}
        self._ends: dict[int, Any] = {}
        inner_set, inner_step = scheduler.set_timesteps, scheduler.step

        @wraps(inner_set)  # pipelines look at the signature
        def set_timesteps(*args: Any, **kwargs: Any) -> None:
            inner_set(*args, **kwargs)
            self._extend()

        @wraps(inner_step)
        def step(*args: Any, **kwargs: Any) -> Any:
            return self._step(inner_step, *args, **kwargs)

        self.set_timesteps = set_timesteps
        self.step = step

    def _extend(self) -> None:
        scheduler = self._scheduler
        num_steps = len(scheduler.timesteps)
        steps = repeated_steps(num_steps, self._restart)
        stretch = [
            step for step in range(num_steps) if inside(step, num_steps, self._restart.start, self._restart.stop)
        ]
        if not stretch:
            raise StgTuneError(
                f"restart [{self._restart.start:g}, {self._restart.stop:g}) covers none of the {num_steps} steps: "
                "widen it or use more steps"
            )
        shares = shares_of(scheduler)
        ends = [place for place, (step, after) in enumerate(zip(steps, [*steps[1:], num_steps], strict=True))
                if after <= step]  # fmt: skip
        self._position = -1
        self._jumps = dict.fromkeys(ends, (shares[stretch[-1] + 1], shares[stretch[0]]))
        self._lengthen(steps, stretch[-1], ends)

    def _lengthen(self, steps: list[int], last: int, ends: list[int]) -> None:
        scheduler = self._scheduler
        timesteps, sigmas = scheduler.timesteps, getattr(scheduler, "sigmas", None)
        order = torch.tensor(steps, device=timesteps.device)
        scheduler.timesteps = timesteps[order]
        scheduler.stg_tune_steps = steps
        if sigmas is None:  # such a scheduler finds its place by the timestep
            return
        self._ends = {place: sigmas[last + 1].clone() for place in ends}
        scheduler.sigmas = torch.cat([sigmas[order.to(sigmas.device)], sigmas[len(timesteps) :]])
        scheduler.num_inference_steps = len(steps)
        scheduler._begin_index = 0  # a repeated timestep cannot say where the run begins

    def _step(self, inner: Any, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        position = self._now(timestep)
        if position not in self._jumps:
            return inner(model_output, timestep, sample, *args, **kwargs)
        low, high = self._jumps[position]
        if position in self._ends:
            output = self._last_step(position, inner, model_output, timestep, sample, *args, **kwargs)
        else:
            output = inner(model_output, timestep, sample, *args, **kwargs)
        self._forget()
        return _with_sample(output, noised(output[0], low, high, kwargs.get("generator")))

    def _now(self, timestep: Any) -> int:
        """Position in the lengthened schedule; a step that is asked for twice stays where it is."""
        scheduler = self._scheduler
        if hasattr(scheduler, "sigmas"):
            return int(scheduler.begin_index or 0 if scheduler.step_index is None else scheduler.step_index)
        now, known = float(torch.as_tensor(timestep).flatten()[0]), scheduler.timesteps.tolist()
        self._position = next(place for place in range(self._position + 1, len(known)) if known[place] == now)
        return self._position

    def _last_step(self, position: int, inner: Any, *args: Any, **kwargs: Any) -> Any:
        """The step to the end of the stretch, though another sigma follows in the lengthened schedule."""
        scheduler, end = self._scheduler, self._ends[position]
        following = scheduler.sigmas[position + 1].clone()
        if not float(end) and hasattr(scheduler, "lower_order_nums"):
            scheduler.lower_order_nums = 0  # higher orders cannot reach sigma 0
        scheduler.sigmas[position + 1] = end
        try:
            return inner(*args, **kwargs)
        finally:
            scheduler.sigmas[position + 1] = following

    def _forget(self) -> None:
        scheduler = self._scheduler
        if type(scheduler).__name__ not in _MULTISTEP:
            return
        scheduler.lower_order_nums = 0
        scheduler.model_outputs = [None] * scheduler.config.solver_order
        if hasattr(scheduler, "last_sample"):
            scheduler.last_sample = None
            scheduler.timestep_list = [None] * scheduler.config.solver_order


def noised(x: Tensor, low: Share, high: Share, generator: Any) -> Tensor:
    """A sample at the noise level ``low`` taken back to ``high``."""
    noise = torch.randn(x.shape, generator=generator, device="cpu" if generator is None else generator.device)
    keep = high.signal / low.signal
    added = math.sqrt(max(high.noise**2 - (keep * low.noise) ** 2, 0.0))
    return keep * x + added * noise.to(x)


def repeated_steps(num_steps: int, restart: Restart) -> list[int]:
    """The steps in the order in which they are taken: ``0 1 2 3 4`` with ``1 2 3`` once more is ``0 1 2 3 1 2 3 4``."""
    stretch = [step for step in range(num_steps) if inside(step, num_steps, restart.start, restart.stop)]
    end = stretch[-1] + 1 if stretch else 0
    return [*range(end), *stretch * restart.count, *range(end, num_steps)]


def _with_sample(output: Any, sample: Tensor) -> Any:
    if isinstance(output, tuple):
        return (sample, *output[1:])
    output["prev_sample"] = sample
    return output
