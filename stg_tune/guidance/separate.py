"""Stands in for the forward of a denoiser that is called twice a step: with the prompt, then with the negative one."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stg_tune.guidance.forward import rounded
from stg_tune.guidance.rows import Call, outputs_of, with_outputs

if TYPE_CHECKING:
    from torch import Tensor

    from stg_tune.guidance.own_scale import OwnScale
    from stg_tune.guidance.perturb import Stage
    from stg_tune.guidance.predictions import Predictions, Runner, StepPredictions
    from stg_tune.guidance.schedule import Clock, Schedule
    from stg_tune.models.base import Architecture


@dataclass(kw_only=True)
class HalfStep:
    """A step after its prompted call, before the negative one."""

    schedule: Schedule
    """The run it belongs to."""
    index: int
    """Which step of it."""
    text: Any
    """What the denoiser got for the prompt: the negative call has another."""
    step: StepPredictions | None
    """``None``: the whole step is left to the pipeline."""
    given: weakref.ref[Tensor] | None = None
    """What the pipeline got for ``c``, if it still has it."""
    finished: Tensor | None = None
    """The guided prediction, when it needs nothing negative."""
    form: Any = None
    """The output of the prompted call, for its form."""


class SeparateForward:
    """Returns the finished prediction of a step.

    The prompted call comes first, when ``u`` is not known yet: it returns ``c``. The negative call finishes the
    prediction ``x``, writes it over the tensor that was given as ``c`` and returns it too, so that the pipeline's own
    ``u + g (c - u)`` gives ``x`` for every ``g``. A pipeline that has made another tensor of ``c`` meanwhile gets the
    ``u`` for which its formula gives ``x``.
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
        self._half: HalfStep | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The denoiser's own call."""
        call = Call(args=args, kwargs=kwargs, names=self._names)
        half, self._half = self._half, None
        try:
            schedule = self._clock.schedule()
            self._own.begin(schedule)
            if self._own.does_all():
                self._refuse_half(half)
                return self._plain(call)
            self._stage.step = index = self._clock.step(call.timestep)
            text = call.given("encoder_hidden_states")
            if half and half.schedule is schedule and half.index == index and half.text is not text:
                return self._second(call, half)
            self._refuse_half(half)
            return self._first(call, HalfStep(schedule=schedule, index=index, text=text, step=None))
        finally:
            self._stage.reset()

    def close(self) -> None:
        """The end of the ``with``: raises ``StgTuneError`` when the last step lacked its negative call."""
        half, self._half = self._half, None
        self._refuse_half(half)

    def _refuse_half(self, half: HalfStep | None) -> None:
        if half and half.step and half.finished is None and not half.step.plan.own_scale:
            raise self._own.needs_cfg(half.schedule.cfg_scale)

    def _first(self, call: Call, half: HalfStep) -> Any:
        plan = half.schedule.plans[half.index]
        if self._own.never_negative and half.schedule.needs_negative:
            raise self._own.needs_cfg(half.schedule.cfg_scale)
        self._half = half
        if plan.only_cfg and (plan.own_scale or self._own.is_same(plan.cfg_scale)):
            return self._plain(call)
        output, prompted = self._runner.full(call, plan, prompted=slice(0, call.total))
        half.step = step = self._runner.step(plan, call, prompted)
        self._runner.add_weak(step, call, "positive")
        if plan.own_scale:
            found = step.moved(0, prompted[0])
        elif plan.needs_negative:
            found = prompted[0].clone()
        else:
            found = half.finished = step.finished()
        return self._given(output, found, half)

    def _given(self, output: Any, prediction: Tensor, half: HalfStep) -> Any:
        full = outputs_of(output)[0]
        answer = rounded(prediction, full, self._record)
        answer = answer.clone() if answer is prediction or answer is full else answer  # it will be written over
        half.given, half.form = weakref.ref(answer), output
        return with_outputs(output, [answer])

    def _second(self, call: Call, half: HalfStep) -> Any:
        step = half.step
        if step is None:
            return self._plain(call)
        if half.finished is not None:
            return self._answer(half.finished, half)
        negative = step.negative = self._negative(call, step)
        if step.plan.own_scale:
            return with_outputs(half.form, [self._rounded(step.moved(0, negative[0]), half)])
        self._runner.add_weak(step, call, "negative")
        return self._answer(step.finished(), half)

    def _negative(self, call: Call, step: StepPredictions) -> Predictions:
        replaced = step.plan.negative_skip
        if replaced is not None:
            return self._runner.perturbed_negative(call, replaced)
        return self._runner.full(call, step.plan, negative=slice(0, call.total))[1]

    def _answer(self, x: Tensor, half: HalfStep) -> Any:
        """``x`` in the place of ``c`` and of ``u``; or the ``u`` with which the pipeline's eq. 6 gives ``x``."""
        assert half.given is not None
        answer, given = self._rounded(x, half), half.given()
        if given is not None:
            given.copy_(answer)
            return with_outputs(half.form, [answer])
        c, g = self._as_given(half), self._own.value()
        return with_outputs(half.form, [self._rounded((x - g * c) / (1 - g), half)])

    def _as_given(self, half: HalfStep) -> Tensor:
        assert half.step is not None
        c = half.step.prompted[0] if half.finished is None else half.finished
        return self._rounded(c, half).to(c.dtype)[:, : c.shape[1]]

    def _rounded(self, prediction: Tensor, half: HalfStep) -> Tensor:
        return rounded(prediction, outputs_of(half.form)[0], self._record)

    def _plain(self, call: Call) -> Any:
        self._runner.run.forwards += call.total
        return self._runner.inner(*call.args, **call.kwargs)
