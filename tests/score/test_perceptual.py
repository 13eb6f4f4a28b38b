from __future__ import annotations

import lpips
import pytest
import torch

from stg_tune.score import CompositeScorer
from stg_tune.score.perceptual import LpipsOverTrunk, SmallTrunk, TemporalLpips, consecutive_distances


@pytest.fixture(scope="module")
def metric() -> LpipsOverTrunk:
    torch.manual_seed(0)
    return LpipsOverTrunk(SmallTrunk([8, 12, 16])).eval()


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def _slow_distance(metric: LpipsOverTrunk, first: torch.Tensor, second: torch.Tensor) -> float:
    """Equation 1 of arXiv:1801.03924, without the package."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    inputs = [((2 * x - 1) - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for x in (first, second)]
    maps = [metric.net(x[None]) for x in inputs]
    total = 0.0
    for level, (one, two) in enumerate(zip(*maps, strict=True)):
        weight = metric.lins[level].model[-1].weight.flatten()
        one, two = (x[0] / (x[0].pow(2).sum(0).sqrt() + 1e-10) for x in (one, two))
        total += float(((one - two).pow(2) * weight.view(-1, 1, 1)).sum(0).mean())
    return total


def test_distance_equals_the_paper_formula(metric: LpipsOverTrunk, frames: torch.Tensor) -> None:
    with torch.inference_mode():
        fast = consecutive_distances(metric, frames)
        slow = [_slow_distance(metric, frames[t], frames[t + 1]) for t in range(3)]
    assert fast.tolist() == pytest.approx(slow, abs=1e-5)


def test_distance_equals_the_package(metric: LpipsOverTrunk, frames: torch.Tensor) -> None:
    with torch.inference_mode():
        package = metric(frames[:-1], frames[1:], normalize=True).flatten()
        torch.testing.assert_close(consecutive_distances(metric, frames), package, atol=1e-5, rtol=1e-5)


def test_distance_equals_the_package_with_its_own_trunk(frames: torch.Tensor) -> None:
    torch.manual_seed(2)
    alex = lpips.LPIPS(pretrained=False, pnet_rand=True, net="alex", verbose=False).eval()
    with torch.inference_mode():
        package = alex(frames[:-1], frames[1:], normalize=True).flatten()
        torch.testing.assert_close(consecutive_distances(alex, frames), package, atol=1e-5, rtol=1e-4)


def test_score_is_the_mean_over_consecutive_frames(metric: LpipsOverTrunk, frames: torch.Tensor) -> None:
    with torch.inference_mode():
        expected = float(
            torch.cat([metric(frames[t : t + 1], frames[t + 1 : t + 2], normalize=True) for t in range(3)]).mean()
        )
    value = CompositeScorer([TemporalLpips(metric, weights="0" * 16)])(frames[None], [""])[0]["temporal_lpips"].value
    assert value == pytest.approx(expected, abs=1e-5)


def test_shipped_heads_are_non_negative(scorers: CompositeScorer) -> None:
    (measure,) = [m for m in scorers.measures if isinstance(m, TemporalLpips)]
    assert all(float(head.model[-1].weight.min()) >= 0 for head in measure._metric.lins)
