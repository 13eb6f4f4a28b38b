"""Pictures named by prompts: hostile files are refused by their content and size, with the prompt in the message."""

from pathlib import Path

import pytest
from PIL import Image

from stg_tune.errors import StgTuneError
from stg_tune.generate import images
from stg_tune.generate.images import from_file
from stg_tune.records import Pair


def _pair(path: Path) -> Pair:
    return Pair(prompt=str(path), seed=0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_picture_comes_in_rgb_whatever_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("L", (6, 4), 200).save(path)
    picture = from_file(_pair(path))
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (6, 4), (200, 200, 200))


def test_what_is_no_picture_is_an_error_that_names_the_prompt(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("a red seven moving left")
    gif = tmp_path / "film.png"
    Image.new("RGB", (4, 4)).save(gif, format="GIF")
    cut = tmp_path / "cut.png"
    Image.new("RGB", (64, 64), "red").save(cut)
    cut.write_bytes(cut.read_bytes()[:60])
    for path in (tmp_path / "missing.png", tmp_path, text, gif, cut):
        with pytest.raises(StgTuneError, match=r"is not the path of a picture .* one path a line") as caught:
            from_file(_pair(path))
        assert repr(str(path))[:100] in str(caught.value)


def test_a_huge_picture_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 20)).save(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 399)
    with pytest.raises(StgTuneError, match="20x20 pixels, 399 are allowed"):
        from_file(_pair(path))
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(StgTuneError, match="no such file"):
        from_file(_pair(path))
