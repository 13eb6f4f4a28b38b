"""Videos that are long or large: nothing is copied as a whole that can be done in parts, and what cannot is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stg_tune.score import base
from stg_tune.score.base import View, check_batch, in_chunks, why_unscorable
from stg_tune.score.conformance import PROMPT, moving_ball
from stg_tune.score.default import build
from stg_tune.score.flicker import TemporalFlickering
from stg_tune.score.flow import MOST_PAIR_BYTES, DynamicDegree, OpticalFlow, pair_bytes
from stg_tune.score.placement import Placement
from stg_tune.score.registry import DEFAULT
from stg_tune.score.saturation import Saturation

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.score.parts import Parts

FRAME = moving_ball(1).numel() * 4


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that was made, in bytes; views make none."""

    made = 0

    def __torch_dispatch__(self, call: object, types: object, args: tuple[object, ...] = (), kwargs: object = None):
        out = call(*args, **(kwargs or {}))
        held = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in held:
            self.made = max(self.made, out.numel() * out.element_size())
        return out


@pytest.mark.parametrize(
    "work",
    [
        lambda video: check_batch(video[None], [PROMPT]),
        lambda video: why_unscorable(video, "motion"),
        lambda video: why_unscorable(video[:1].repeat(2, 1, 1, 1)[:1].expand(12, -1, -1, -1), "motion"),
        lambda video: TemporalFlickering()(View(video), ""),
        lambda video: Saturation(0.1)(View(video), ""),
    ],
    ids=["check", "requirements", "a frozen video", "flicker", "saturation"],
)
def test_a_long_video_is_not_copied(work: Callable[[torch.Tensor], object], monkeypatch: pytest.MonkeyPatch) -> None:
    video = moving_ball(12)
    monkeypatch.setattr(base, "CHUNK_BYTES", 2 * FRAME)
    with Largest() as largest:
        work(video)
    assert 0 < largest.made <= 2 * FRAME


def test_parts_give_what_the_whole_gives(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    video = moving_ball(5)
    assert len(in_chunks(video)) == 1
    names = [*DEFAULT, "musiq", "aesthetic_v2"]
    (whole,) = build(names, parts)(video[None], [PROMPT])
    monkeypatch.setattr(base, "CHUNK_BYTES", 1)
    assert len(in_chunks(video)) == 5
    (chunked,) = build(names, parts)(video[None], [PROMPT])
    for name in names:
        assert chunked[name].value == pytest.approx(whole[name].value, rel=1e-6, abs=1e-6), name
    frozen, black = video[:1].repeat(5, 1, 1, 1), torch.zeros_like(video)
    assert "frozen" in why_unscorable(frozen, "motion")
    assert "flat" in why_unscorable(black, "picture")
    video[4, 0, 0, 0] = torch.nan
    assert "NaN" in why_unscorable(video, "picture")
    with pytest.raises(base.StgTuneError, match="got values from 0 to 2"):
        check_batch(torch.stack([torch.zeros_like(video), 2 * (black + 1)]), [PROMPT] * 2)


def test_the_memory_of_a_pair_is_that_of_the_correlation_volume() -> None:
    places = (480 // 8) * (832 // 8)
    levels = sum(places * (places // 4**level) * 4 for level in range(4))
    assert levels < pair_bytes(480, 832) < 3 * levels


def never(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    raise AssertionError


def test_frames_that_would_not_fit_are_refused_with_the_reason() -> None:
    placement = Placement.automatic("cpu")
    large = View(torch.rand(1, 3, 1, 1).expand(3, 3, 1080, 1920))
    score = DynamicDegree(never, placement, fps=8, weights="0" * 16)(large, "")
    assert score.value is None
    assert (
        "dynamic_degree: a pair of 1920x1080 frames needs about 7.4 GB in the network, more than the 4.3 GB"
        in score.reason
    )
    assert "optical_flow shrinks frames" in score.reason
    assert pair_bytes(720, 1280) < MOST_PAIR_BYTES < pair_bytes(1080, 1920)
    strip = View(torch.rand(1, 3, 1, 1).expand(2, 3, 64, 2048))
    assert (
        "optical_flow: a pair of 8192x256 frames" in OpticalFlow(never, placement, weights="0" * 16)(strip, "").reason
    )
