from __future__ import annotations

import pytest
import torch

from stg_tune.embedded import degradations, digits
from stg_tune.embedded.degradations import DRAWING, PICTURE, Layers
from stg_tune.embedded.scorers_data import TIMES, WORDS, Clean, Supply, describe, draw_samples, render_clean

NUM = 6


@pytest.fixture(scope="module")
def clean() -> Clean:
    return render_clean(2 * NUM, "train", 3)


@pytest.fixture(scope="module")
def layers(clean: Clean) -> Layers:
    return clean.layers(torch.arange(2 * NUM), torch.tensor([0, 8, 16]))


def _damaged(name: str, strength: float, layers: Layers) -> torch.Tensor:
    rng, strengths = torch.Generator().manual_seed(0), torch.full((NUM,), strength)
    chosen, others = layers[torch.arange(NUM)], layers[torch.arange(NUM) + NUM]
    if name in DRAWING:
        return DRAWING[name](chosen, others, strengths, rng).compose()
    return PICTURE[name](chosen.compose(), strengths, rng).clamp(0, 1)


def test_layers_compose_to_the_render(clean: Clean, layers: Layers) -> None:
    frames = clean.frames[:, [0, 8, 16]].float() / 255
    assert float((layers.compose() - frames).abs().mean()) < 0.006
    assert 0.01 < float(layers.opacity.mean()) < 0.25


def test_ground_is_found_behind_the_digit(clean: Clean, layers: Layers) -> None:
    """Where the digit covers a pixel late and not early, the early frame shows what is behind it."""
    early = clean.frames[:, 0].float() / 255
    uncovered = (layers.opacity[:, 0] < 0.01) & (layers.opacity[:, 2] > 0.9)
    assert int(uncovered.sum()) > 500
    gap = (layers.ground[:, 0] - early).abs().mean(1, keepdim=True)
    assert float(gap[uncovered].mean()) < 0.01


@pytest.mark.parametrize("name", sorted({*DRAWING, *PICTURE}))
def test_no_strength_is_no_damage_and_more_strength_is_more(name: str, layers: Layers) -> None:
    reference = layers[torch.arange(NUM)].compose()
    distances = [float((_damaged(name, s, layers) - reference).abs().mean()) for s in (0.0, 0.3, 0.6, 1.0)]
    assert distances[0] < 1e-3
    assert distances == sorted(distances)
    assert distances[-1] > 0.004


@pytest.mark.parametrize("name", sorted({*DRAWING, *PICTURE}))
def test_seeded(name: str, layers: Layers) -> None:
    assert torch.equal(_damaged(name, 0.6, layers), _damaged(name, 0.6, layers))


def test_strength_is_per_video(layers: Layers) -> None:
    frames = layers[torch.arange(2)].compose()
    blurred = degradations.blur(frames, torch.tensor([0.0, 1.0]), torch.Generator())
    assert float((blurred[0] - frames[0]).abs().max()) < 1e-4
    assert float((blurred[1] - frames[1]).abs().max()) > 0.05


def test_blur_is_gaussian() -> None:
    frames = torch.zeros(1, 1, 1, 41, 41)
    frames[..., 20, 20] = 1
    spread = degradations.blur(frames, torch.tensor([0.5]), torch.Generator())[0, 0, 0]
    offsets = torch.arange(41) - 20.0
    assert float(spread.sum()) == pytest.approx(1, abs=1e-4)
    assert float((spread.sum(0) * offsets**2).sum()) ** 0.5 == pytest.approx(2.0, rel=0.01)
    assert float((spread.sum(1) * offsets**2).sum()) ** 0.5 == pytest.approx(2.0, rel=0.01)


def test_mix_at_full_strength_is_both_digits_equally(layers: Layers) -> None:
    chosen = layers[torch.tensor([0])]
    mixed = degradations.mix(chosen, chosen, torch.ones(1), torch.Generator())
    torch.testing.assert_close(mixed.opacity, chosen.opacity, atol=0.02, rtol=0)


def test_caption_says_what_is_seen() -> None:
    caption = digits.caption(7, 0, 0)
    assert describe(caption, "blur", 0.1) == "a red seven moving left"
    assert describe(caption, "blur", 0.5) == "a blurry red seven moving left"
    assert describe(caption, "mix", 0.9) == "a broken red digit moving left"
    assert set(WORDS) == {*DRAWING, *PICTURE, "latent"}


def test_samples_are_seeded_and_mix_clean_with_damaged(clean: Clean) -> None:
    one, two = (draw_samples(clean, 32, 5, chunk=32) for _ in range(2))
    assert torch.equal(one.frames, two.frames)
    assert one.captions == two.captions
    assert one.frames.shape == (32, len(TIMES), 3, 64, 64)
    assert 2 <= int((one.damage == 0).sum()) <= 20
    untouched = one.damage == 0
    torch.testing.assert_close(one.frames[untouched].float(), one.before[untouched].float(), atol=13, rtol=0)


def test_batches_take_half_from_each_store_and_only_visible_damage_when_single(clean: Clean) -> None:
    store = draw_samples(clean, 64, 6, chunk=64)
    batch = Supply(store, store, seed=0).batch(40, (0, 8), single=True)
    assert batch.frames.shape == (40, 2, 3, 64, 64)
    assert "flicker" in store.kinds
    assert "flicker" not in batch.kinds
    assert all(" moving " not in text for text in batch.short)
    assert 0 <= float(batch.frames.min()) <= float(batch.frames.max()) <= 1
