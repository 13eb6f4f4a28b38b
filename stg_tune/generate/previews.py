"""A small clip of every setting on one pair, for Optuna's dashboard; no evaluation ever fails for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.video import shrunk, write_mp4

if TYPE_CHECKING:
    from pathlib import Path

    from stg_tune.records import GuidanceSpec, Pair
    from stg_tune.video import Video

HEIGHT = 256
"""Greatest height of a clip, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Previews:
    """Where clips are kept, and of which pair."""

    folder: Path
    """Absolute, inside the folder of the run. On a machine that does not see that folder no clip is kept."""
    pair: str
    """Key of the pair: the same for all settings, so that clips can be compared."""

    def keep(self, spec: GuidanceSpec, pair: Pair, video: Video) -> None:
        """Write ``folder/HASH`` if this is the pair and there is no such clip; a disk that is full costs the clip only.

        Args:
            spec: The setting; its hash is the name of the file, and of Optuna's artifact.
            pair: What the video shows.
            video: The video.
        """
        clip = self.folder / spec.hash()
        if pair.key != self.pair or clip.exists() or not self.folder.parent.is_dir():
            return
        part = clip.with_name(f".{clip.name}.{os.getpid()}")
        try:
            write_mp4(shrunk(video, HEIGHT), part).replace(clip)
        except (StgTuneError, OSError):
            _forget(part)


def _forget(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # the folder is gone or read-only: there is nothing to tidy up
        return
