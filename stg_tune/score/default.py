"""The scorers of real models: names in, one scorer out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.errors import NotReachableError, StgTuneError
from stg_tune.score.base import Measure
from stg_tune.score.composite import CompositeScorer
from stg_tune.score.library import Library
from stg_tune.score.parts import FEWER_FRAMES, Parts
from stg_tune.score.placement import Placement
from stg_tune.score.registry import DEFAULT, EXACT_CLIP, FAST_CLIP, files_of, offline, recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch


def default_scorers(
    device: str | torch.device | None = None,
    *,
    names: Sequence[str] = DEFAULT,
    fast: bool = False,
    frames: int | None = FEWER_FRAMES,
    fps: float = 8.0,
    weights: Path | None = None,
    offer: str = "",
) -> CompositeScorer:
    """Scorers with published weights, for videos of any model; missing files are downloaded.

    Args:
        device: where the networks run; ``None``: a GPU where torch sees one.
        names: scorers of ``stg_tune.score.registry``, third parties' included, in the order of the report.
        fast: CLIP ViT-B/32 in place of ViT-L/14: a twentieth of the cost, other numbers.
        frames: at most so many evenly spaced frames go through networks for single pictures; ``None``: every frame, as
            VBench does.
        fps: frames a second of the videos; only ``dynamic_degree`` asks.
        weights: local folder with the files; ``None``: of ``STG_TUNE_WEIGHTS``, else the usual caches.
        offer: what works without files, for the message when some cannot be had; empty: options of ``stg-tune score``
            and ``stg-tune evaluate``.

    Raises:
        NotReachableError: files are neither on this machine nor reachable; the message names them and what works
            without them.
        StgTuneError: unknown name, damaged file.
    """
    clip = FAST_CLIP if fast else EXACT_CLIP
    library = Library(weights)
    fetch_for(names, clip, library, offer=offer or offer_of_scorers())
    parts = Parts(library, Placement.automatic(device), clip=clip, frames=frames, fps=fps)
    return build(names, parts)


def offer_of_scorers() -> str:
    """The scorers that need no files, as an option."""
    return f"Scorers that need no files: --scorers {','.join(offline())}"


def fetch_for(names: Sequence[str], clip: str, library: Library, *, offer: str) -> None:
    """Have all files of some scorers, or raise ``NotReachableError`` with an offer of what needs none."""
    absent = library.missing(files_of(names, clip))
    if not absent:
        return
    try:
        library.fetch(absent)
    except NotReachableError as error:
        raise NotReachableError(f"{error}\n{offer}.") from error


def build(names: Sequence[str], parts: Parts) -> CompositeScorer:
    """One scorer of the scorers called ``names``; their files must be there.

    Raises:
        StgTuneError: unknown name, missing or damaged file, or what a third party built is no ``Measure``.
    """
    if not names:
        raise StgTuneError("no scorer was named: give at least one")
    measures = [_measure(name, parts) for name in names]
    return CompositeScorer(measures, device=parts.placement.device)


def _measure(name: str, parts: Parts) -> Measure:
    found = recipe(name)
    measure = found.load()(parts)
    if not isinstance(measure, Measure) or measure.kind.name != name:
        raise StgTuneError(
            f"the entry point of scorer {name!r} ({found.package}) returned {type(measure).__name__}: it must return a "
            f"stg_tune.score.Measure whose kind is named {name!r}"
        )
    return measure
