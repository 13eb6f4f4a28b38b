"""Sizes that Open-Sora 1.2 knows by name, and the arithmetic between pixels, frames and latents (no torch).

The numbers are those of the release ``v1.2.0`` (https://github.com/hpcaitech/Open-Sora/tree/v1.2.0).
"""

from __future__ import annotations

from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping

SPATIAL_COMPRESSION = 8
"""Pixels a latent column or row stands for."""
TEMPORAL_COMPRESSION = 4
"""Frames a latent frame stands for, inside a chunk."""
FRAME_CHUNK = 17
"""Frames the video VAE codes at a time ..."""
LATENT_CHUNK = 5
"""... and the latent frames they become."""
IMAGE_FPS = 120
"""Frame rate the model is told for a single image."""

_T = TypeVar("_T")

# fmt: off
_RATIOS = ("3:8", "9:21", "12:25", "1:2", "9:17", "27:50", "9:16", "5:8", "2:3",
           "3:4", "1:1", "4:3", "3:2", "16:9", "17:9", "2:1", "50:27")
# fmt: on
_SIZES = {
    "144p": "117x312 125x291 133x277 135x270 139x262 141x260 144x256 151x241 156x234 "
    "166x221 192x192 221x165 235x156 256x144 263x139 271x135 277x132",
    "240p": "196x522 210x490 222x462 226x452 232x438 236x436 240x426 252x404 262x393 "
    "276x368 320x320 370x278 392x262 426x240 440x232 452x226 462x222",
    "360p": "294x784 314x732 332x692 340x680 350x662 352x652 360x640 380x608 392x588 "
    "416x554 480x480 554x416 588x392 640x360 660x350 678x340 692x332",
    "480p": "392x1046 420x980 444x925 452x904 466x880 470x870 480x854 506x810 522x784 "
    "554x738 640x640 740x555 784x522 854x480 880x466 906x454 924x444",
    "720p": "588x1568 628x1466 666x1388 678x1356 698x1318 706x1306 720x1280 758x1212 784x1176 "
    "832x1110 960x960 1108x832 1176x784 1280x720 1320x698 1358x680 1386x666",
    "1080p": "882x2352 942x2198 998x2080 1018x2036 1048x1980 1058x1958 1080x1920 1138x1820 1176x1764 "
    "1248x1664 1440x1440 1662x1246 1764x1176 1920x1080 1980x1048 2036x1018 2078x998",
    "2k": "1176x3136 1256x2930 1330x2770 1358x2716 1398x2640 1412x2612 1440x2560 1518x2428 1568x2352 "
    "1662x2216 1920x1920 2218x1664 2352x1568 2560x1440 2638x1396 2716x1358 2772x1330",
    "4k": "1764x4704 1886x4400 1996x4158 2036x4072 2096x3960 2118x3918 2160x3840 2276x3642 2352x3528 "
    "2494x3326 2880x2880 3326x2494 3528x2352 3840x2160 3958x2096 4072x2036 4156x1994",
}


def _table() -> Mapping[str, Mapping[str, tuple[int, int]]]:
    rows = {name: [tuple(map(int, size.split("x"))) for size in sizes.split()] for name, sizes in _SIZES.items()}
    return MappingProxyType(
        {
            name: MappingProxyType({ratio: (size[0], size[1]) for ratio, size in zip(_RATIOS, row, strict=True)})
            for name, row in rows.items()
        }
    )


IMAGE_SIZES: Mapping[str, Mapping[str, tuple[int, int]]] = _table()
"""Resolution name -> aspect ratio, ``height:width`` -> (height, width) in pixels."""

NUM_FRAMES: Mapping[str, int] = MappingProxyType(
    {f"{2**power}x": 51 * 2**power for power in range(5)}
    | {f"{2 ** (power + 1)}s": 51 * 2**power for power in range(5)}
)
"""Length name -> frames: ``1x`` ... ``16x`` in units of 51, ``2s`` ... ``32s`` in seconds of about 25 frames."""


def image_size(resolution: str, aspect_ratio: str) -> tuple[int, int]:
    """(height, width) in pixels, such as (240, 426) for ``240p`` and ``9:16``.

    Args:
        resolution: ``144p`` to ``4k``.
        aspect_ratio: ``height:width`` as in ``9:16`` (wide) and ``16:9`` (tall).

    Raises:
        StgTuneError: A name that is not in ``IMAGE_SIZES``.
    """
    return _named(aspect_ratio, _named(resolution, IMAGE_SIZES, "resolution"), "aspect ratio")


def num_frames(length: str | int) -> int:
    """Frames of a length: a name of ``NUM_FRAMES`` (``4s`` is 102), or a positive number as it is.

    Raises:
        StgTuneError: An unknown name or a number below 1.
    """
    count = int(length) if isinstance(length, int) or length.isdecimal() else _named(length, NUM_FRAMES, "length")
    if count < 1:
        raise StgTuneError(f"a video has at least 1 frame, got {length!r}")
    return count


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """(frames, height, width) of the latents of a video: 51 x 240 x 426 gives 15 x 30 x 53.

    Args:
        frames: Frames of the video, 1 or more; each chunk of 17 gives 5 latent frames, the rest one for every 4.
        height: Pixels, at least 8; rest rows are dropped.
        width: Pixels, at least 8; rest columns are dropped.
    """
    chunks, rest = divmod(frames, FRAME_CHUNK)
    latent_frames = chunks * LATENT_CHUNK + -(-rest // TEMPORAL_COMPRESSION)
    return latent_frames, height // SPATIAL_COMPRESSION, width // SPATIAL_COMPRESSION


def frames_of_latents(latent_frames: int) -> int:
    """Frames that whole latent chunks decode to: 0, 5, 10, ... give 0, 17, 34, ...

    Raises:
        StgTuneError: A count that is no multiple of 5.
    """
    chunks, rest = divmod(latent_frames, LATENT_CHUNK)
    if rest or latent_frames < 0:
        raise StgTuneError(f"{latent_frames} latent frames are no whole chunks: give a multiple of {LATENT_CHUNK}")
    return chunks * FRAME_CHUNK


def find_nearest_point(value: int, point: int, max_value: int) -> int:
    """The multiple of ``point`` nearest to ``value``, halves down, at most the last whole chunk before ``max_value``.

    Args:
        value: Latent frame, 0 or more.
        point: Chunk length in latent frames, 1 or more.
        max_value: Latent frames of the video.
    """
    below = value // point
    nearest = (value + (point - 1) // 2) // point
    return max(below, min(nearest, max_value // point - 1)) * point


def _named(name: str, table: Mapping[str, _T], what: str) -> _T:
    if name in table:
        return table[name]
    close = get_close_matches(name, table, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise StgTuneError(f"unknown {what} {name!r}{hint} Known: {', '.join(table)}")
