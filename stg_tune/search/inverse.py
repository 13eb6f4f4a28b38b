"""Guidance settings -> the numbers an optimiser would have proposed them by, where there are such numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm
from stg_tune.search.encoding import rescale_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stg_tune.search.encoding import Encoding, Params
    from stg_tune.search.space import SearchSpace


def params_of(encoding: Encoding, spec: GuidanceSpec, *, num_steps: int | None = None) -> Params | None:
    """Numbers that ``encoding.decode`` turns into a setting that acts as ``spec`` does.

    Args:
        encoding: Space and screened orders.
        spec: Any setting.
        num_steps: Denoising steps with which it acts; ``None``: those of the encoding.

    Returns:
        The numbers, or ``None`` when a layer, an operation, a scale, a window or a field of ``spec`` lies outside.
    """
    plain = canonical(spec, num_steps or encoding.num_steps, encoding.space)
    tried = (_inside(encoding, guess) for guess in _guesses(encoding, plain))
    return next((params for params in tried if encoding.decode(params).hash() == plain.hash()), None)


def canonical(spec: GuidanceSpec, num_steps: int, space: SearchSpace) -> GuidanceSpec:
    """The same setting in the form of ``Encoding.decode``: windows of whole steps, names by stack, nothing idle.

    Args:
        spec: Any setting.
        num_steps: Denoising steps.
        space: Gives the order of the stacks, in which terms that do not depend on their order are listed.
    """
    segments: list[Segment] = []
    for segment in spec.segments:
        plain = _plain(segment, spec.cfg_scale, num_steps, list(space.stacks))
        if plain is None:
            continue
        last = segments[-1] if segments else None
        if last is not None and plain == replace(last, start=plain.start, stop=plain.stop) and last.stop == plain.start:
            segments[-1] = replace(last, stop=plain.stop)
        else:
            segments.append(plain)
    cfg_scale = spec.cfg_scale
    if len(segments) == 1 and segments[0].cfg_scale is not None and (segments[0].start, segments[0].stop) == (0, 1):
        cfg_scale, segments = segments[0].cfg_scale, [replace(segments[0], cfg_scale=None)]
    kept = tuple(segment for segment in segments if _acts(segment))
    return replace(spec, cfg_scale=cfg_scale, segments=kept, restart=_snapped(spec.restart, num_steps))


def _plain(segment: Segment, cfg_scale: float, num_steps: int, stacks: Sequence[str]) -> Segment | None:
    first, after = (_whole(end, num_steps) for end in (segment.start, segment.stop))
    if first >= after:
        return None
    terms = [replace(term, name=_name(term)) for term in segment.terms if term.stg_scale]
    if len({term.name for term in terms}) < len(terms):  # two terms in one stack: names must stay apart
        terms = [term for term in segment.terms if term.stg_scale]
    if segment.combination == "independent":
        terms.sort(key=lambda term: [stacks.index(stack) for stack in term.skip_layers if stack in stacks])
    return replace(
        segment,
        start=first / num_steps,
        stop=after / num_steps,
        cfg_scale=None if segment.cfg_scale == cfg_scale else segment.cfg_scale,
        terms=tuple(terms),
        combination=segment.combination if len(terms) > 1 else "independent",
    )


def _name(term: SkipTerm) -> str:
    return next(iter(term.skip_layers)) if len(term.skip_layers) == 1 else "joint"


def _whole(end: float, num_steps: int) -> int:
    return math.ceil(end * num_steps - 1e-9)


def _acts(segment: Segment) -> bool:
    return bool(segment.terms or segment.rescale or segment.cfg_scale is not None)


def _snapped(restart: Restart | None, num_steps: int) -> Restart | None:
    if restart is None:
        return None
    first, after = (_whole(end, num_steps) for end in (restart.start, restart.stop))
    return replace(restart, start=first / num_steps, stop=after / num_steps) if first < after else restart


def _inside(encoding: Encoding, guess: Mapping[str, float]) -> Params:
    ends = {knob.name: min(max(guess[knob.name], knob.low), knob.high) for knob in encoding.knobs()}
    return {knob.name: int(ends[knob.name]) if knob.whole else ends[knob.name] for knob in encoding.knobs()}


def _guesses(encoding: Encoding, spec: GuidanceSpec) -> Iterator[Mapping[str, float]]:
    """Numbers that may stand for a canonical setting; whoever asks decodes them again to see."""
    guess = _guess(encoding, spec) if spec.cfg_source == "spec" else None
    if guess is None:
        return
    yield guess
    if encoding.space.segments is not None and len(spec.segments) == 1:
        # a window that ends early is also the first part of a longer one whose second part does nothing
        (only,) = spec.segments
        for step in range(_whole(only.stop, encoding.num_steps) + 1, encoding.num_steps + 1):
            stop = step / encoding.num_steps
            split = (only.stop - only.start) / (stop - only.start)
            yield {**guess, "stop": stop, "parts": 2, "split": split, "second_factor": 0.0}


def _guess(encoding: Encoding, spec: GuidanceSpec) -> Mapping[str, float] | None:
    """The obvious numbers for a canonical setting; ``None`` when its layers or operations are not in the space."""
    space = encoding.space
    first = spec.segments[0] if spec.segments else Segment()
    ops = {term.skip_op for term in first.terms} or {space.ops[0]}
    layers = {stack: (term, chosen) for term in first.terms for stack, chosen in term.skip_layers.items()}
    if len(ops) > 1 or not ops <= set(space.ops) or not layers.keys() <= space.stacks.keys():
        return None
    op = next(iter(ops))
    guess: dict[str, float] = {"op": space.ops.index(op), "cfg_scale": spec.cfg_scale, "rescale": rescale_of(spec)}
    for stack in space.stacks:
        term, chosen = layers.get(stack, (None, ()))
        order = list(encoding.orders.get((stack, op), ()))
        if not set(chosen) <= set(order):
            return None
        guess[f"k_{stack}"] = len(chosen)
        guess[f"offset_{stack}"] = min((order.index(layer) for layer in chosen), default=0)
        guess[f"stg_scale_{stack}"] = term.stg_scale if term else space.screen.stg_scale
    joint = any(len(term.skip_layers) > 1 for term in first.terms)
    guess["joint"] = space.layouts.index("joint") if joint and "joint" in space.layouts else 0
    known = first.combination in space.combinations
    guess["combination"] = space.combinations.index(first.combination) if known else 0
    window = (first.start, spec.segments[-1].stop) if first.terms else (0.0, 1.0)
    guess["start"], guess["stop"] = window
    return {**guess, **_second(spec), **_restarts(spec.restart)}


def _second(spec: GuidanceSpec) -> dict[str, float]:
    if len(spec.segments) != 2:
        return {"parts": 1, "split": 0.0, "second_cfg_scale": spec.cfg_scale, "second_factor": 1.0}
    first, second = spec.segments
    length = second.stop - first.start
    own = second.cfg_scale if second.cfg_scale is not None else spec.cfg_scale
    strength = first.terms[0].stg_scale if first.terms else 1.0
    factor = second.terms[0].stg_scale / strength if second.terms else 0.0
    return {"parts": 2, "split": (first.stop - first.start) / length, "second_cfg_scale": own, "second_factor": factor}


def _restarts(restart: Restart | None) -> dict[str, float]:
    if restart is None:
        return {"restarts": 0, "restart_start": 0.0, "restart_stop": 1.0}
    return {"restarts": restart.count, "restart_start": restart.start, "restart_stop": restart.stop}
