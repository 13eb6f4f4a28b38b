"""Restart sampling (arXiv:2306.14878) in an unmodified pipeline: its scheduler walks a stretch of the schedule again.

While a ``with`` lasts, ``set_timesteps`` lists the repeated steps several times, and the last step of a stretch is
followed by noise that leads back to where the stretch began. Only one-step Euler schedulers can do that: multistep
solvers carry predictions from step to step.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stg_tune.errors import StgTuneError
from stg_tune.guidance.passes import inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stg_tune.models.base import Architecture
    from stg_tune.records import Restart

_KINDS = {
    "FlowMatchEulerDiscreteScheduler": "flow",
    "EulerDiscreteScheduler": "variance_exploding",
    "EDMEulerScheduler": "variance_exploding",
}


@contextmanager
def restarted(scheduler: Any, restart: Restart) -> Iterator[None]:
    """Inside the ``with``, every run of ``scheduler`` repeats the stretch of ``restart``.

    Raises:
        StgTuneError: The scheduler is no Euler scheduler.
    """
    kind = _KINDS.get(type(scheduler).__name__)
    if kind is None or getattr(scheduler.config, "stochastic_sampling", False):
        raise StgTuneError(
            f"restart cannot go back in a {type(scheduler).__name__}: use one of {', '.join(_KINDS)} "
            "(pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)), or no restart"
        )
    walker = _Walker(scheduler, restart, kind)
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

    def __init__(self, scheduler: Any, restart: Restart, kind: str) -> None:
        self._scheduler = scheduler
        self._restart = restart
        self._kind = kind
        self._jumps: dict[int, tuple[float, float]] = {}
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
        timesteps, sigmas = scheduler.timesteps, scheduler.sigmas
        num_steps = len(timesteps)
        steps = repeated_steps(num_steps, self._restart)
        stretch = [
            step for step in range(num_steps) if inside(step, num_steps, self._restart.start, self._restart.stop)
        ]
        if not stretch:
            raise StgTuneError(
                f"restart [{self._restart.start:g}, {self._restart.stop:g}) covers none of the {num_steps} steps: "
                "widen it or use more steps"
            )
        back, end = stretch[0], stretch[-1]
        self._jumps = {
            position: (float(sigmas[end + 1]), float(sigmas[back]))
            for position, (step, after) in enumerate(zip(steps, [*steps[1:], num_steps], strict=True))
            if after <= step
        }
        order = torch.tensor(steps, device=timesteps.device)
        scheduler.timesteps = timesteps[order]
        scheduler.sigmas = torch.cat([sigmas[order.to(sigmas.device)], sigmas[num_steps:]])
        scheduler.stg_tune_steps = steps
        scheduler.num_inference_steps = len(steps)
        scheduler._begin_index = 0  # a repeated timestep cannot say where the run begins

    def _step(self, inner: Any, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        scheduler = self._scheduler
        position = scheduler.begin_index or 0 if scheduler.step_index is None else scheduler.step_index
        if position not in self._jumps:
            return inner(model_output, timestep, sample, *args, **kwargs)
        low, high = self._jumps[position]
        following = scheduler.sigmas[position + 1].clone()
        scheduler.sigmas[position + 1] = low
        try:
            output = inner(model_output, timestep, sample, *args, **kwargs)
        finally:
            scheduler.sigmas[position + 1] = following
        return _with_sample(output, self._noised(output[0], low, high, kwargs.get("generator")))

    def _noised(self, x: Tensor, low: float, high: float, generator: Any) -> Tensor:
        """The sample at noise level ``low`` taken back to ``high``."""
        noise = torch.randn(x.shape, generator=generator, device="cpu" if generator is None else generator.device)
        if getattr(self._scheduler.config, "invert_sigmas", False):
            low, high = 1 - low, 1 - high
        keep = (1 - high) / (1 - low) if self._kind == "flow" else 1.0
        added = math.sqrt(max(high**2 - (keep * low) ** 2, 0.0))
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
