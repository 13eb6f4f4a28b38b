"""``STGGuider``: the guidance of this package as a diffusers guider, for modular pipelines and HunyuanVideo-1.5."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stg_tune.errors import StgTuneError
from stg_tune.guidance.checks import check_depths, check_layers, check_terms, rescales_clean, spec_of, terms_of
from stg_tune.guidance.combine import combine, relative_effect
from stg_tune.guidance.effects import GuidedRun
from stg_tune.guidance.foreign import refuse_caches, refuse_unguidable
from stg_tune.guidance.passes import NEGATIVE, PROMPTED, Pass, StepPlan, plan
from stg_tune.guidance.perturb import Layout, Stage, layout_of, shells
from stg_tune.guidance.predictions import Routes
from stg_tune.guidance.prefix import prompted_route
from stg_tune.models.families import FAMILIES
from stg_tune.models.guider_base import BaseGuidance, GuiderOutput, register_to_config
from stg_tune.records import GuidanceSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.models.base import Architecture


class STGGuider(BaseGuidance):  # type: ignore[misc]
    """Follows a ``GuidanceSpec`` in a pipeline that takes guiders: ``pipe.update_components(guider=STGGuider(...))``.

    Each prediction is a call of its own; weak passes start at their first skipped block. The blocks are put back after
    every pass; when a pass raises, at the next step, or by ``close()``.
    """

    _input_predictions = ["pred_cond", "pred_uncond", "pred_weak"]  # noqa: RUF012 (the base class wants a list)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, spec: dict[str, Any], family: str, *, prefix_reuse: bool = True, enabled: bool = True) -> None:
        """A guider.

        Args:
            spec: ``Preset.to_dict()`` or ``GuidanceSpec.to_dict()``; plain data, so that ``save_pretrained`` can write
                it. Of a preset the depths and the space of its rescale are checked too.
            family: Name of an architecture record, e.g. ``wan``.
            prefix_reuse: Whether weak passes start at their first skipped block.
            enabled: ``False``: the prompted prediction alone.

        Raises:
            StgTuneError: The specification or the family is not known, or needs what a guider cannot do.
        """
        super().__init__(0.0, 1.0, enabled)
        self._setting = _setting(spec)
        self._spec = spec_of(self._setting)
        self._record = _record(family)
        self._prefix_reuse = prefix_reuse
        if self._spec.cfg_source != "spec" or self._spec.restart is not None:
            raise StgTuneError("a guider cannot restart, nor leave eq. 6 to the pipeline: use stg_tune.guided for that")
        if any(term.blur_sigma is not None for term in terms_of(self._spec)):
            raise StgTuneError("a guider does not see where tokens lie: leave blur_sigma out, or use stg_tune.guided")
        if rescales_clean(self._setting):
            raise StgTuneError(
                "a guider sees no latents, so it cannot rescale x0 as the preset asks (combine_space 'sample'): use "
                "stg_tune.guided, or give it the preset's `.spec` to rescale the prediction instead"
            )
        check_terms(self._spec, None)
        self._undo = ExitStack()
        self._run = GuidedRun(terms_of(self._spec), torch.float32)
        self._layouts: dict[int, tuple[nn.Module, Layout, Routes, Stage]] = {}

    def set_state(self, step: int, num_inference_steps: int, timestep: Tensor) -> None:
        """Diffusers calls this before every step."""
        self.close()
        super().set_state(step, num_inference_steps, timestep)

    def close(self) -> None:
        """Puts every block back and forgets the activations of the step."""
        self._undo.close()
        for *_, stage in self._layouts.values():
            stage.reset()

    def prepare_models(self, denoiser: nn.Module) -> None:
        """Diffusers calls this before every pass."""
        item = self._plan.passes[self._count_prepared]
        self._count_prepared += 1
        _, layout, routes, stage = self._layout_of(denoiser)
        stage.memory.rows = slice(None) if item.name == PROMPTED else None
        stage.negative_memory.rows = slice(None) if item.name == NEGATIVE else None
        weak = [routes.of(term) for term in self._plan.terms]
        stage.route = prompted_route(len(layout.order), weak) if item.skip is None else routes.of(item.skip)
        if not self._plan.has_negative and stage.route.prompt == "negative":
            stage.route = Routes(layout, prefix_reuse=False).of(item.skip) if item.skip else stage.route
        self._undo.enter_context(shells(layout, [*weak, stage.route], stage))

    def cleanup_models(self, denoiser: nn.Module) -> None:
        """Diffusers calls this after every pass."""
        self._undo.close()
        if self._count_prepared == len(self._plan.passes):
            self.close()

    def prepare_inputs(self, data: Mapping[str, tuple[Tensor, Tensor]]) -> list[Any]:
        """One batch a pass."""
        return [self._prepare_batch(data, _text(item), name) for name, item in self._named()]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: Mapping[str, Any]) -> list[Any]:
        """One batch a pass."""
        batch = self._prepare_batch_from_block_state
        return [batch(input_fields, data, _text(item), name) for name, item in self._named()]

    def forward(self, pred_cond: Tensor, pred_uncond: Tensor | None = None, **weak: Tensor) -> GuiderOutput:
        """Combines the predictions of a step, eq. 6, 13, 20, 21 of arXiv:2411.18664, in at least float32.

        Warns:
            UserWarning: After the last step, of a term that changed nothing.
        """
        wide = torch.promote_types(pred_cond.dtype, torch.float32)
        c, u = pred_cond.to(wide), None if pred_uncond is None else pred_uncond.to(wide)
        without = [p.to(wide) for p in weak.values()]
        self._measure(c, u, without, pred_cond.dtype)
        found = combine(self._plan, c, u, without)
        return GuiderOutput(pred=found.to(pred_cond.dtype), pred_cond=pred_cond, pred_uncond=pred_uncond)

    def effects(self) -> dict[str, float]:
        """Term -> mean of ``||c - p|| / ||c||`` over samples and active steps of the run so far.

        Terms on the branch ``uncond`` are not measured: that would cost a pass.
        """
        return self._run.effects()

    def _measure(self, c: Tensor, u: Tensor | None, weak: Sequence[Tensor], dtype: torch.dtype) -> None:
        if not self._step:
            self._run = GuidedRun(terms_of(self._spec), dtype)
        for term, p in zip(self._plan.terms, weak, strict=True):
            base = c if term.branch == "cond" or u is None else u
            self._run.add_effect(term.name, relative_effect(base, p))
        if self._num_inference_steps and self._step == self._num_inference_steps - 1:
            self._run.warn_without_effect()

    @property
    def is_conditional(self) -> bool:
        """Whether the pass that is prepared carries the prompt."""
        item: Pass = self._plan.passes[max(self._count_prepared - 1, 0)]
        return item.prompt == "positive"

    @property
    def num_conditions(self) -> int:
        """Number of passes of the step."""
        return len(self._plan.passes)

    @property
    def _plan(self) -> StepPlan:
        spec = self._spec if self._enabled else GuidanceSpec(cfg_scale=1.0)
        return plan(spec, self._step or 0, self._num_inference_steps or 1)

    def _named(self) -> list[tuple[str, Pass]]:
        fixed = {PROMPTED: "pred_cond", NEGATIVE: "pred_uncond"}
        passes = self._plan.passes
        return [(fixed.get(item.name, f"pred_weak_{index}"), item) for index, item in enumerate(passes)]

    def _layout_of(self, denoiser: nn.Module) -> tuple[nn.Module, Layout, Routes, Stage]:
        known = self._layouts.get(id(denoiser))
        if known is None or known[0] is not denoiser:
            refuse_unguidable(denoiser)
            refuse_caches(denoiser)
            layout = layout_of(denoiser, self._record)
            check_depths(self._setting, {name: layout.depth(name) for name in layout.stacks})
            check_layers(self._spec, layout)
            routes = Routes(layout, prefix_reuse=self._prefix_reuse)
            known = self._layouts[id(denoiser)] = (
                denoiser,
                layout,
                routes,
                Stage(prompted_route(len(layout.order), ())),
            )
        return known


@dataclass(frozen=True, kw_only=True)
class _Stated:
    """What a guider needs of a preset, under the names that a loaded preset has."""

    spec: GuidanceSpec
    stacks: Mapping[str, int]
    combine_space: str


def _setting(data: Mapping[str, Any]) -> GuidanceSpec | _Stated:
    """What plain data say: a preset has its specification under ``guidance``."""
    if "guidance" not in data:
        return GuidanceSpec.from_dict(data)
    try:
        stacks, space = data["model"]["stacks"], data["meaning"]["combine_space"]
    except (KeyError, TypeError) as error:
        raise StgTuneError(f"the preset is not complete, {error} is missing: give Preset.to_dict()") from None
    return _Stated(spec=GuidanceSpec.from_dict(data["guidance"]), stacks=stacks, combine_space=space)


def _text(item: Pass) -> int:
    return 0 if item.prompt == "positive" else 1


def _record(family: str) -> Architecture:
    records = {record.family: record for record in FAMILIES}
    if family not in records:
        raise StgTuneError(f"unknown family {family!r}: a guider knows {', '.join(records)}")
    return records[family]
