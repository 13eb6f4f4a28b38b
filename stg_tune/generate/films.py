"""Whole videos of some pairs, kept in the folder of the run by whoever makes them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stg_tune.documents import write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.video import write_mp4

if TYPE_CHECKING:
    from pathlib import Path

    from stg_tune.generate.generator import Generated
    from stg_tune.records import GuidanceSpec, Pair


@dataclass(frozen=True, kw_only=True)
class Films:
    """Which pairs are filmed, and where the videos go."""

    folder: Path
    """The folder of the run, absolute. On a machine that does not see it no video is kept."""
    pairs: frozenset[str]
    """Keys of the pairs."""
    default: str
    """Hash of the model's default setting."""

    def keep(self, spec: GuidanceSpec, pair: Pair, made: Generated) -> None:
        """Write the video if the pair is one of ``pairs``; a disk that is full costs the video only."""
        if pair.key in self.pairs and self.folder.is_dir():
            with suppress(StgTuneError, OSError):
                self.write(spec, pair, made)

    def write(self, spec: GuidanceSpec, pair: Pair, made: Generated) -> None:
        """Write the video and the effect of each term in each step; a clip that is there is whole.

        Args:
            spec: The setting.
            pair: What the video shows.
            made: The video and what guidance did to it.

        Raises:
            StgTuneError: The folder cannot be written.
        """
        clip = self.clip(spec, pair)
        if clip.exists():
            return
        part = clip.with_suffix(f".{os.getpid()}.part.mp4")
        try:
            if made.effect_series:
                series = {term: [float(value) for value in values] for term, values in made.effect_series.items()}
                write_atomic(RunFolder(path=self.folder).effect_series(spec, pair), json.dumps(series) + "\n")
            write_mp4(made.video, part).replace(clip)
        finally:
            with suppress(OSError):  # the folder is gone or read-only: there is nothing to tidy up
                part.unlink(missing_ok=True)

    def clip(self, spec: GuidanceSpec, pair: Pair) -> Path:
        """Where the video of a pair with a setting is."""
        kind = "default" if spec.hash() == self.default else f"tuned-{spec.hash()}"
        return RunFolder(path=self.folder).clip(pair, kind)
