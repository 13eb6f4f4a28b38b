"""Video files: what goes in comes out, and nothing hostile gets through."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stg_tune import video as module
from stg_tune.errors import StgTuneError
from stg_tune.video import Video, read_video, write_mp4


def _clip(frames: int = 5, height: int = 32, width: int = 48, fps: int = 8) -> Video:
    """A bright square that moves over a smooth ramp: easy on the codec, so that the colours survive."""
    ramp = torch.linspace(40, 200, width).expand(height, width).to(torch.uint8)
    pixels = ramp[None, :, :, None].repeat(frames, 1, 1, 3)
    for index in range(frames):
        pixels[index, 8:24, 4 + 4 * index : 20 + 4 * index] = torch.tensor([220, 60, 30], dtype=torch.uint8)
    return Video(frames=pixels, fps=fps)


def test_an_mp4_keeps_length_size_rate_and_colours(tmp_path: Path) -> None:
    clip = _clip()
    back = read_video(write_mp4(clip, tmp_path / "new" / "clip.mp4"))
    assert back.frames.shape == clip.frames.shape
    assert back.fps == 8
    error = (back.frames.float() - clip.frames.float()).abs().mean()
    assert error < 5  # yuv420p halves the resolution of colour


def test_the_file_is_h264_in_yuv420p(tmp_path: Path) -> None:
    import av

    path = write_mp4(_clip(), tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")


def test_odd_sizes_are_padded_with_the_edge(tmp_path: Path) -> None:
    clip = _clip(height=31, width=47)
    back = read_video(write_mp4(clip, tmp_path / "odd.mp4"))
    assert back.frames.shape == (5, 32, 48, 3)
    last_row = back.frames[:, -1].float()
    assert (last_row - back.frames[:, -2].float()).abs().mean() < 5


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    assert read_video(write_mp4(_clip(frames=1), tmp_path / "still.mp4")).frames.shape[0] == 1


def test_an_animated_gif_is_read(tmp_path: Path) -> None:
    images = [Image.fromarray(frame.numpy()) for frame in _clip().frames]
    images[0].save(tmp_path / "clip.gif", save_all=True, append_images=images[1:], duration=125, loop=0)
    clip = read_video(tmp_path / "clip.gif")
    assert clip.frames.shape == (5, 32, 48, 3)
    assert clip.fps == 8


def test_a_folder_of_images_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    clip = _clip()
    for index in (3, 0, 4, 1, 2):
        Image.fromarray(clip.frames[index].numpy()).save(tmp_path / f"frame{index:03d}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    assert torch.equal(read_video(tmp_path).frames, clip.frames)


def test_floats_round_trip_exactly() -> None:
    clip = _clip()
    assert torch.equal(Video.from_float(clip.to_float(), clip.fps).frames, clip.frames)


def test_floats_are_clamped_and_nan_is_refused() -> None:
    frames = torch.zeros(1, 3, 2, 2)
    frames[0, 0, 0, 0], frames[0, 0, 0, 1] = 7.0, -3.0
    assert Video.from_float(frames, 8).frames[0, 0, :, 0].tolist() == [255, 0]
    frames[0, 1, 1, 1] = float("nan")
    with pytest.raises(StgTuneError, match="NaN"):
        Video.from_float(frames, 8)


@pytest.mark.parametrize(
    "frames", [torch.zeros(2, 4, 4, 3), torch.zeros(0, 4, 4, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8)]
)
def test_wrong_frames_are_refused(frames: torch.Tensor) -> None:
    with pytest.raises(StgTuneError, match="uint8"):
        Video(frames=frames, fps=8)


def test_a_rate_below_one_is_refused() -> None:
    with pytest.raises(StgTuneError, match="fps"):
        Video(frames=torch.zeros(1, 2, 2, 3, dtype=torch.uint8), fps=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.m3u8", b"#EXTM3U\nfile:///etc/hostname\n", "not a video format"),
        ("fake.mp4", b"#EXTM3U\nfile:///etc/hostname\n", "cannot read"),
        ("text.gif", b"hello", "cannot read"),
        ("empty.mp4", b"", "cannot read"),
        ("plain", b"x", "no suffix"),
    ],
)
def test_what_is_no_video_gives_one_message(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StgTuneError, match=message):
        read_video(tmp_path / name)


def test_a_missing_file_and_an_empty_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(StgTuneError, match="No such file"):
        read_video(tmp_path / "none.mp4")
    with pytest.raises(StgTuneError, match="no frame"):
        read_video(tmp_path)


def test_frames_of_several_sizes_are_refused(tmp_path: Path) -> None:
    for index, side in enumerate((8, 9)):
        Image.fromarray(np.zeros((side, 8, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    with pytest.raises(StgTuneError, match="frame 1 is 8x9"):
        read_video(tmp_path)


def test_a_video_over_the_limit_is_refused_before_it_is_all_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_mp4(_clip(frames=30), tmp_path / "long.mp4")
    monkeypatch.setattr(module, "MAX_BYTES", 32 * 48 * 3 * 10)
    with pytest.raises(StgTuneError, match="allowed"):
        read_video(path)


def test_an_unwritable_place_gives_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StgTuneError, match="cannot write"):
        write_mp4(_clip(), tmp_path / "file" / "clip.mp4")


def test_without_an_encoder_the_message_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "codecs_available", frozenset())
    with pytest.raises(StgTuneError, match="pip install"):
        write_mp4(_clip(), tmp_path / "clip.mp4")
