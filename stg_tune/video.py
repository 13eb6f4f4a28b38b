"""Video: the one thing that travels from generation to scoring, to files and back."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import av
import numpy as np
import torch
from torch import Tensor

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAX_BYTES = 2**31
"""Greatest size of a file read, and of the decoded frames of one video, in bytes."""
FORMATS = {
    ".mp4": "mov",
    ".m4v": "mov",
    ".mov": "mov",
    ".webm": "matroska",
    ".mkv": "matroska",
    ".avi": "avi",
    ".gif": "gif",
}
"""File suffix -> the container it must be: a file never chooses its own demuxer, since playlists open other files."""
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Suffixes of the images that count in a folder of frames."""
FOLDER_FPS = 8
"""Frames per second of a folder of images, which has no clock of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """Frames with a clock. Two videos are compared by their ``frames``, not by ``==``."""

    frames: Tensor
    """uint8, (T, H, W, 3), 0 to 255, on the CPU, T >= 1."""
    fps: int
    """Frames per second, >= 1."""

    def __post_init__(self) -> None:
        """Check type and shape."""
        shape = tuple(self.frames.shape)
        if self.frames.dtype != torch.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise StgTuneError(f"a video is uint8 (T, H, W, 3), got {self.frames.dtype} {shape}")
        if self.fps < 1:
            raise StgTuneError(f"fps must be at least 1, got {self.fps}")

    @classmethod
    def from_float(cls, frames: Tensor, fps: int) -> Video:
        """Build from floats (T, 3, H, W); values outside [0, 1] are clamped, NaN raises ``StgTuneError``."""
        if bool(torch.isnan(frames).any()):
            raise StgTuneError("the frames hold NaN, which is no colour")
        levels = (frames.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
        return cls(frames=levels.permute(0, 2, 3, 1).contiguous(), fps=fps)

    def to_float(self) -> Tensor:
        """float32 (T, 3, H, W) in [0, 1]; ``from_float`` gives back exactly these frames."""
        return self.frames.permute(0, 3, 1, 2).float() / 255


def write_mp4(video: Video, path: str | Path) -> Path:
    """Write H.264 in yuv420p, which every browser plays; odd heights and widths are padded by one edge pixel.

    Raises:
        StgTuneError: the folder cannot be written, or this build of PyAV has no H.264 encoder.
    """
    target = Path(path)
    if "libx264" not in av.codecs_available:
        raise StgTuneError(
            f"cannot write {target}: this PyAV ({av.__version__}) has no H.264 encoder (libx264); "
            "type: pip install --force-reinstall --only-binary :all: av"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            _encode(video, file)
    except (OSError, av.FFmpegError) as error:
        raise StgTuneError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def shrunk(video: Video, height: int) -> Video:
    """The video with at most ``height`` lines, its shape kept; a small one as it is."""
    if video.frames.shape[1] <= height:
        return video
    factor = height / video.frames.shape[1]
    small = torch.nn.functional.interpolate(video.to_float(), scale_factor=factor, mode="area")
    return Video.from_float(small, video.fps)


def read_video(path: str | Path) -> Video:
    """Read an MP4, MOV, WebM, MKV or GIF file, or a folder of images in the order of their names.

    Raises:
        StgTuneError: no such file, not a video, another format, or larger than ``MAX_BYTES`` (file or frames).
    """
    source = Path(path)
    try:
        return _read_folder(source) if source.is_dir() else _read_file(source)
    except (OSError, av.FFmpegError) as error:
        raise StgTuneError(f"cannot read {source}: {error.strerror or error}") from error
    except ValueError as error:
        raise StgTuneError(f"cannot read {source}: {error}") from error


def _encode(video: Video, file: BinaryIO) -> None:
    frames = _padded(video.frames.numpy())
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(video.fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # small clips are judged by eye: spend bytes, not colour
        stream.options = {"crf": "14", "preset": "medium", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _padded(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _, height, width, _ = frames.shape
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _read_file(path: Path) -> Video:
    container_format = FORMATS.get(path.suffix.lower())
    if container_format is None:
        raise StgTuneError(
            f"cannot read {path}: {path.suffix or 'no suffix'} is not a video format; "
            f"allowed are {', '.join(FORMATS)} and folders of {', '.join(IMAGES)}"
        )
    _limit(path.stat().st_size, path)
    with path.open("rb") as file, av.open(file, format=container_format) as container:
        if not container.streams.video:
            raise StgTuneError(f"cannot read {path}: there is no video stream in it")
        rate = container.streams.video[0].average_rate
        frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return _stacked(frames, fps=max(1, round(rate or FOLDER_FPS)), path=path)


def _read_folder(path: Path) -> Video:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
    return _stacked((_image(file) for file in files), fps=FOLDER_FPS, path=path)


def _image(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    _limit(path.stat().st_size, path)
    with Image.open(path) as image:
        _limit(image.width * image.height * 3, path)
        return np.asarray(image.convert("RGB"))


def _stacked(frames: Iterator[NDArray[np.uint8]], *, fps: int, path: Path) -> Video:
    kept: list[NDArray[np.uint8]] = []
    for frame in frames:
        kept.append(frame)
        _limit(kept[0].size * len(kept), path)
        if frame.shape != kept[0].shape:
            raise StgTuneError(
                f"cannot read {path}: frame {len(kept) - 1} is {frame.shape[1]}x{frame.shape[0]} pixels, "
                f"the first is {kept[0].shape[1]}x{kept[0].shape[0]}"
            )
    if not kept:
        raise StgTuneError(f"cannot read {path}: there is no frame in it")
    return Video(frames=torch.from_numpy(np.stack(kept)), fps=fps)


def _limit(size: int, path: Path) -> None:
    if size > MAX_BYTES:
        raise StgTuneError(
            f"cannot read {path}: {size / 2**30:.1f} GiB is more than the {MAX_BYTES / 2**30:.0f} allowed"
        )
