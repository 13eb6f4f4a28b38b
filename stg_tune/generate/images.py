"""Pictures that a model continues."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from PIL.Image import Image

    from stg_tune.records import Pair

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""Formats that are read, by their content."""
MAX_BYTES = 64 * 2**20
"""Largest file."""
MAX_PIXELS = 2**26
"""Most pixels of a picture."""


def from_file(pair: Pair) -> Image:
    """The picture whose path is the prompt, in RGB; the pipeline brings it to the size of the video.

    Raises:
        StgTuneError: There is no such file, it is no picture of a known format, or it is too large.
    """
    from PIL import Image

    path = Path(pair.prompt).expanduser()
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise _no_picture(pair, f"there is no such file of up to {MAX_BYTES >> 20} MiB")
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _no_picture(pair, f"{picture.width}x{picture.height} pixels, {MAX_PIXELS} are allowed")
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _no_picture(pair, str(error)) from None


def _no_picture(pair: Pair, problem: str) -> StgTuneError:
    return StgTuneError(
        f"the prompt {pair.prompt!r:.120} is not the path of a picture ({problem}): this model continues pictures; "
        f"write one path a line into the prompts file, to {', '.join(FORMATS)}"
    )
