"""Moving handwritten digits: the data behind the embedded models, with known ground truth.

The scans are the 1,797 real handwritten digits of scikit-learn's ``load_digits`` (8x8 pixels, 16 grey levels; UCI
"Optical Recognition of Handwritten Digits", CC BY 4.0). Every fifth scan is held out for the test split. A video shows
one scan in one of six colours on a mottled coloured ground, moving at constant speed in one of four directions; its
caption says colour, digit and direction ("a red seven moving left"), and nothing about size, speed, place or ground.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from stg_tune.records import Pair

Split = Literal["train", "test"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
DIRECTIONS = ("left", "right", "up", "down")

RGB = np.array(
    [[225, 45, 40], [40, 190, 70], [50, 95, 235], [240, 205, 50], [175, 65, 215], [240, 240, 235]], dtype=np.float32
)
"""Mean colour of the strokes, one row a name of ``COLOURS``, 0 to 255."""
HEADINGS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]], dtype=np.float32)
"""Unit vector (x to the right, y down) of each name of ``DIRECTIONS``."""

SIZE = 64
NUM_FRAMES = 17
"""Frames of a video unless more are asked for; the path is laid out for these, further ones go on beyond it."""
FPS = 8
DIGIT_PIXELS = (29.0, 38.0)
"""Least and greatest side of the scan on the canvas, in pixels."""
SPEED = (0.8, 1.6)
"""Least and greatest speed, in pixels a frame."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rendered videos with their ground truth."""

    frames: NDArray[np.uint8]
    """(n, frames, 64, 64, 3), 0 to 255."""
    digit: NDArray[np.int64]
    """(n,), index into ``DIGITS``."""
    colour: NDArray[np.int64]
    """(n,), index into ``COLOURS``."""
    direction: NDArray[np.int64]
    """(n,), index into ``DIRECTIONS``."""
    captions: list[str]
    """(n,), what the videos show."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a video shows what: all that is drawn at random but the colours."""

    digit: NDArray[np.int64]
    """(n,), index into ``DIGITS``."""
    colour: NDArray[np.int64]
    """(n,), index into ``COLOURS``."""
    direction: NDArray[np.int64]
    """(n,), index into ``DIRECTIONS``."""
    scans: NDArray[np.float32]
    """(n, 8, 8), 0 to 1."""
    side: NDArray[np.float32]
    """(n,), side of the scan on the canvas in pixels."""
    centres: NDArray[np.float32]
    """(n, frames, 2), x and y of the scan's centre in pixels."""


def caption(digit: int, colour: int, direction: int) -> str:
    """The caption of a combination of indices: ``a red seven moving left``."""
    return f"a {COLOURS[colour]} {DIGITS[digit]} moving {DIRECTIONS[direction]}"


def captions() -> list[str]:
    """All 240 captions of the grammar, in the order of ``truth``'s indices."""
    grid = np.ndindex(len(DIGITS), len(COLOURS), len(DIRECTIONS))
    return [caption(*indices) for indices in grid]


def captions_of(plan: Layout) -> list[str]:
    """The captions of the videos of a layout."""
    return [caption(*indices) for indices in zip(plan.digit, plan.colour, plan.direction, strict=True)]


def truth(text: str) -> tuple[int, int, int]:
    """Indices (digit, colour, direction) of a caption of the grammar; ``KeyError`` for any other text."""
    return _truths()[text]


def render(n: int, split: Split, seed: int, *, num_frames: int = NUM_FRAMES) -> Batch:
    """Render ``n`` videos with random attributes; the same arguments give the same videos.

    Another length changes nothing but the number of frames: a longer video goes on at the same speed.
    """
    rng = _generator(split, seed)
    plan = _lay_out(rng, n, split, num_frames)
    return Batch(
        frames=_paint(rng, plan),
        digit=plan.digit,
        colour=plan.colour,
        direction=plan.direction,
        captions=captions_of(plan),
    )


def layout(n: int, split: Split, seed: int, *, num_frames: int = NUM_FRAMES) -> Layout:
    """The layout of the videos that ``render`` gives for the same arguments, without painting them."""
    return _lay_out(_generator(split, seed), n, split, num_frames)


def render_caption(text: str, split: Split, seed: int) -> NDArray[np.uint8]:
    """One video (17, 64, 64, 3) of a caption; the same arguments give the same video, of no other seed's sequence.

    Raises:
        StgTuneError: The text is no caption of the grammar.
    """
    if text not in _truths():
        raise StgTuneError(
            f"{text!r:.80} is no caption of the digits: write <colour> <digit> <direction> as in "
            f"{caption(7, 0, 0)!r}, with {', '.join(COLOURS)}; {', '.join(DIGITS)}; {', '.join(DIRECTIONS)}"
        )
    rng = np.random.default_rng([seed, 0 if split == "train" else 1, *truth(text)])
    digit, colour, direction = (np.array([index]) for index in truth(text))
    frames: NDArray[np.uint8] = _paint(rng, _place(rng, digit, colour, direction, split, NUM_FRAMES))[0]
    return frames


def first_frame(pair: Pair) -> Image:
    """What a model that continues a picture is given for a test case: a held-out scan as the caption says.

    Raises:
        StgTuneError: The prompt is no caption of the grammar.
    """
    from PIL.Image import fromarray

    return fromarray(render_caption(pair.prompt, "test", pair.seed)[0])


