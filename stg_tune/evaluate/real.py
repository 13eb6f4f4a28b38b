"""Real videos: what generated ones are compared with, and the pictures that an image-to-video model continues."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.video import FORMATS, read_video

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def real_videos(data: Path) -> list[Path]:
    """The videos below a folder, at least two, in the order of their names."""
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in FORMATS)
    if len(files) < 2:
        raise StgTuneError(f"{data} holds {len(files)} videos of {', '.join(FORMATS)}; at least two are needed")
    return files


def check_enough(data: Path, least: int) -> None:
    """Raise ``StgTuneError`` when there are too few real videos for a covariance of their features."""
    count = len(real_videos(data))
    if count < least:
        raise StgTuneError(
            f"{data} holds {count} videos, too few to compare with: the covariance of their features needs {least} or "
            "more; give a folder with more of them to --data"
        )


def fingerprint(data: Path) -> str:
    """16 hex digits over names and sizes of the videos below a folder; where the folder lies does not matter."""
    listed = [f"{path.relative_to(data).as_posix()} {path.stat().st_size}" for path in real_videos(data)]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class FirstFrames:
    """First frames of real videos, as the paper gives them to an image-to-video model."""

    videos: tuple[Path, ...]
    """Where they come from."""
    folder: Path
    """Where the pictures are written."""

    @classmethod
    def of(cls, data: Path, folder: Path, count: int) -> FirstFrames:
        """Of at most ``count`` videos, evenly spaced over those below ``data``, so that many classes are seen."""
        files = real_videos(data)
        taken = min(count, len(files))
        chosen = tuple(files[number * len(files) // taken] for number in range(taken))
        return cls(videos=chosen, folder=folder.absolute())

    @property
    def paths(self) -> Sequence[Path]:
        """One picture a video; not written yet."""
        return [self.folder / f"{number:05d}-{video.stem}.png" for number, video in enumerate(self.videos)]

    def write(self) -> None:
        """Write the pictures that are not there."""
        from PIL.Image import fromarray

        self.folder.mkdir(parents=True, exist_ok=True)
        for video, path in zip(self.videos, self.paths, strict=True):
            if not path.exists():
                part = path.with_suffix(".part")
                fromarray(read_video(video).frames[0].numpy()).save(part, format="PNG")
                part.replace(path)
