"""What every embedded scorer must do on the videos it was made for; all others are in ``test_builders.py``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.records import Score
from stg_tune.score import CompositeScorer, Scorer
from stg_tune.score.clip import Aesthetic, Alignment
from stg_tune.score.motion import Motion
from stg_tune.score.perceptual import TemporalLpips
from stg_tune.score.quality import ImagingQuality
from stg_tune.score.saturation import Saturation

if TYPE_CHECKING:
    from stg_tune.score.base import View

CASES: dict[str, type] = {
    "aesthetic": Aesthetic,
    "alignment": Alignment,
    "temporal_lpips": TemporalLpips,
    "imaging_quality": ImagingQuality,
    "motion": Motion,
    "saturation": Saturation,
}
DIRECTIONS = {
    "aesthetic": "maximize",
    "alignment": "maximize",
    "temporal_lpips": "minimize",
    "imaging_quality": "maximize",
    "motion": "maximize",
    "saturation": "minimize",
}
COMPARES_FRAMES = {"temporal_lpips", "motion"}
PROMPT = "a red seven moving left"

Ask = Callable[[torch.Tensor, str], Score]


def test_every_embedded_scorer_is_in_the_suite(scorers: CompositeScorer) -> None:
    assert isinstance(scorers, Scorer)
    assert {kind.name: type(m) for kind, m in zip(scorers.kinds, scorers.measures, strict=True)} == CASES


@pytest.fixture(params=sorted(CASES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ask(name: str, scorers: CompositeScorer) -> Ask:
    """Scores one video with one measure."""
    alone = CompositeScorer([m for m in scorers.measures if m.kind.name == name])
    return lambda video, prompt: alone(video[None], [prompt])[0][name]


def test_kind_says_direction_range_unit_and_weights(name: str, scorers: CompositeScorer) -> None:
    (kind,) = [kind for kind in scorers.kinds if kind.name == name]
    assert kind.direction == DIRECTIONS[name]
    assert kind.low < kind.high
    assert kind.unit
    assert kind.weights == "none" or (len(kind.weights) == 16 and int(kind.weights, 16) >= 0)
    assert (kind.weights == "none") == (name == "motion")


def test_real_video_gets_a_number_in_range(ask: Ask, videos: torch.Tensor) -> None:
    for video in videos[:4]:
        score = ask(video, PROMPT)
        assert score.value is not None
        assert score.reason == ""
        assert score.kind.low <= score.value <= score.kind.high


def test_same_bits_twice_alone_and_in_any_batch(
    name: str, ask: Ask, scorers: CompositeScorer, videos: torch.Tensor
) -> None:
    alone = [ask(video, PROMPT).value for video in videos[:4]]
    together = [scores[name].value for scores in scorers(videos[:4], [PROMPT] * 4)]
    backwards = [scores[name].value for scores in scorers(videos[:4].flip(0), [PROMPT] * 4)][::-1]
    assert alone == together == backwards


def test_input_is_left_alone(ask: Ask, videos: torch.Tensor) -> None:
    video = videos[0].clone()
    ask(video, PROMPT)
    assert torch.equal(video, videos[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_dtype(ask: Ask, videos: torch.Tensor, dtype: torch.dtype) -> None:
    value, reference = ask(videos[0].to(dtype), PROMPT).value, ask(videos[0].to(dtype).float(), PROMPT).value
    assert value == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_is_not_a_number(ask: Ask, videos: torch.Tensor, bad: float) -> None:
    video = videos[0].clone()
    video[3, 1, 5, 6] = bad
    assert _refused(ask(video, PROMPT)) == "the video contains NaN or infinity"


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_black_or_constant_is_not_a_number(ask: Ask, level: float) -> None:
    assert "flat colour" in _refused(ask(torch.full((17, 3, 64, 64), level), PROMPT))


def test_one_frame(name: str, ask: Ask, videos: torch.Tensor) -> None:
    score = ask(videos[0, :1], PROMPT)
    if name in COMPARES_FRAMES:
        assert "one frame" in _refused(score)
    else:
        assert score.value is not None


def test_frozen(name: str, ask: Ask, videos: torch.Tensor) -> None:
    score = ask(videos[0, :1].expand(17, -1, -1, -1), PROMPT)
    if name == "temporal_lpips":
        assert "frozen" in _refused(score)
    elif name == "motion":
        assert score.value == 0  # measured: nothing moves, which is what the floor is for
    else:
        assert score.value is not None


def test_other_sizes_and_lengths(ask: Ask, videos: torch.Tensor) -> None:
    large = torch.nn.functional.interpolate(videos[0], (96, 160), mode="bilinear")
    for video in (large, videos[0, :2], videos[0, :5]):
        assert ask(video, PROMPT).value is not None


def test_no_videos(scorers: CompositeScorer) -> None:
    assert scorers(torch.zeros(0, 17, 3, 64, 64), []) == []


@pytest.mark.parametrize(
    ("videos", "prompts", "message"),
    [
        (torch.rand(1, 3, 64, 64), ["a"], r"must have shape \(batch, frames, 3, height, width\), got \(1, 3, 64, 64\)"),
        (torch.rand(1, 4, 1, 8, 8), ["a"], "must have shape"),
        (torch.rand(1, 0, 3, 8, 8), ["a"], "must have shape"),
        (torch.zeros(1, 4, 3, 8, 8, dtype=torch.uint8), ["a"], "divide uint8 by 255"),
        (torch.rand(2, 4, 3, 8, 8), ["a"], "2 videos but 1 prompts"),
        (torch.rand(1, 4, 3, 8, 8) * 255, ["a"], r"must lie in \[0, 1\], got values from"),
        (torch.rand(1, 4, 3, 8, 8) - 0.5, ["a"], r"must lie in \[0, 1\], got values from -0"),
    ],
)
def test_wrong_input_is_one_clear_error(
    scorers: CompositeScorer, videos: torch.Tensor, prompts: list[str], message: str
) -> None:
    with pytest.raises(StgTuneError, match=message):
        scorers(videos, prompts)


def test_two_measures_of_one_name_are_refused() -> None:
    with pytest.raises(StgTuneError, match="two scorers of one name"):
        CompositeScorer([Motion(), Motion()])


class FailingMeasure:
    """Comes out as NaN on purpose."""

    requires = "picture"
    kind = dataclasses.replace(Motion.kind, name="failing")

    def __call__(self, view: View, prompt: str) -> Score:
        from stg_tune.score.base import scored

        return scored(self.kind, float("nan"))


def test_measure_that_gives_nan_is_unscored_and_does_not_touch_the_others(
    scorers: CompositeScorer, videos: torch.Tensor
) -> None:
    scores = CompositeScorer([FailingMeasure(), *scorers.measures])(videos[:1], [PROMPT])[0]
    assert _refused(scores.pop("failing")) == "failing came out as nan"
    assert scores == scorers(videos[:1], [PROMPT])[0]


def _refused(score: Score) -> str:
    assert score.value is None
    return score.reason
