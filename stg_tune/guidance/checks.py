"""Refuses a specification that a model cannot follow, before anything runs."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.guidance.passes import covers
from stg_tune.guidance.perturb import attention_of, blocks_of
from stg_tune.records import GuidanceSpec, SkipTerm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from stg_tune.models.base import Architecture, Stack


def spec_of(spec_or_preset: Any) -> GuidanceSpec:
    """The specification itself, or the ``.spec`` of a preset; anything else raises ``StgTuneError``."""
    found = getattr(spec_or_preset, "spec", spec_or_preset)
    if not isinstance(found, GuidanceSpec):
        raise StgTuneError(
            f"guided() got {type(spec_or_preset).__name__} {spec_or_preset!r:.80}: give a GuidanceSpec, a loaded "
            "preset, or the path of a preset file."
        )
    return found


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


def check_layers(spec: GuidanceSpec, architecture: Architecture, denoiser: nn.Module) -> None:
    """Every stack, index and operation a term names must exist in the denoiser; else ``StgTuneError``."""
    stacks = {stack.name: stack for stack in architecture.stacks}
    for term in terms_of(spec):
        for name, indices in term.skip_layers.items():
            stack = _known_stack(name, term, stacks)
            blocks = blocks_of(denoiser, stack)
            _check_range(indices, len(blocks), name, term)
            if term.skip_op == "attention":
                _check_attention([blocks[index] for index in indices], stack, term)


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


def _check_attention(blocks: list[nn.Module], stack: Stack, term: SkipTerm) -> None:
    if any(attention_of(block, stack) is None for block in blocks):
        raise StgTuneError(
            f"term {term.name!r} skips attention in stack {stack.name!r}, but {type(blocks[0]).__name__}."
            f"{stack.attention} cannot pass its values through: use skip_op 'residual'"
        )
