"""A preset as runs of equal steps: what every exporter starts from and every importer arrives at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stg_tune.records import Combination, GuidanceSpec, Segment, SkipTerm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.export.base import Journal
    from stg_tune.preset import Preset

_SLACK = 1e-6  # as the runtime reads windows: presets keep six digits


@dataclass(frozen=True, kw_only=True)
class Span:
    """Neighbouring steps that are guided in the same way."""

    first: int
    """First step, from 0."""
    last: int
    """Last step, inclusive."""
    cfg_scale: float
    """``g``; 1 is no CFG."""
    terms: tuple[SkipTerm, ...] = ()
    """Weak predictions with a scale other than 0."""
    combination: Combination = "independent"
    """``independent`` wherever it makes no difference."""
    rescale: float = 0.0
    """0 wherever it makes no difference."""

    @property
    def steps(self) -> str:
        """For messages: ``steps 3 to 7``."""
        return f"step {self.first}" if self.first == self.last else f"steps {self.first} to {self.last}"

    def same_as(self, other: Span) -> bool:
        """Whether both are guided in the same way."""
        return replace(self, first=0, last=0) == replace(other, first=0, last=0)


def spans(preset: Preset, journal: Journal) -> tuple[Span, ...]:
    """The runs of equal steps, from step 0 to the last; what no other tool knows goes into the journal."""
    _refuse_unknown(preset, journal)
    steps = preset.generation.num_inference_steps
    found: list[Span] = []
    for step in range(steps):
        span = _at(preset.spec, step, steps)
        if found and found[-1].same_as(span):
            found[-1] = replace(found[-1], last=step)
        else:
            found.append(span)
    return tuple(found)


def to_spec(runs: Sequence[Span], num_steps: int) -> GuidanceSpec:
    """The specification that gives these runs; neighbours that are equal become one segment."""
    cfg_scale = _usual_cfg(runs)
    plain = Span(first=0, last=0, cfg_scale=cfg_scale)
    merged: list[Span] = []
    for span in runs:
        if merged and merged[-1].same_as(span):
            merged[-1] = replace(merged[-1], last=span.last)
        else:
            merged.append(span)
    return GuidanceSpec(
        cfg_scale=cfg_scale,
        segments=tuple(_segment(span, cfg_scale, num_steps) for span in merged if not span.same_as(plain)),
    )


def inside(first: int, last: int, span: Span, *, outside: Span, num_steps: int) -> tuple[Span, ...]:
    """The runs of a schedule that is ``span`` from ``first`` to ``last`` and ``outside`` before and after."""
    pieces = (
        replace(outside, first=0, last=first - 1),
        replace(span, first=first, last=last),
        replace(outside, first=last + 1, last=num_steps - 1),
    )
    return tuple(piece for piece in pieces if piece.first <= piece.last)


def term_of(layers: dict[str, tuple[int, ...]], op: str, scale: float, branch: str = "cond") -> SkipTerm:
    """A term of an imported preset, called after its stacks."""
    name = "+".join(sorted(stack for stack, indices in layers.items() if indices)) or "none"
    # SkipTerm checks op and branch itself
    return SkipTerm(name=name, skip_layers=layers, skip_op=op, stg_scale=scale, branch=branch)  # type: ignore[arg-type]


def _at(spec: GuidanceSpec, step: int, num_steps: int) -> Span:
    here = step / num_steps
    held = (part for part in spec.segments if part.start - _SLACK <= here < part.stop - _SLACK)
    segment = next(held, Segment())
    cfg_scale = float(spec.cfg_scale if segment.cfg_scale is None else segment.cfg_scale)
    terms = tuple(term for term in segment.terms if term.stg_scale)
    cfg_scale, terms = _without_detour(cfg_scale, terms, segment.combination)
    only_prompted = cfg_scale == 1 and not terms
    return Span(
        first=step,
        last=step,
        cfg_scale=cfg_scale,
        terms=terms,
        combination=segment.combination if len(terms) > 1 else "independent",
        rescale=0.0 if only_prompted else float(segment.rescale),
    )


def _without_detour(
    cfg_scale: float, terms: tuple[SkipTerm, ...], combination: Combination
) -> tuple[float, tuple[SkipTerm, ...]]:
    """``x + s (x - p)`` with ``x = u + g (c - u)`` is ``u + (g + g s - s)(c - u) + s (c - p)``: the branch crossed."""
    total = sum(term.stg_scale for term in terms if term.branch == "from_guided")
    if not total or (combination == "orthogonal" and len(terms) > 1):
        return cfg_scale, terms
    straight = (replace(term, branch="crossed") if term.branch == "from_guided" else term for term in terms)
    return cfg_scale * (1 + total) - total, tuple(straight)


def _refuse_unknown(preset: Preset, journal: Journal) -> None:
    restart = preset.spec.restart
    if restart is not None:
        journal.lose(f"Restart ({restart.count} times from {restart.start:g} to {restart.stop:g}) is left out")
    if preset.spec.cfg_source == "pipeline":
        journal.lose(
            f"CFG is the pipeline's own for each step and frame; the one number {preset.spec.cfg_scale:g} is written"
        )
    for segment in preset.spec.segments:
        for term in segment.terms:
            if term.draw:
                journal.refuse(
                    f"the term {term.name!r} draws {term.draw} blocks anew in every step; no other tool does"
                )


def _usual_cfg(runs: Sequence[Span]) -> float:
    lengths: Counter[float] = Counter()
    for span in runs:
        lengths[span.cfg_scale] += span.last - span.first + 1
    return max(lengths, key=lambda scale: lengths[scale]) if lengths else 1.0


def _segment(span: Span, cfg_scale: float, num_steps: int) -> Segment:
    return Segment(
        start=round(span.first / num_steps, 6),
        stop=1.0 if span.last == num_steps - 1 else round((span.last + 1) / num_steps, 6),
        cfg_scale=None if span.cfg_scale == cfg_scale else span.cfg_scale,
        terms=span.terms,
        combination=span.combination,
        rescale=span.rescale,
    )
