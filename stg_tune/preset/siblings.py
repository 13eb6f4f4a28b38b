"""Settings of a sibling model, carried over by relative depth: a place to begin a search, not a result."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stg_tune.preset.record import Preset
    from stg_tune.records import GuidanceSpec, SkipTerm


def carried_over(preset: Preset, depths: Mapping[str, int]) -> GuidanceSpec:
    """The preset's setting with every layer at the same relative depth of another model.

    Block ``i`` of ``n`` becomes block ``round(i / (n - 1) * (m - 1))`` of ``m``: first stays first, last stays last. Of
    equal depths the setting comes back as it is.

    Args:
        preset: Made for ``preset.stacks``.
        depths: Stack name -> number of blocks of the model that the setting is wanted for.

    Raises:
        StgTuneError: The other model lacks a stack that the setting skips blocks of.
    """
    spec = preset.spec
    segments = [
        replace(segment, terms=tuple(_moved(term, preset, depths) for term in segment.terms))
        for segment in spec.segments
    ]
    return replace(spec, segments=tuple(segments))


def _moved(term: SkipTerm, preset: Preset, depths: Mapping[str, int]) -> SkipTerm:
    layers = {}
    for stack, indices in term.skip_layers.items():
        if stack not in depths:
            raise StgTuneError(
                f"the preset {preset.name or preset.model} skips blocks of the stack {stack!r}, which this model does "
                f"not have (it has {', '.join(depths)}): its layers mean nothing there"
            )
        layers[stack] = tuple(sorted({_same_depth(i, preset.stacks[stack], depths[stack]) for i in indices}))
    count = sum(map(len, layers.values()))
    return replace(term, skip_layers=layers, draw=min(term.draw, count))


def _same_depth(index: int, depth: int, other: int) -> int:
    if depth == other:
        return index
    return round(index / max(depth - 1, 1) * (other - 1))
