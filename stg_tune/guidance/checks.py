"""Refuses a specification that a model cannot follow, before anything runs."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.guidance.attention import can
from stg_tune.guidance.passes import covers
from stg_tune.records import GuidanceSpec, SkipTerm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from stg_tune.guidance.perturb import Layout
    from stg_tune.models.base import Stack


def spec_of(spec_or_preset: Any) -> GuidanceSpec:
    """The specification itself, or the ``.spec`` of a preset; anything else raises ``StgTuneError``."""
    found = getattr(spec_or_preset, "spec", spec_or_preset)
    if not isinstance(found, GuidanceSpec):
        raise StgTuneError(
            f"guided() got {type(spec_or_preset).__name__} {spec_or_preset!r:.80}: give a GuidanceSpec, a loaded "
            "preset, or the path of a preset file."
        )
    return found


def rescales_clean(spec_or_preset: Any) -> bool:
    """Whether a preset means a rescale of the clean latents (``combine_space`` ``sample``), and has one."""
    space = getattr(spec_or_preset, "combine_space", None)
    return space == "sample" and any(segment.rescale for segment in spec_of(spec_or_preset).segments)


def terms_of(spec: GuidanceSpec) -> tuple[SkipTerm, ...]:
    """Every term of every segment, switched off or not."""
    return tuple(term for segment in spec.segments for term in segment.terms)


def check_depths(spec_or_preset: Any, depths: Mapping[str, int]) -> None:
    """A preset states the ``stacks`` its indices count in; a model of other depths raises ``StgTuneError``."""
    stated = getattr(spec_or_preset, "stacks", None)
    if stated is not None and dict(stated) != dict(depths):
        raise StgTuneError(
            f"the preset was made for a model with {_words(stated)}, but this one has {_words(depths)}: the layer "
            "indices mean other layers here. Use the model the preset names, or give guided() its `.spec`."
        )


def _words(depths: Mapping[str, int]) -> str:
    return " + ".join(f"{depth} {stack}" for stack, depth in depths.items()) + " blocks"


def check_layers(spec: GuidanceSpec, layout: Layout) -> None:
    """Every stack, index and operation a term names must exist in the denoiser; else ``StgTuneError``."""
    for term in terms_of(spec):
        for name, indices in term.skip_layers.items():
            stack = _known_stack(name, term, layout.stacks)
            blocks = [slot.module for place, slot in layout.slots.items() if place[0] == name]
            _check_range(indices, len(blocks), name, term)
            if term.skip_op not in ("residual", "weak_model"):
                _check_op([blocks[index] for index in indices], stack, term)


def check_terms(spec: GuidanceSpec, weak_model: object) -> None:
    """Terms that would do nothing, or need what is not there, raise ``StgTuneError``."""
    for segment in spec.segments:
        cfg_scale = spec.cfg_scale if segment.cfg_scale is None else segment.cfg_scale
        active = [term for term in segment.terms if term.stg_scale]
        replacing = [term.name for term in active if term.branch == "uncond"]
        if len(replacing) > 1:
            raise StgTuneError(
                f"the terms {', '.join(replacing)} of one segment are all on the branch 'uncond', but there is one "
                "negative prediction: put their layers into one term"
            )
        if replacing and cfg_scale == 1 and spec.cfg_source == "spec":
            raise StgTuneError(
                f"term {replacing[0]!r} perturbs the negative prediction, which cfg_scale 1 does not use: set "
                "cfg_scale above 1, or the branch 'cond'"
            )
        if segment.rescale and spec.cfg_source == "pipeline":
            raise StgTuneError(
                f"rescale {segment.rescale:g} needs the finished prediction, but cfg_source 'pipeline' leaves eq. 6 to "
                "the pipeline: set rescale to 0, or cfg_source to 'spec'"
            )
        for term in active:
            _check_term(term, spec, weak_model)


def _check_term(term: SkipTerm, spec: GuidanceSpec, weak_model: object) -> None:
    if term.branch == "from_guided" and spec.cfg_source == "pipeline":
        raise StgTuneError(
            f"term {term.name!r} starts from the guided prediction, which cfg_source 'pipeline' leaves to the "
            "pipeline: use the branch 'cond' or cfg_source 'spec'"
        )
    if term.skip_op == "weak_model" and weak_model is None:
        raise StgTuneError(
            f"term {term.name!r} needs a weaker model: give it to stg_tune.guidance.guided(..., weak_model=module)"
        )


def warn_idle_windows(spec: GuidanceSpec, num_steps: int) -> None:
    """Warns of every segment that contains no step of a schedule of ``num_steps``."""
    for segment in spec.segments:
        if not any(covers(segment, step, num_steps) for step in range(num_steps)):
            warnings.warn(
                f"segment [{segment.start:g}, {segment.stop:g}) covers none of the {num_steps} steps (they lie at "
                f"0, {1 / num_steps:.3g}, ... of the schedule), so it has no effect: widen it or use more steps.",
                UserWarning,
                stacklevel=2,
            )


def _known_stack(name: str, term: SkipTerm, stacks: Mapping[str, Stack]) -> Stack:
    if name not in stacks:
        close = get_close_matches(name, stacks, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise StgTuneError(f"term {term.name!r} skips layers of {name!r}; this model has {', '.join(stacks)}{hint}")
    return stacks[name]


def _check_range(indices: tuple[int, ...], depth: int, stack: str, term: SkipTerm) -> None:
    outside = [index for index in indices if index >= depth]
    if outside:
        raise StgTuneError(
            f"term {term.name!r} skips {stack} layer {outside[0]}, but this model has {depth} {stack} blocks: "
            f"0 to {depth - 1}"
        )


def _check_op(blocks: list[nn.Module], stack: Stack, term: SkipTerm) -> None:
    if term.skip_op == "salient_blur" and stack.axes == "time":
        raise StgTuneError(
            f"term {term.name!r} has skip_op 'salient_blur' in stack {stack.name!r}, whose attention runs over time "
            "and says nothing about places in a frame: name layers of another stack"
        )
    if all(can(block, stack, term.skip_op) for block in blocks):
        return
    if term.skip_op == "feed_forward":
        problem = f"{type(blocks[0]).__name__} has no feed-forward that can be skipped alone"
    elif term.skip_op == "attention":
        problem = f"{type(blocks[0]).__name__}.{stack.attention} cannot pass its values through"
    else:
        problem = f"{type(blocks[0]).__name__}.{stack.attention} cannot do that"
    raise StgTuneError(
        f"term {term.name!r} has skip_op {term.skip_op!r} in stack {stack.name!r}, but {problem}: use "
        "skip_op 'residual'"
    )
