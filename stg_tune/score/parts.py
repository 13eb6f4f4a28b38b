"""What several scorers share: where they run, their files, and the networks that are loaded once."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.score.clip_models import VARIANTS, published_towers
from stg_tune.score.loading import read_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stg_tune.score.clip import ClipTowers
    from stg_tune.score.library import Library, Verified
    from stg_tune.score.placement import Placement

FEWER_FRAMES = 16
"""Frames of a video that networks for single pictures look at unless every one is asked for."""


class Parts:
    """Handed to every scorer's builder, third parties' included.

    Args:
        library: the files.
        placement: where networks run.
        clip: a name of ``clip_models.VARIANTS``.
        frames: at most so many evenly spaced frames of a video go through networks for single pictures; ``None``:
            every frame, as VBench does.
        fps: frames a second of the videos; only ``dynamic_degree`` asks.
        clip_config: architecture in place of the variant's own.
    """

    def __init__(
        self,
        library: Library,
        placement: Placement,
        *,
        clip: str = "vit-l-14",
        frames: int | None = FEWER_FRAMES,
        fps: float = 8.0,
        clip_config: Mapping[str, Any] | None = None,
    ) -> None:
        if clip not in VARIANTS:
            raise StgTuneError(f"unknown CLIP {clip!r}; known are {', '.join(VARIANTS)}")
        if frames is not None and frames < 1:
            raise StgTuneError(f"the number of frames to look at must be at least 1, got {frames}")
        self.library = library
        self.placement = placement
        self.clip = clip
        self.frames = frames
        self.fps = fps
        self._clip_config = clip_config

    @cached_property
    def clip_file(self) -> Verified:
        """The verified file of the CLIP."""
        return self.library.get(f"clip-{self.clip}")

    @cached_property
    def towers(self) -> ClipTowers:
        """The CLIP that all scorers share."""
        state = read_state(self.clip_file.path)
        variant = VARIANTS[self.clip]
        return published_towers(variant, state, self.placement, frames=self.frames, config=self._clip_config)


def short(*files: Verified) -> str:
    """What a ``ScoreKind`` carries: 16 digits over the checksums of all files behind a score."""
    if len(files) == 1:
        return files[0].sha256[:16]
    return hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()[:16]
