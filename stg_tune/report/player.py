"""Clips side by side, in step: inside the page while there is room, or as files beside it."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stg_tune.report.findings import Clip


class Films(Protocol):
    """Where the videos of a page are."""

    def __call__(self, clip: Clip) -> Mapping[str, str] | None:
        """Setting -> address of its video, or ``None`` when there is no room for this clip."""


@dataclass
class Embedded:
    """Videos in the page itself, as many as ``room`` is for."""

    room: int
    """Characters that are left for videos."""
    shrink: Callable[[Path], bytes] | None = None
    """Makes a smaller MP4 of one that takes more than its share; ``None``: leave such a clip out."""
    share: int = 1
    """Clips that the room is for; each may take its part."""

    def __call__(self, clip: Clip) -> Mapping[str, str] | None:
        """Read the videos of a clip and take them into the page."""
        contents = {name: read_clip(path) for name, path in films_of(clip).items()}
        if self.shrink is not None and sum(map(_encoded, contents.values())) * self.share > self.room:
            contents = {name: self.shrink(path) for name, path in films_of(clip).items()}
        need = sum(map(_encoded, contents.values()))
        self.share = max(self.share - 1, 1)
        if need > self.room:
            return None
        self.room -= need
        return {name: f"data:video/mp4;base64,{base64.b64encode(data).decode()}" for name, data in contents.items()}


@dataclass
class Beside:
    """Videos as files in a folder, which has to travel with the page."""

    folder: Path
    """Where they are written."""
    address: str
    """The folder as the page sees it."""
    count: int = field(default=0)
    """Clips written so far."""

    def __call__(self, clip: Clip) -> Mapping[str, str]:
        """Copy the videos of a clip into the folder."""
        self.count += 1
        films = {}
        for index, (name, path) in enumerate(films_of(clip).items()):
            file = f"pair-{self.count:02d}-{index}.mp4"
            _write(self.folder / file, read_clip(path))
            films[name] = quote(f"{self.address}/{file}")
        return films


def player(clips: Sequence[Clip], films: Films) -> str:
    """The clips with one set of controls; empty when there is room for none."""
    shown = [(clip, videos) for clip in clips if (videos := films(clip)) is not None]
    if not shown:
        return ""
    left = len(clips) - len(shown)
    more = (
        f"<p>{left} of {len(clips)} pairs did not fit into this page; "
        "<code>stg-tune report DIR --assets</code> shows all of them.</p>"
        if left
        else ""
    )
    figures = "".join(_pair(clip, videos) for clip, videos in shown)
    return f'<div class="player" data-player>{_CONTROLS}<div class="clips">{figures}</div>{more}</div>'


def films_of(clip: Clip) -> dict[str, Path]:
    """Setting -> file, the default first."""
    return {"default": clip.baseline, "tuned": clip.tuned, **clip.others}


def read_clip(path: Path) -> bytes:
    """The bytes of a video, or one message."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StgTuneError(f"cannot read the clip {path}: {error.strerror or error}") from error


_CONTROLS = """<div class="controls" role="group" aria-label="playback of all clips">
<button type="button" data-act="play" aria-pressed="false">play</button>
<button type="button" data-act="back" aria-label="one frame back">&#8249; frame</button>
<button type="button" data-act="on" aria-label="one frame on">frame &#8250;</button>
<input type="range" data-act="seek" min="0" max="1000" value="0" aria-label="position">
<label>speed <select data-act="speed"><option value="0.25">&#188;</option><option value="0.5">&#189;</option>
<option value="1" selected>1</option><option value="2">2</option></select></label>
<small>space: play, arrows: frame by frame</small></div>"""


def _pair(clip: Clip, videos: Mapping[str, str]) -> str:
    films = "".join(
        f"<div><span>{html.escape(name)}</span>"
        f'<video muted playsinline preload="auto" aria-label="{html.escape(f"{name}: {clip.prompt}")}" '
        f'src="{html.escape(address)}"></video></div>'
        for name, address in videos.items()
    )
    caption = f"<span><b>{html.escape(clip.prompt)}</b> <small>seed {clip.seed}</small></span>"
    zoom = '<button type="button" class="zoom" aria-pressed="false">enlarge</button>'
    return f'<figure><div class="films">{films}</div><figcaption>{caption} {zoom}</figcaption></figure>'


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise StgTuneError(f"cannot write the clip {path}: {error.strerror or error}") from error


def _encoded(content: bytes) -> int:
    return 4 * -(-len(content) // 3) + 200
