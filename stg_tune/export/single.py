"""For tools with one weak prediction in one window: what is kept of a preset, and what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stg_tune.export.timeline import Span, inside, spans, to_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.export.base import Journal
    from stg_tune.preset import Preset
    from stg_tune.records import Branch, GuidanceSpec, SkipOp, SkipTerm

Scope = Literal["none", "window", "all"]
"""Where a tool rescales: nowhere, in the steps that skip, in all steps."""
Space = Literal["prediction", "x0"]
"""What a tool takes the standard deviations of."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One term in one run of steps."""

    term: SkipTerm
    """What is skipped, and how strongly."""
    first: int
    """First step, from 0."""
    last: int
    """Last step, inclusive."""
    num_steps: int
    """Steps of the whole schedule."""
    cfg_scale: float
    """CFG in the window."""
    rescale: float
    """Rescale in the window."""
    runs: tuple[Span, ...]
    """The whole schedule."""

    @property
    def everywhere(self) -> bool:
        """Whether every step is inside."""
        return self.last - self.first + 1 == self.num_steps


def one_window(preset: Preset, journal: Journal) -> Window:
    """The longest run that skips layers, with its strongest term; everything else that skips is a loss."""
    runs = spans(preset, journal)
    skipping = [span for span in runs if span.terms]
    if not skipping:
        journal.refuse("it skips no layer, so there is nothing to write: set the CFG scale in the tool")
    kept = max(skipping, key=lambda span: span.last - span.first)
    for span in skipping:
        if span is not kept:
            journal.lose(f"what is skipped in {span.steps} is left out: one window with one setting is possible")
    term = max(kept.terms, key=lambda item: abs(item.stg_scale))
    for other in kept.terms:
        if other is not term:
            journal.lose(
                f"the term {other.name!r} (scale {other.stg_scale:g}) is left out: one weak prediction is possible"
            )
    return Window(
        term=term,
        first=kept.first,
        last=kept.last,
        num_steps=runs[-1].last + 1,
        cfg_scale=kept.cfg_scale,
        rescale=kept.rescale,
        runs=runs,
    )


def one_cfg(window: Window, journal: Journal) -> float:
    """The CFG scale of the window, for tools that have one for all steps."""
    for span in window.runs:
        if span.cfg_scale != window.cfg_scale:
            journal.lose(f"CFG is {span.cfg_scale:g} in {span.steps}; {window.cfg_scale:g} is written for all steps")
    return window.cfg_scale


def one_rescale(preset: Preset, window: Window, journal: Journal, *, scope: Scope, space: Space) -> float:
    """The rescale factor that can be written, 0 to 1; what acts otherwise is a loss."""
    if scope == "none":
        _lose_rescale(window.runs, journal)
        return 0.0
    for span in window.runs:
        skips = window.first <= span.first <= window.last
        expected = window.rescale if skips or (scope == "all" and _matters(span)) else 0.0
        if span.rescale != expected:
            journal.lose(f"rescale is {span.rescale:g} in {span.steps}, but {expected:g} acts there")
    if window.rescale:
        check_space(preset, journal, space)
    return window.rescale


def check_space(preset: Preset, journal: Journal, space: Space) -> None:
    """A rescale takes other standard deviations in another space, which no factor makes good."""
    own: Space = "x0" if preset.combine_space == "sample" else "prediction"
    if own != space:
        journal.lose(f"rescale takes standard deviations of the {space} here, of the {own} in the preset")


def note_whole_batch(rescale: float, journal: Journal) -> None:
    """A preset takes standard deviations over each video, some tools over all of a batch."""
    if rescale:
        journal.note("rescale takes standard deviations over the whole batch: exact for one video at a time")


def need_op(term: SkipTerm, journal: Journal, ops: Sequence[SkipOp]) -> SkipOp:
    """The operation, if the tool has it."""
    if term.skip_op not in ops:
        journal.refuse(f"it does {' or '.join(ops)}, not {term.skip_op}: the same numbers would mean something else")
    return term.skip_op


def need_branch(window: Window, journal: Journal, branch: Branch) -> None:
    """The branch of the tool, if need be with the loss of the scale."""
    own = window.term.branch
    if branch == "uncond" and window.cfg_scale == 1:
        journal.refuse("it perturbs the negative prediction, which is not computed at CFG 1: nothing would happen")
    if own == branch:
        return
    if branch == "uncond" and own == "cond":
        journal.lose(
            f"it perturbs the negative prediction instead of running a weak one with the prompt, so the scale "
            f"{window.term.stg_scale:g} is lost"
        )
        return
    journal.refuse(f"it has the branch {branch}, and no scale makes that equal to the branch {own} of the preset")


def from_window(
    term: SkipTerm | None,
    steps: tuple[int, int] | None,
    *,
    cfg_scale: float,
    rescale: float,
    num_steps: int,
    scope: Scope,
) -> GuidanceSpec:
    """The specification of a tool with one term in one window; ``steps`` are its first and last, ``None``: no step."""
    outside = Span(first=0, last=num_steps - 1, cfg_scale=cfg_scale, rescale=_where(cfg_scale, rescale, scope))
    if term is None or steps is None or not term.stg_scale:
        return to_spec((outside,), num_steps)
    held = Span(first=0, last=0, cfg_scale=cfg_scale, terms=(term,), rescale=0.0 if scope == "none" else rescale)
    return to_spec(inside(*steps, held, outside=outside, num_steps=num_steps), num_steps)


def _where(cfg_scale: float, rescale: float, scope: Scope) -> float:
    return rescale if scope == "all" and cfg_scale != 1 else 0.0


def _matters(span: Span) -> bool:
    return span.cfg_scale != 1 or bool(span.terms)


def _lose_rescale(runs: Sequence[Span], journal: Journal) -> None:
    for span in runs:
        if span.rescale:
            journal.lose(f"rescale {span.rescale:g} in {span.steps} is left out: there is none")
