"""Which scorers there are: a table of names; packages add theirs by the entry point ``stg_tune.scorers`` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stg_tune.score.base import Measure
    from stg_tune.score.parts import Parts

GROUP = "stg_tune.scorers"
"""Entry point group: the name is the scorer's, the object takes ``Parts`` and returns a ``Measure``."""
NO_MOTION_SMOOTHNESS = (
    "motion_smoothness is not available: VBench's needs the frame interpolator AMT-S, whose code and weights are "
    "CC BY-NC 4.0, so that stg-tune neither contains nor fetches it. A package that has an interpolator can offer the "
    f"score by the entry point {GROUP} with stg_tune.score.smoothness.MotionSmoothness; see docs/scorers.md"
)
_BUILDERS = "stg_tune.score.builders"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One scorer that can be asked for by name."""

    name: str
    """Name of the scorer and of its score."""
    summary: str
    """One line for tables."""
    build: str
    """``module:function``; ``function(parts: Parts) -> Measure``."""
    files: tuple[str, ...] = ()
    """Names of published files; ``{clip}`` stands for the CLIP in use."""
    clips: tuple[str, ...] = ()
    """Names of the CLIPs that it exists for; empty: it does not matter."""
    package: str = "stg-tune"
    """Who provides it."""

    def needs(self, clip: str) -> tuple[str, ...]:
        """The names of its files with one CLIP.

        Raises:
            StgTuneError: It needs the other CLIP.
        """
        if self.clips and clip not in self.clips:
            raise StgTuneError(
                f"{self.name} is published for CLIP {' and '.join(self.clips)} only, not for {clip}: leave out --fast, "
                f"or {self.name}"
            )
        return tuple(name.format(clip=clip) for name in self.files)

    @property
    def uses_clip(self) -> bool:
        """Whether its number depends on which CLIP is in use, as far as its files say."""
        return any("{clip}" in name for name in self.files)

    def load(self) -> Callable[[Parts], Measure]:
        """Import the function that builds it.

        Raises:
            StgTuneError: A third party's module cannot be imported.
        """
        module, _, function = self.build.partition(":")
        try:
            builder: Any = import_module(module)
            for part in function.split("."):
                builder = getattr(builder, part)
        except (ImportError, AttributeError) as error:
            raise StgTuneError(f"scorer {self.name!r} of {self.package} cannot be loaded: {error}") from error
        return builder  # type: ignore[no-any-return]  # whatever the entry point names


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="aesthetic",
        summary="LAION aesthetic predictor v1 on CLIP, as VBench",
        build=f"{_BUILDERS}:aesthetic",
        files=("clip-{clip}", "laion-aesthetic-v1-{clip}"),
    ),
    Recipe(
        name="aesthetic_v2",
        summary="LAION improved aesthetic predictor on CLIP ViT-L/14",
        build=f"{_BUILDERS}:aesthetic_v2",
        files=("clip-{clip}", "laion-aesthetic-v2-{clip}"),
        clips=("vit-l-14",),
    ),
    Recipe(
        name="alignment",
        summary="CLIP similarity of prompt and video",
        build=f"{_BUILDERS}:alignment",
        files=("clip-{clip}",),
    ),
    Recipe(
        name="imaging_quality",
        summary="CLIP-IQA: good or bad, sharp or blurry, clean or noisy",
        build=f"{_BUILDERS}:imaging_quality",
        files=("clip-{clip}",),
    ),
    Recipe(
        name="musiq",
        summary="MUSIQ-SPAQ, VBench's imaging quality; licence of its weights not clear",
        build=f"{_BUILDERS}:musiq",
        files=("musiq-spaq",),
    ),
    Recipe(
        name="temporal_lpips",
        summary="LPIPS (alex) between consecutive frames",
        build=f"{_BUILDERS}:temporal_lpips",
        files=("alexnet", "lpips-alex-heads"),
    ),
    Recipe(name="motion", summary="speed from image gradients, no weights", build=f"{_BUILDERS}:motion"),
    Recipe(
        name="optical_flow",
        summary="mean RAFT-small flow; slow without a GPU",
        build=f"{_BUILDERS}:optical_flow",
        files=("raft-small",),
    ),
    Recipe(
        name="dynamic_degree",
        summary="does it move, 0 or 1, as VBench; slow without a GPU",
        build=f"{_BUILDERS}:dynamic_degree",
        files=("raft-large-things",),
    ),
    Recipe(
        name="temporal_flickering",
        summary="1 - change of pixels between frames, as VBench, no weights",
        build=f"{_BUILDERS}:temporal_flickering",
    ),
    Recipe(
        name="saturation", summary="clipped pixels and strength of colours, no weights", build=f"{_BUILDERS}:saturation"
    ),
)
"""The scorers of the package for real models."""

EXACT_CLIP, FAST_CLIP = "vit-l-14", "vit-b-32"
"""The CLIP that VBench takes, and the smaller one; ends of the names of their files."""

DEFAULT = (
    "aesthetic",
    "imaging_quality",
    "temporal_lpips",
    "alignment",
    "motion",
    "saturation",
    "temporal_flickering",
)
"""What is measured unless the user says otherwise: all of it permissive, one pass of CLIP and one of AlexNet."""

EMBEDDED = ("aesthetic", "alignment", "temporal_lpips", "imaging_quality", "motion", "saturation")
"""What ``embedded_scorers`` measures, by networks of its own."""


def recipes() -> dict[str, Recipe]:
    """Name -> recipe, the package's own first; a third party cannot replace one of them.

    Raises:
        StgTuneError: Two packages provide one name.
    """
    known = {recipe.name: recipe for recipe in RECIPES}
    for point in metadata.entry_points(group=GROUP):
        package = point.dist.name if point.dist else point.value
        if point.name in known:
            raise StgTuneError(
                f"the package {package} provides a scorer {point.name!r}, which "
                f"{known[point.name].package} has already: uninstall one of them"
            )
        known[point.name] = Recipe(name=point.name, summary=f"from {package}", build=point.value, package=package)
    return known


def recipe(name: str) -> Recipe:
    """The recipe called ``name``; an unknown name raises ``StgTuneError`` with close matches."""
    known = recipes()
    if name in known:
        return known[name]
    if name in unavailable():
        raise StgTuneError(unavailable()[name])
    close = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise StgTuneError(f"unknown scorer {name!r}: {hint}Known: {', '.join(known)}")


def unavailable() -> dict[str, str]:
    """Name -> why VBench's score is not here; a package may bring it."""
    absent = {"motion_smoothness": NO_MOTION_SMOOTHNESS}
    return {name: reason for name, reason in absent.items() if name not in recipes()}


def files_of(names: Sequence[str], clip: str) -> list[str]:
    """Names of the files behind some scorers, each once."""
    return list(dict.fromkeys(file for name in names for file in recipe(name).needs(clip)))


def offline() -> list[str]:
    """Names of the package's scorers that need no files."""
    return [recipe.name for recipe in RECIPES if not recipe.files]
