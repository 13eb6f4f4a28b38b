"""``guided``: a pipeline, as it is, follows a ``GuidanceSpec`` inside a ``with``."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stg_tune.errors import StgTuneError
from stg_tune.guidance.checks import check_depths, check_layers, spec_of, terms_of, warn_idle_windows
from stg_tune.guidance.combine import combine, relative_effect
from stg_tune.guidance.effects import GuidedRun
from stg_tune.guidance.families import architecture_of
from stg_tune.guidance.passes import StepPlan, plan, step_of
from stg_tune.guidance.perturb import Stage, blocks_of, refuse_unguidable, replaced_forward, shells
from stg_tune.guidance.prefix import Place, Route, execution_order, prompted_route, weak_route
from stg_tune.guidance.rows import Call, Rows, parameter_names, prediction_of, rows_of, with_prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stg_tune.models.base import Architecture
    from stg_tune.records import GuidanceSpec, SkipTerm


@contextmanager
def guided(
    pipe: Any, spec_or_preset: Any, *, architecture: Architecture | None = None, prefix_reuse: bool = True
) -> Iterator[GuidedRun]:
    """Inside the ``with``, every call of ``pipe`` samples with a guidance setting.

    Formulas: arXiv:2411.18664 eq. 6, 13-17, 20, 21; rescale of arXiv:2305.08891. The specification's ``cfg_scale``
    replaces the pipeline's own. Call the pipeline with any ``guidance_scale`` above 1 when the specification uses CFG.
    Nothing stays on the model afterwards, whatever ends the ``with``.

    Args:
        pipe: A pipeline with a ``scheduler`` that holds ``timesteps`` while it runs.
        spec_or_preset: ``GuidanceSpec``, or an object with such a ``.spec``.
        architecture: Where the blocks lie; ``None`` looks the pipeline's class up among the known families.
        prefix_reuse: Weak passes start at their first skipped block (exact, saves time, keeps one activation for each
            distinct start).

    Yields:
        The report of the run.

    Raises:
        StgTuneError: A layer, stack or operation does not exist; the pipeline is guided already, patched by another
            tool, or runs without CFG although the specification needs it.

    Warns:
        UserWarning: A window covers no step, or a term changed nothing.
    """
    spec = spec_of(spec_or_preset)
    record = architecture or architecture_of(pipe)
    denoiser = getattr(pipe, record.denoiser)
    refuse_unguidable(denoiser)
    depths = {stack.name: len(blocks_of(denoiser, stack)) for stack in record.stacks}
    check_depths(spec_or_preset, depths)
    check_layers(spec, record, denoiser)
    order = execution_order(record, depths)
    routes = {term: weak_route(term, order, prefix_reuse=prefix_reuse) for term in terms_of(spec) if term.stg_scale}
    run = GuidedRun(terms_of(spec), _dtype(denoiser))
    with _installed(pipe, denoiser, spec, record, order, routes, run):
        yield run
    run.warn_without_effect()


@contextmanager
def _installed(
    pipe: Any,
    denoiser: nn.Module,
    spec: GuidanceSpec,
    record: Architecture,
    order: tuple[Place, ...],
    routes: dict[SkipTerm, Route],
    run: GuidedRun,
) -> Iterator[None]:
    stage = Stage(prompted_route(len(order), ()))
    names = parameter_names(denoiser)

    def guide(inner: Callable[..., Any]) -> Callable[..., Any]:
        return GuidedForward(
            inner, pipe=pipe, spec=spec, record=record, names=names, stage=stage, routes=routes, run=run
        )

    stacks = {stack.name: stack for stack in record.stacks}
    with replaced_forward(denoiser, guide), shells(denoiser, stacks, order, tuple(routes.values()), stage):
        yield


@dataclass(frozen=True, kw_only=True)
class _Schedule:
    source: Any
    timesteps: Tensor
    plans: tuple[StepPlan, ...]

    @property
    def needs_negative(self) -> bool:
        return any(step.needs_negative for step in self.plans)

    def plan_at(self, timestep: Tensor) -> StepPlan:
        return self.plans[step_of(timestep, self.timesteps)]


class GuidedForward:
    """Stands in for the denoiser's forward: returns the finished prediction of a step.

    In a call that holds prompted and negative rows both get the finished prediction ``x``, so that the pipeline's own
    ``u + g (c - u)`` gives ``x`` for every ``g``.
    """

    def __init__(
        self,
        inner: Callable[..., Any],
        *,
        pipe: Any,
        spec: GuidanceSpec,
        record: Architecture,
        names: tuple[str, ...],
        stage: Stage,
        routes: dict[SkipTerm, Route],
        run: GuidedRun,
    ) -> None:
        self._inner = inner
        self._pipe = pipe
        self._spec = spec
        self._record = record
        self._names = names
        self._stage = stage
        self._routes = routes
        self._run = run
        self._schedule: _Schedule | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The denoiser's own call."""
        call = Call(args=args, kwargs=kwargs, names=self._names)
        schedule = self._current_schedule()
        step = schedule.plan_at(call.timestep)
        rows = rows_of(call.total, self._record.rows, batched=runs_cfg(self._pipe))
        if rows.negative is None and schedule.needs_negative:
            raise _needs_cfg(self._spec, schedule)
        if step.only_cfg and self._pipeline_does(step, rows):
            self._run.forwards += rows.total
            return self._inner(*args, **kwargs)
        try:
            return self._guide(call, step, rows)
        finally:
            self._stage.reset()

    def _pipeline_does(self, step: StepPlan, rows: Rows) -> bool:
        return rows.negative is None or step.cfg_scale == getattr(self._pipe, "guidance_scale", None)

    def _guide(self, call: Call, step: StepPlan, rows: Rows) -> Any:
        weak_routes = [self._routes[term] for term in step.terms]
        self._stage.route = prompted_route(len(self._stage.route.ops), weak_routes)
        prompted_call = call.only(rows.prompted)
        output, full, negative = self._prompted(call if step.needs_negative else prompted_call, step, rows)
        channels = slice(0, self._record.prediction_channels)
        c, u = _wide(full[:, channels]), None if negative is None else _wide(negative[:, channels])
        weak = []
        for term, route in zip(step.terms, weak_routes, strict=True):
            p = _wide(self._weak(prompted_call, route, rows)[:, channels])
            self._run.add_effect(term.name, relative_effect(c, p))
            weak.append(p)
        finished = torch.cat([combine(step, c, u, weak).to(full.dtype), full[:, c.shape[1] :]], dim=1)
        return with_prediction(output, finished if rows.negative is None else torch.cat([finished, finished]))

    def _prompted(self, call: Call, step: StepPlan, rows: Rows) -> tuple[Any, Tensor, Tensor | None]:
        """The output of the first pass, its prompted rows and its negative rows."""
        own, negative = (rows.prompted, rows.negative) if step.needs_negative else (slice(0, rows.count), None)
        self._stage.memory.rows, self._stage.memory.total = own, call.total
        output = self._inner(*call.args, **call.kwargs)
        self._run.forwards += call.total
        prediction = prediction_of(output)
        return output, prediction[own], None if negative is None else prediction[negative]

    def _weak(self, call: Call, route: Route, rows: Rows) -> Tensor:
        self._stage.route = route
        self._run.forwards += route.share * rows.count
        return prediction_of(self._inner(*call.args, **call.kwargs))

    def _current_schedule(self) -> _Schedule:
        source = getattr(self._pipe.scheduler, "timesteps", None)
        if source is None or len(source) == 0:
            raise StgTuneError(
                "pipe.scheduler.timesteps is empty: call the pipeline inside the `with`, or scheduler.set_timesteps."
            )
        if self._schedule is None or self._schedule.source is not source:
            self._schedule = self._read_schedule(source)
        return self._schedule

    def _read_schedule(self, source: Any) -> _Schedule:
        timesteps = torch.as_tensor(source).detach().cpu()
        num_steps = len(timesteps)
        known = self._schedule
        if known is None or len(known.plans) != num_steps:
            warn_idle_windows(self._spec, num_steps)
        plans = tuple(plan(self._spec, step, num_steps) for step in range(num_steps))
        return _Schedule(source=source, timesteps=timesteps, plans=plans)


def runs_cfg(pipe: Any) -> bool:
    """Whether the pipeline sends negative rows: by its own word, else by its guidance scale, else assumed."""
    word = getattr(pipe, "do_classifier_free_guidance", None)
    if word is not None:
        return bool(word)
    scale = getattr(pipe, "guidance_scale", None)
    return scale is None or scale > 1


def _needs_cfg(spec: GuidanceSpec, schedule: _Schedule) -> StgTuneError:
    scale = next(step.cfg_scale for step in schedule.plans if step.needs_negative)
    return StgTuneError(
        f"the specification has cfg_scale {scale:g}, but the pipeline runs without CFG, so there is no negative "
        f"prediction: call the pipeline with guidance_scale > 1 (e.g. guidance_scale={max(spec.cfg_scale, 2):g}; the "
        "specification's scale is the one that is used), or set cfg_scale to 1."
    )


def _wide(prediction: Tensor) -> Tensor:
    return prediction.float() if prediction.dtype in (torch.float16, torch.bfloat16) else prediction


def _dtype(denoiser: nn.Module) -> torch.dtype:
    return next((weight.dtype for weight in denoiser.parameters() if weight.is_floating_point()), torch.float32)
