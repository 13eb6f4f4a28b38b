import numpy as np
import pytest

from stg_tune.embedded import digits
from stg_tune.errors import StgTuneError


def test_the_grammar_is_complete_and_read_back():
    captions = digits.captions()
    assert len(set(captions)) == 240
    assert digits.truth("a red seven moving left") == (7, 0, 0)
    assert [digits.caption(*digits.truth(text)) for text in captions] == captions
    with pytest.raises(KeyError):
        digits.truth("a red seven")


def test_renders_repeat_and_differ_by_seed_and_split():
    first = digits.render(4, "train", seed=3)
    assert np.array_equal(first.frames, digits.render(4, "train", seed=3).frames)
    assert not np.array_equal(first.frames, digits.render(4, "train", seed=4).frames)
    assert not np.array_equal(first.frames, digits.render(4, "test", seed=3).frames)
    assert first.frames.shape == (4, 17, 64, 64, 3)
    assert first.captions == [digits.caption(*t) for t in zip(first.digit, first.colour, first.direction, strict=True)]


def test_no_scan_is_in_both_splits():
    rng = np.random.default_rng(0)
    wanted = np.repeat(np.arange(10), 60)
    train, test = ({scan.tobytes() for scan in digits._draw_scans(rng, wanted, split)} for split in ("train", "test"))
    assert len(train) > 200
    assert len(test) > 100
    assert not train & test


def test_the_centre_of_the_strokes_moves_as_the_caption_says():
    batch = digits.render(40, "test", seed=11)
    rows, columns = np.mgrid[: digits.SIZE, : digits.SIZE]
    for frames, colour, direction in zip(batch.frames.astype(float), batch.colour, batch.direction, strict=True):
        likeness = np.exp(-np.square((frames - digits.RGB[colour]) / 40).sum(-1))
        weight = likeness.sum((1, 2))
        x, y = ((likeness * axis).sum((1, 2)) / weight for axis in (columns, rows))
        moved = np.array([x[-1] - x[0], y[-1] - y[0]])
        expected = digits.HEADINGS[direction]
        assert moved @ expected > 0.7 * digits.SPEED[0] * 16
        assert abs(moved @ expected[::-1]) < 3


def test_strokes_have_the_colour_of_the_caption_and_stay_on_the_canvas():
    batch = digits.render(60, "train", seed=5)
    for frames, colour in zip(batch.frames.astype(float), batch.colour, strict=True):
        distance = np.sqrt(np.square(frames[..., None, :] - digits.RGB).sum(-1))
        strokes = distance.min(-1) < 45
        assert strokes.any((1, 2)).all(), "the digit is in every frame"
        assert np.bincount(distance.argmin(-1)[strokes]).argmax() == colour


def test_a_longer_video_is_the_same_one_that_goes_on():
    short, long = digits.render(3, "test", seed=2), digits.render(3, "test", seed=2, num_frames=19)
    assert long.frames.shape == (3, 19, 64, 64, 3)
    assert np.array_equal(long.frames[:, :17], short.frames)
    plan = digits.layout(3, "test", seed=2, num_frames=19)
    steps = np.diff(plan.centres, axis=1)
    assert np.allclose(steps[:, -2:], steps[:, :2], atol=1e-4), "at the same speed"


def test_a_caption_is_rendered_by_its_words_and_seed():
    first = digits.render_caption("a green three moving up", "test", 5)
    assert np.array_equal(first, digits.render_caption("a green three moving up", "test", 5))
    assert not np.array_equal(first, digits.render_caption("a green three moving up", "test", 6))
    assert not np.array_equal(first, digits.render_caption("a green three moving up", "train", 5))
    green = np.exp(-np.square((first.astype(float) - digits.RGB[1]) / 40).sum(-1))
    rows = (green * np.arange(64)[:, None]).sum((1, 2)) / green.sum((1, 2))
    assert rows[0] - rows[-1] > 8, "it moves up"


@pytest.mark.parametrize("text", ["", "a red seven", "a red seven moving left and right"])
def test_another_text_has_no_picture(text):
    with pytest.raises(StgTuneError, match="write <colour> <digit> <direction> as in 'a red seven moving left'"):
        digits.render_caption(text, "test", 0)
