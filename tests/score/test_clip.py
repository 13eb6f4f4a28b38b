from __future__ import annotations

import math

import pytest
import torch
from open_clip.model import CLIP
from torch import nn
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize

from stg_tune.score import CompositeScorer
from stg_tune.score.base import View
from stg_tune.score.clip import OPENAI_MEAN, OPENAI_STD, Aesthetic, Alignment, ClipTowers, Preprocessing, TemporalHead
from stg_tune.score.embedded import Vocabulary, words_of

PROMPTS = ["a red seven moving left", "a blue two moving up"]


class CountingClip(nn.Module):
    """A random but fixed CLIP that counts its image passes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = words_of(PROMPTS)
        self.tokenize = Vocabulary(self.words, 16)
        vision = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32}
        text = {"context_length": 16, "vocab_size": self.tokenize.size, "width": 32, "heads": 2, "layers": 1}
        self.inner = CLIP(24, vision, text).eval()
        self.token_embedding = self.inner.token_embedding
        self.passes = 0

    def encode_image(self, images: torch.Tensor, *, normalize: bool = False) -> torch.Tensor:
        self.passes += 1
        return self.inner.encode_image(images, normalize=normalize)

    def encode_text(self, tokens: torch.Tensor, *, normalize: bool = False) -> torch.Tensor:
        return self.inner.encode_text(tokens, normalize=normalize)


@pytest.fixture(scope="module")
def clip() -> CountingClip:
    return CountingClip()


@pytest.fixture
def towers(clip: CountingClip) -> ClipTowers:
    return ClipTowers(clip, clip.tokenize, Preprocessing(size=32))


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.rand(5, 3, 40, 48, generator=torch.Generator().manual_seed(1))


def _slow_features(clip: CountingClip, frames: torch.Tensor) -> list[torch.Tensor]:
    """VBench's order of operations, one frame at a time, by torchvision."""
    transform = Compose(
        [
            Resize(32, interpolation=InterpolationMode.BICUBIC, antialias=False),
            CenterCrop(32),
            lambda image: image.clamp(0, 1),
            Normalize(OPENAI_MEAN, OPENAI_STD),
        ]
    )
    return [clip.inner.visual(transform(frame)[None])[0].detach() for frame in frames]


def test_aesthetic_equals_the_linear_head_frame_by_frame(
    clip: CountingClip, towers: ClipTowers, frames: torch.Tensor
) -> None:
    weight, bias = torch.randn(24, generator=torch.Generator().manual_seed(2)), 5.0
    points = []
    for feature in _slow_features(clip, frames):
        length = math.sqrt(sum(float(x) ** 2 for x in feature))
        points.append(sum(float(w) * float(x) / length for w, x in zip(weight, feature, strict=True)) + bias)
    scorer = CompositeScorer([Aesthetic(towers, weight, bias, weights="0" * 16)])
    value = scorer(frames[None], [""])[0]["aesthetic"].value
    assert value == pytest.approx(sum(points) / len(points) / 10, abs=1e-5)


def test_aesthetic_range_is_what_a_linear_head_can_reach(towers: ClipTowers) -> None:
    kind = Aesthetic(towers, torch.tensor([3.0, 4.0]), 5.0, weights="0" * 16).kind
    assert (kind.low, kind.high) == (pytest.approx(0.0), pytest.approx(1.0))


def test_alignment_is_the_cosine_of_text_and_mean_image_feature(
    clip: CountingClip, towers: ClipTowers, frames: torch.Tensor
) -> None:
    unit = [feature / feature.norm() for feature in _slow_features(clip, frames)]
    video = sum(unit) / len(unit)
    text = clip.inner.encode_text(clip.tokenize([PROMPTS[0]]))[0].detach()
    expected = float((video * text).sum() / (video.norm() * text.norm()))
    value = CompositeScorer([Alignment(towers, weights="0" * 16)])(frames[None], [PROMPTS[0]])[0]["alignment"].value
    assert value == pytest.approx(expected, abs=1e-5)


def test_mean_alignment_is_blind_to_order(towers: ClipTowers, frames: torch.Tensor) -> None:
    measure = Alignment(towers, weights="a")
    with torch.inference_mode():
        forwards, backwards = (measure(View(video), PROMPTS[0]).value for video in (frames, frames.flip(0)))
    assert forwards == pytest.approx(backwards, abs=1e-6)


def test_temporal_head_sees_order() -> None:
    torch.manual_seed(3)
    head, features = TemporalHead(24, 16, lag=2), torch.randn(5, 24)
    with torch.inference_mode():
        assert float((head(features) - head(features.flip(0))).abs().max()) > 0.01


def test_temporal_head_formula() -> None:
    torch.manual_seed(4)
    head, features = TemporalHead(6, 5, lag=2), torch.randn(5, 6)
    pairs = [head.out(nn.functional.gelu(head.pair(torch.cat([features[t], features[t + 2]])))) for t in range(3)]
    torch.testing.assert_close(head(features), features.mean(0) + sum(pairs) / 3)


def test_one_image_pass_for_aesthetic_and_alignment(
    clip: CountingClip, towers: ClipTowers, frames: torch.Tensor
) -> None:
    both = CompositeScorer([Aesthetic(towers, torch.ones(24), 0.0, weights="a"), Alignment(towers, weights="b")])
    before = clip.passes
    both(frames[None].repeat(3, 1, 1, 1, 1), [PROMPTS[0]] * 3)
    assert clip.passes == before + 3


def test_stride_looks_at_every_second_frame(clip: CountingClip, frames: torch.Tensor) -> None:
    every, second = (ClipTowers(clip, clip.tokenize, Preprocessing(size=32), stride=stride) for stride in (1, 2))
    with torch.inference_mode():
        torch.testing.assert_close(second.images(View(frames)), every.images(View(frames[::2])))


def test_empty_prompt_cannot_be_aligned(towers: ClipTowers, frames: torch.Tensor) -> None:
    score = Alignment(towers, weights="a")(View(frames), "  ")
    assert (score.value, score.reason) == (None, "the prompt is empty")


def test_vocabulary_keeps_words_apart_and_ends_with_the_greatest_id() -> None:
    vocabulary = Vocabulary(words_of(PROMPTS), 16)
    first, second, unknown = vocabulary([*PROMPTS, "a red giraffe moving left"])
    assert first.argmax() == 6  # start, five words, end
    assert int(first.max()) == vocabulary.size - 1
    assert first[7:].eq(Vocabulary.PAD).all()
    assert not torch.equal(first, second)
    assert Vocabulary.UNKNOWN in unknown.tolist()
    assert Vocabulary.UNKNOWN not in first.tolist() + second.tolist()
