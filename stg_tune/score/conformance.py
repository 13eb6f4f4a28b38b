"""What every measure must do, as checks that a package runs in its own tests.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_measure(check):
        check(my_measure)

A check raises ``AssertionError`` with the fault. The measure is asked through ``CompositeScorer``, as the search does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stg_tune.score.base import Measure, View
from stg_tune.score.composite import CompositeScorer

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.records import Score

PROMPT = "a red ball that rolls to the right"
HEIGHT, WIDTH, FRAMES = 144, 160, 5
DIGITS = 16


def moving_ball(frames: int = FRAMES, seed: int = 0) -> Tensor:
    """A coloured ball that crosses a textured ground, (frames, 3, 144, 160) in [0, 1]: something to score."""
    rng = torch.Generator().manual_seed(seed)
    ground = torch.nn.functional.interpolate(
        torch.rand(1, 3, HEIGHT // 8, WIDTH // 8, generator=rng), (HEIGHT, WIDTH), mode="bicubic"
    )[0]
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    colour = torch.rand(3, 1, 1, generator=rng)
    pictures = []
    for t in range(frames):
        ball = ((rows - HEIGHT / 2) ** 2 + (columns - 40 - 6 * t) ** 2 < 24**2).float()
        pictures.append((0.2 + 0.5 * ground) * (1 - ball) + colour * ball)
    return torch.stack(pictures).clamp(0, 1)


def kind_is_complete(measure: Measure) -> None:
    """Name, direction, range, unit and weights are stated and make sense."""
    assert isinstance(measure, Measure), "it has not the attributes of stg_tune.score.Measure"
    kind = measure.kind
    assert kind.name.isidentifier(), f"the name {kind.name!r} is no identifier"
    assert kind.direction in ("maximize", "minimize"), f"direction is {kind.direction!r}"
    assert kind.low < kind.high, f"the range is {kind.low} to {kind.high}"
    assert kind.unit, "there is no unit"
    assert kind.weights == "none" or (len(kind.weights) == DIGITS and set(kind.weights) <= set("0123456789abcdef")), (
        f"weights must be 'none' or {DIGITS} hex digits, got {kind.weights!r}"
    )


def video_gets_a_number_in_range(measure: Measure) -> None:
    """An ordinary video is scored."""
    score = _ask(measure, moving_ball())
    assert score.value is not None, f"an ordinary video was not scored: {score.reason}"
    assert measure.kind.low <= score.value <= measure.kind.high, f"{score.value} is out of the stated range"


def batch_does_not_matter(measure: Measure) -> None:
    """The same bits alone, in a batch, and in another order."""
    videos = torch.stack([moving_ball(seed=1), moving_ball(seed=2)])
    alone = [_ask(measure, video).value for video in videos]
    scorer, name = CompositeScorer([measure]), measure.kind.name
    together = [row[name].value for row in scorer(videos, [PROMPT] * 2)]
    backwards = [row[name].value for row in scorer(videos.flip(0), [PROMPT] * 2)][::-1]
    assert alone == together == backwards, f"{alone}, {together}, {backwards}"


@torch.inference_mode()
def input_is_left_alone(measure: Measure) -> None:
    """The frames are not written to: other measures see the same tensor."""
    view = View(moving_ball())
    measure(view, PROMPT)
    assert torch.equal(view.frames, moving_ball()), "the measure wrote into the frames"


def nan_is_not_scored(measure: Measure) -> None:
    """NaN or infinity anywhere gives a reason, not a number."""
    for bad in (math.nan, math.inf):
        video = moving_ball()
        video[1, 0, 3, 4] = bad
        _refused(_ask(measure, video), "NaN or infinity")


def black_is_not_scored(measure: Measure) -> None:
    """A video without a picture gives a reason, not a number."""
    for level in (0.0, 1.0):
        _refused(_ask(measure, torch.full((FRAMES, 3, HEIGHT, WIDTH), level)), "flat colour")


def too_few_frames_are_not_scored(measure: Measure) -> None:
    """One frame, and a video that never changes, give a number or a reason as ``requires`` says; never an error."""
    single, frozen = _ask(measure, moving_ball(1)), _ask(measure, moving_ball(1).repeat(FRAMES, 1, 1, 1))
    if measure.requires == "picture":
        assert single.value is not None, f"requires a picture only, but one frame is not scored: {single.reason}"
    else:
        _refused(single, "one frame")
    if measure.requires == "motion":
        _refused(frozen, "frozen")
    else:
        assert frozen.value is not None, f"does not require motion, but refuses a frozen video: {frozen.reason}"


def other_sizes_and_precisions_work(measure: Measure) -> None:
    """Portrait, odd sides, another length, half precision."""
    portrait = moving_ball().transpose(-1, -2)
    odd = moving_ball(4)[..., :141, :157]
    for video in (portrait, odd, moving_ball().half()):
        score = _ask(measure, video)
        assert score.value is not None, f"{tuple(video.shape)} {video.dtype} was not scored: {score.reason}"


CHECKS: tuple[Callable[[Measure], None], ...] = (
    kind_is_complete,
    video_gets_a_number_in_range,
    batch_does_not_matter,
    input_is_left_alone,
    nan_is_not_scored,
    black_is_not_scored,
    too_few_frames_are_not_scored,
    other_sizes_and_precisions_work,
)
"""All of them."""


def _ask(measure: Measure, video: Tensor) -> Score:
    return CompositeScorer([measure])(video[None], [PROMPT])[0][measure.kind.name]


def _refused(score: Score, reason: str) -> None:
    assert score.value is None, f"a video that has {reason} got {score.value}"
    assert reason in score.reason, f"the reason should speak of {reason}: {score.reason}"
