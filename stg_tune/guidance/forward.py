"""Stands in for the forward of a denoiser that gets prompted and negative rows in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stg_tune.errors import StgTuneError
from stg_tune.guidance.rows import Call, Rows, outputs_of, rows_of, with_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.guidance.own_scale import OwnScale
    from stg_tune.guidance.passes import StepPlan
    from stg_tune.guidance.perturb import Stage
    from stg_tune.guidance.predictions import Runner, StepPredictions
    from stg_tune.guidance.schedule import Clock
    from stg_tune.models.base import Architecture


class BatchedForward:
    """Returns the finished prediction of a step.

    In a call that holds prompted and negative rows both get the finished prediction ``x``, so that the pipeline's own
    ``u + g (c - u)`` gives ``x`` for every ``g``.
    """

    def __init__(
        self, runner: Runner, *, record: Architecture, names: tuple[str, ...], stage: Stage, clock: Clock, own: OwnScale
    ) -> None:
        self._runner = runner
        self._record = record
        self._names = names
        self._stage = stage
        self._clock = clock
        self._own = own
        self._last: StepPredictions | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The denoiser's own call."""
        call = Call(args=args, kwargs=kwargs, names=self._names)
        try:
            if any(call.given(name) not in (None, False) for name in self._own_passes()):
                return self._pipelines_own(call)
            return self._step(call)
        finally:
            self._stage.reset()

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _step(self, call: Call) -> Any:
        schedule = self._clock.schedule()
        self._own.begin(schedule)
        if self._own.does_all():
            return self._plain(call)
        self._stage.step = self._clock.step(call.timestep)
        plan = schedule.plans[self._stage.step]
        rows = rows_of(call.total, self._record.rows, batched=self._own.runs_cfg)
        if rows.negative is None and schedule.needs_negative:
            raise self._own.needs_cfg(schedule.cfg_scale)
        if not plan.own_scale and rows.negative is not None:
            self._own.refuse_change()
        if plan.only_cfg and (rows.negative is None or plan.own_scale or self._own.is_same(plan.cfg_scale)):
            self._last = None
            return self._plain(call)
        output, step = self._predicted(call, plan, rows)
        self._last = step
        return with_outputs(
            output, answers(step, rows, outputs_of(output, 1 + self._record.side_outputs), self._record)
        )

    def _plain(self, call: Call) -> Any:
        self._runner.run.forwards += call.total
        return self._runner.inner(*call.args, **call.kwargs)

    def _predicted(self, call: Call, plan: StepPlan, rows: Rows) -> tuple[Any, StepPredictions]:
        prompted = call.only(rows.prompted)
        replaced = plan.negative_skip if rows.negative is not None else None
        if rows.negative is not None and plan.has_negative and replaced is None:
            output, both = self._runner.full(call, plan, prompted=rows.prompted, negative=rows.negative)
            step = self._runner.step(plan, prompted, tuple(item[rows.prompted] for item in both))
            step.negative = tuple(item[rows.negative] for item in both)
        else:
            output, found = self._runner.full(prompted, plan, prompted=slice(0, rows.count))
            step = self._runner.step(plan, prompted, found)
        self._runner.add_weak(step, prompted, "positive")
        if rows.negative is not None:
            self._add_negative(step, call.only(rows.negative), replaced)
        return output, step

    def _add_negative(self, step: StepPredictions, call: Call, replaced: Any) -> None:
        if replaced is not None:
            step.negative = self._runner.perturbed_negative(call, replaced)
        self._runner.add_weak(step, call, "negative")

    def _own_passes(self) -> tuple[str, ...]:
        own_stg = (self._record.own_stg,) if self._record.own_stg else ()
        return (*self._record.own_passes, *own_stg)

    def _pipelines_own(self, call: Call) -> Any:
        """An extra pass ``p`` of the pipeline's own guidance.

        The pipeline will take ``x - p`` where ``c - p`` is meant, because it was given ``x`` for ``c``: so it is given
        ``p + x - c``.
        """
        step = self._last
        if step is not None and step.plan.terms and self._record.own_stg and call.given(self._record.own_stg):
            raise StgTuneError(
                "the pipeline's own STG is on as well as the specification's: call it with stg_scale=0.0 and "
                "audio_stg_scale=0.0 inside the `with`"
            )
        output = self._plain(call)
        if step is None:
            return output
        found = outputs_of(output, 1 + self._record.side_outputs)
        shifts = [self._given(step, which) - step.prompted[which] for which in range(len(found))]
        return with_outputs(output, [p + shift.to(p.dtype) for p, shift in zip(found, shifts, strict=True)])

    def _given(self, step: StepPredictions, which: int) -> Tensor:
        """What the pipeline was given for ``c``."""
        left_to_pipeline = step.plan.own_scale or which > 0
        return step.moved(which, step.prompted[which]) if left_to_pipeline else step.finished()


def answers(step: StepPredictions, rows: Rows, given: Sequence[Tensor], record: Architecture) -> list[Tensor]:
    """What the pipeline gets in place of each tensor of ``given``, for all rows of its call."""
    found = []
    for which, full in enumerate(given):
        if step.plan.own_scale or which > 0:
            c = step.moved(which, step.prompted[which])
            u = c if step.negative is None else step.moved(which, step.negative[which])
        else:
            c = u = step.finished()
        extra = full[rows.prompted if len(full) == rows.total else slice(None)]
        c, u = rounded(c, extra, record), rounded(u, extra, record)
        found.append(c if rows.negative is None else rows.arranged(c, u))
    return found


def rounded(answer: Tensor, given: Tensor, record: Architecture) -> Tensor:
    """A prediction as the pipeline expects it: in the denoiser's precision, with the further channels behind it."""
    answer = answer if record.wide else answer.to(given.dtype)
    channels = answer.shape[1]
    return answer if channels == given.shape[1] else torch.cat([answer, given[:, channels:].to(answer.dtype)], dim=1)
