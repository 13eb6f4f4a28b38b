"""``guided``: a pipeline, as it is, follows a ``GuidanceSpec`` inside a ``with``."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stg_tune.guidance.checks import check_depths, check_layers, check_terms, rescales_clean, spec_of, terms_of
from stg_tune.guidance.clean import CleanRescale
from stg_tune.guidance.effects import GuidedRun
from stg_tune.guidance.families import architecture_of
from stg_tune.guidance.foreign import refuse_caches, refuse_unguidable
from stg_tune.guidance.forward import BatchedForward
from stg_tune.guidance.grid import grid_of
from stg_tune.guidance.noise import check_estimates
from stg_tune.guidance.own_scale import OwnScale
from stg_tune.guidance.perturb import Stage, layout_of, replaced_forward, shells
from stg_tune.guidance.predictions import Routes, Runner
from stg_tune.guidance.prefix import prompted_route
from stg_tune.guidance.restart import refuse_restart, restarted
from stg_tune.guidance.rows import parameter_names
from stg_tune.guidance.saliency import InputBlur
from stg_tune.guidance.schedule import Clock
from stg_tune.guidance.separate import SeparateForward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stg_tune.models.base import Architecture
    from stg_tune.records import GuidanceSpec

    Forward = BatchedForward | SeparateForward


@contextmanager
def guided(
    pipe: Any,
    spec_or_preset: Any,
    *,
    architecture: Architecture | None = None,
    prefix_reuse: bool = True,
    weak_model: nn.Module | None = None,
) -> Iterator[GuidedRun]:
    """Inside the ``with``, every call of ``pipe`` samples with a guidance setting.

    Formulas: arXiv:2411.18664 eq. 6, 13-17, 20, 21; rescale of arXiv:2305.08891. The specification's ``cfg_scale``
    replaces the pipeline's own. Call the pipeline with any ``guidance_scale`` above 1 when the specification uses CFG.
    Nothing stays on the model afterwards, whatever ends the ``with``.

    Args:
        pipe: A pipeline with a ``scheduler`` that holds ``timesteps`` while it runs.
        spec_or_preset: ``GuidanceSpec``, or a preset. The rescale of a preset whose ``combine_space`` is ``sample`` is
            taken on the clean latents that predictions imply, any other one on the predictions.
        architecture: Where the blocks lie; ``None`` looks the pipeline's class up among the known families.
        prefix_reuse: Weak passes start at their first skipped block (exact, saves time, keeps one activation for each
            distinct start).
        weak_model: A weaker denoiser with the same arguments, for terms of ``skip_op`` ``weak_model``.

    Yields:
        The report of the run.

    Raises:
        StgTuneError: A layer, stack or operation does not exist; the pipeline is guided already, patched by another
            tool, or runs without CFG although the specification needs it; a preset rescales clean latents, which
            nobody can estimate in this pipeline.

    Warns:
        UserWarning: A window covers no step, or a term changed nothing.
    """
    spec = spec_of(spec_or_preset)
    record = architecture or architecture_of(pipe)
    check_terms(spec, weak_model)
    denoisers = _denoisers(pipe, record)
    for _, denoiser in denoisers:
        refuse_unguidable(denoiser)
    run = GuidedRun(terms_of(spec), _dtype(denoisers[0][1]))
    with ExitStack() as undo:
        if spec.restart is not None:
            refuse_restart(record)
            undo.enter_context(restarted(pipe.scheduler, spec.restart))
        clock = Clock(pipe, spec, record)
        forwards = [
            undo.enter_context(
                _installed(
                    denoiser,
                    pipe,
                    spec_or_preset,
                    record,
                    clock,
                    own=OwnScale(pipe, record, name),
                    run=run,
                    prefix_reuse=prefix_reuse,
                    weak_model=weak_model,
                )
            )
            for name, denoiser in denoisers
        ]
        yield run
        for forward in forwards:
            forward.close()
    run.warn_without_effect()


def _denoisers(pipe: Any, record: Architecture) -> list[tuple[str, nn.Module]]:
    """Every denoiser with the name of the pipeline's scale for it; an absent expert is left out."""
    names = [record.scale_names[min(k, len(record.scale_names) - 1)] for k in range(1 + len(record.experts))]
    found = [getattr(pipe, attribute, None) for attribute in (record.denoiser, *record.experts)]
    present = [(name, denoiser) for name, denoiser in zip(names, found, strict=True) if denoiser is not None]
    return present or [(names[0], getattr(pipe, record.denoiser))]


@contextmanager
def _installed(
    denoiser: nn.Module,
    pipe: Any,
    spec_or_preset: Any,
    record: Architecture,
    clock: Clock,
    *,
    own: OwnScale,
    run: GuidedRun,
    prefix_reuse: bool,
    weak_model: nn.Module | None,
) -> Iterator[Forward]:
    spec: GuidanceSpec = spec_of(spec_or_preset)
    layout = layout_of(denoiser, record)
    check_depths(spec_or_preset, {name: layout.depth(name) for name in layout.stacks})
    check_layers(spec, layout)
    if any(term.skip_op == "salient_blur" for term in terms_of(spec)):
        check_estimates(pipe.scheduler, record, who="skip_op 'salient_blur'", instead="use another skip_op")
    routes = Routes(layout, prefix_reuse=prefix_reuse)
    wanted = [route for term in terms_of(spec) if term.stg_scale for route in routes.possible(term)]
    if wanted:
        refuse_caches(denoiser)
    stage = Stage(prompted_route(len(layout.order), ()))
    clean = CleanRescale(pipe, record, denoiser, stage) if rescales_clean(spec_or_preset) else None
    names = parameter_names(denoiser)
    forward: list[Forward] = []

    def guide(inner: Callable[..., Any]) -> Forward:
        runner = Runner(
            inner,
            record=record,
            stage=stage,
            routes=routes,
            run=run,
            weak_model=weak_model,
            grid=lambda call: grid_of(call, record, denoiser),
            input_blur=InputBlur(pipe, record, layout, stage),
            clean_rescale=clean,
        )
        kind: type[BatchedForward | SeparateForward] = BatchedForward if record.calls == "batched" else SeparateForward
        forward.append(kind(runner, record=record, names=names, stage=stage, clock=clock, own=own))
        return forward[0]

    with replaced_forward(denoiser, guide), shells(layout, wanted, stage):
        yield forward[0]


def _dtype(denoiser: nn.Module) -> torch.dtype:
    return next((weight.dtype for weight in denoiser.parameters() if weight.is_floating_point()), torch.float32)
