"""The predictions of one step, and the passes that make them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stg_tune.guidance.combine import combine, relative_effect, rescaled, with_terms
from stg_tune.guidance.prefix import prompted_route, weak_route
from stg_tune.guidance.rows import predictions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stg_tune.guidance.clean import CleanRescale
    from stg_tune.guidance.combine import Rescale
    from stg_tune.guidance.effects import GuidedRun
    from stg_tune.guidance.grid import Grid
    from stg_tune.guidance.passes import Prompt, StepPlan
    from stg_tune.guidance.perturb import Layout, Stage
    from stg_tune.guidance.prefix import Route
    from stg_tune.guidance.rows import Call
    from stg_tune.guidance.saliency import InputBlur
    from stg_tune.models.base import Architecture
    from stg_tune.records import SkipTerm

Predictions = tuple[Tensor, ...]
"""The prediction and its side outputs (audio), in at least float32."""


class Routes:
    """The route of every term, remembered."""

    def __init__(self, layout: Layout, *, prefix_reuse: bool) -> None:
        self._layout = layout
        self._prefix_reuse = prefix_reuse
        self._known: dict[SkipTerm, Route] = {}

    def of(self, term: SkipTerm) -> Route:
        """The pass without the layers of ``term``; a negative prediction that is itself perturbed has no prefix."""
        if term not in self._known:
            reuse = self._prefix_reuse and term.branch != "uncond" and term.skip_op != "weak_model"
            starts = self._layout.starts
            self._known[term] = weak_route(term, self._layout.order, prefix_reuse=reuse, starts=starts)
        return self._known[term]

    def possible(self, term: SkipTerm) -> Iterator[Route]:
        """Every route of a term, or routes that start and act wherever one of its draws may."""
        yield self.of(term)
        if term.draw:
            for stack, indices in term.skip_layers.items():
                for index in indices:
                    yield self.of(replace(term, skip_layers={stack: (index,)}, draw=0))


@dataclass(kw_only=True)
class StepPredictions:
    """What one step has predicted so far."""

    plan: StepPlan
    """What it needs."""
    prompted: Predictions
    """``c``."""
    negative: Predictions | None = None
    """``u``."""
    weak: dict[str, Predictions] = field(default_factory=dict)
    """Term -> ``p``."""
    rescale: Rescale = rescaled
    """How the guided prediction is rescaled."""

    def finished(self) -> Tensor:
        """The guided prediction."""
        u = self.negative[0] if self.negative is not None and self.plan.has_negative else None
        return combine(self.plan, self.prompted[0], u, self._weak(0), self.rescale)

    def moved(self, which: int, base: Tensor) -> Tensor:
        """``base`` plus the directions of the terms: for predictions whose eq. 6 the pipeline computes itself."""
        c = self.prompted[which]
        return with_terms(self.plan, base, c, c, self._weak(which))

    def _weak(self, which: int) -> list[Tensor]:
        return [self.weak[term.name][which] for term in self.plan.terms]


class Runner:
    """Runs the passes of one denoiser."""

    def __init__(
        self,
        inner: Callable[..., Any],
        *,
        record: Architecture,
        stage: Stage,
        routes: Routes,
        run: GuidedRun,
        weak_model: nn.Module | None,
        grid: Callable[[Call], Grid],
        input_blur: InputBlur,
        clean_rescale: CleanRescale | None = None,
    ) -> None:
        self.inner = inner
        self.run = run
        self._grid = grid
        self._input_blur = input_blur
        self._clean_rescale = clean_rescale
        self._record = record
        self._stage = stage
        self._routes = routes
        self._weak_model = weak_model
        self._measured: set[str] = set()
        self._have: set[Prompt] = set()

    def full(
        self, call: Call, plan: StepPlan, *, prompted: slice | None = None, negative: slice | None = None
    ) -> tuple[Any, Predictions]:
        """The whole model on all rows of a call: its output, and the predictions in it.

        Args:
            call: Arguments.
            plan: Terms whose starts are remembered.
            prompted: Rows with the prompt, ``None``: there are none.
            negative: The same for the negative prompt.
        """
        stage = self._stage
        weak = [self._routes.of(term) for term in plan.terms]
        own_rows: dict[Prompt, slice | None] = {"positive": prompted, "negative": negative}
        self._have = {prompt for prompt, rows in own_rows.items() if rows is not None}
        stage.route = prompted_route(len(stage.route.ops), weak)
        stage.memory.rows, stage.memory.total = prompted, call.total
        stage.negative_memory.rows, stage.negative_memory.total = negative, call.total
        output = self.inner(*call.args, **call.kwargs)
        self.run.forwards += call.total
        return output, tuple(map(_wide, predictions_of(output, self._record)))

    def step(self, plan: StepPlan, call: Call, prompted: Predictions) -> StepPredictions:
        """A step whose prompted rows are those of ``call``, with the prediction for them."""
        if self._clean_rescale is None or not plan.rescale:
            return StepPredictions(plan=plan, prompted=prompted)
        return StepPredictions(plan=plan, prompted=prompted, rescale=self._clean_rescale(call, prompted[0]))

    def weak(self, call: Call, term: SkipTerm) -> Predictions:
        """The prediction without the layers of a term, or of the weak model."""
        if term.skip_op == "weak_model" and self._weak_model is not None:
            self.run.forwards += call.total
            return tuple(map(_wide, predictions_of(self._weak_model(*call.args, **call.kwargs), self._record)))
        route = self._routes.of(term)
        here = route.prompt in self._have
        self._stage.route = replace(route, start=route.start if here else 0, watch=frozenset())
        self._stage.grid = None if term.blur_sigma is None else self._grid(call)
        self.run.forwards += self._stage.route.share * call.total
        return tuple(map(_wide, predictions_of(self.inner(*call.args, **call.kwargs), self._record)))

    def add_weak(self, step: StepPredictions, call: Call, prompt: Prompt) -> None:
        """Computes and measures all terms of a step whose rows carry ``prompt``."""
        for item in step.plan.passes:
            if item.skip is not None and item.skip in step.plan.terms and item.prompt == prompt:
                step.weak[item.skip.name] = self.weak(self._degraded(call, item.skip, step), item.skip)
                self._measure(step, item.skip)

    def _degraded(self, call: Call, term: SkipTerm, step: StepPredictions) -> Call:
        if term.skip_op != "salient_blur":
            return call
        return self._input_blur(call, term, step.prompted[0], self._grid(call))

    def perturbed_negative(self, call: Call, term: SkipTerm) -> Predictions:
        """``u`` without the layers of a term; compared once a run with the whole ``u``, which costs one more pass."""
        found = self.weak(call, term)
        if term.name not in self._measured:
            self._measured.add(term.name)
            self._stage.route = prompted_route(len(self._stage.route.ops), ())
            whole = predictions_of(self.inner(*call.args, **call.kwargs), self._record)
            self.run.forwards += call.total
            self.run.add_effect(term.name, relative_effect(_wide(whole[0]), found[0]))
        return found

    def _measure(self, step: StepPredictions, term: SkipTerm) -> None:
        same_text = term.branch == "cond" or step.negative is None
        base = step.prompted if same_text else step.negative
        assert base is not None
        self.run.add_effect(term.name, relative_effect(base[0], step.weak[term.name][0]))


def _wide(prediction: Tensor) -> Tensor:
    return prediction.float() if prediction.dtype in (torch.float16, torch.bfloat16) else prediction