def _generator(split: Split, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0 if split == "train" else 1])


def _lay_out(rng: np.random.Generator, n: int, split: Split, num_frames: int) -> Layout:
    counts = (len(DIGITS), len(COLOURS), len(DIRECTIONS))
    digit, colour, direction = (rng.integers(0, count, n) for count in counts)
    return _place(rng, digit, colour, direction, split, num_frames)


def _place(
    rng: np.random.Generator,
    digit: NDArray[np.int64],
    colour: NDArray[np.int64],
    direction: NDArray[np.int64],
    split: Split,
    num_frames: int,
) -> Layout:
    scans = _draw_scans(rng, digit, split)
    side = rng.uniform(*DIGIT_PIXELS, len(digit)).astype(np.float32)
    centres = _paths(rng, direction, side, num_frames)
    return Layout(digit=digit, colour=colour, direction=direction, scans=scans, side=side, centres=centres)


@functools.cache
def _truths() -> dict[str, tuple[int, int, int]]:
    grid = np.ndindex(len(DIGITS), len(COLOURS), len(DIRECTIONS))
    return {caption(*indices): (indices[0], indices[1], indices[2]) for indices in grid}


@functools.cache
def _scans() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images / 16).astype(np.float32), data.target.astype(np.int64)


def _draw_scans(rng: np.random.Generator, digit: NDArray[np.int64], split: Split) -> NDArray[np.float32]:
    images, labels = _scans()
    held_out = np.arange(len(labels)) % 5 == 0
    allowed = held_out if split == "test" else ~held_out
    pools = [np.flatnonzero(allowed & (labels == value)) for value in range(len(DIGITS))]
    return images[[rng.choice(pools[value]) for value in digit]]


def _paint(rng: np.random.Generator, plan: Layout) -> NDArray[np.uint8]:
    n = len(plan.scans)
    ground = _ground(rng, n)
    strokes = RGB[plan.colour] + rng.normal(0, 9, (n, 3)).astype(np.float32)
    frames = np.empty((n, plan.centres.shape[1], SIZE, SIZE, 3), dtype=np.uint8)
    for i in range(n):
        alpha = _masks(plan.scans[i], plan.centres[i], plan.side[i])[..., None]
        frames[i] = np.clip(ground[i] * (1 - alpha) + strokes[i] * alpha, 0, 255).round()
    return frames


def _paths(
    rng: np.random.Generator, direction: NDArray[np.int64], side: NDArray[np.float32], num_frames: int
) -> NDArray[np.float32]:
    """Centres (n, frames, 2) of straight paths whose first 17 frames stay on the canvas."""
    n = len(direction)
    heading = HEADINGS[direction]
    travel = rng.uniform(*SPEED, (n, 1)).astype(np.float32) * (NUM_FRAMES - 1)
    # the outermost rim of a scan is blank, so this keeps every stroke on the canvas
    room = (SIZE - 0.95 * side[:, None] - travel * np.abs(heading)) / 2
    middle = SIZE / 2 + room * rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    progress = np.arange(num_frames, dtype=np.float32) / (NUM_FRAMES - 1) - 0.5
    offset = progress[None, :, None] * (travel * heading)[:, None, :]
    return (middle[:, None, :] + offset).astype(np.float32)


def _ground(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Mottled grounds (n, 1, 64, 64, 3): a smooth random blend of two dim colours."""
    colours = rng.uniform(15, 120, (n, 2, 1, 1, 3)).astype(np.float32)
    coarse = rng.uniform(0, 1, (n, 5, 5)).astype(np.float32)
    weights = _hat(np.linspace(0, 4, SIZE, dtype=np.float32), 5)
    blend = (weights @ coarse @ weights.T)[..., None]
    ground: NDArray[np.float32] = (colours[:, 0] * blend + colours[:, 1] * (1 - blend))[:, None].astype(np.float32)
    return ground


def _masks(scan: NDArray[np.float32], centres: NDArray[np.float32], side: float) -> NDArray[np.float32]:
    """Opacity (frames, 64, 64) of one scan along its path, 0 to 1."""
    fine = _crisp_scan(scan.tobytes())
    pixels = np.arange(SIZE, dtype=np.float32) + 0.5
    position = (pixels - centres[..., None]) * (len(fine) / side) + (len(fine) - 1) / 2  # (frames, 2, 64)
    weights = _hat(position.astype(np.float32), len(fine))
    masks = weights[:, 1] @ fine @ np.swapaxes(weights[:, 0], 1, 2)
    return masks.astype(np.float32, copy=False)


@functools.lru_cache(maxsize=2048)
def _crisp_scan(raw: bytes) -> NDArray[np.float32]:
    """A scan at 40x40 with crisp strokes."""
    padded = np.pad(np.frombuffer(raw, dtype=np.float32).reshape(8, 8), 1)
    weights = _hat(np.linspace(0.6, 8.4, 40, dtype=np.float32), 10)
    fine = weights @ padded @ weights.T
    return (1 / (1 + np.exp(-11 * (fine - 0.47)))).astype(np.float32)


def _hat(position: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Weights (..., size) of linear interpolation at ``position``; nothing outside [-1, size]."""
    distance: NDArray[np.float32] = np.abs(position[..., None] - np.arange(size, dtype=np.float32))
    return np.maximum(0, 1 - distance)
