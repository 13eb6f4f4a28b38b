from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune.embedded.scorers_data import TIMES, Clean, render_clean
from stg_tune.embedded.scorers_latents import LATENT, decode_damaged
from stg_tune.embedded.scorers_train import VAE_FOLDER, main
from stg_tune.models.open_sora.vae import OpenSoraVAE
from stg_tune.score import embedded_scorers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def clean() -> Clean:
    return render_clean(6, "train", 3)


@pytest.fixture(scope="module")
def vae() -> OpenSoraVAE:
    return OpenSoraVAE.from_pretrained(VAE_FOLDER).eval()


@pytest.mark.slow
def test_a_short_training_writes_weights_that_load_and_repeats_itself(tmp_path: Path) -> None:
    settings = ["--videos", "16", "--effort", "0.002", "--vae", str(tmp_path / "none")]
    for run in ("one", "two"):
        main([*settings, "--out", str(tmp_path / run)])
    one, two = (embedded_scorers(tmp_path / run) for run in ("one", "two"))
    assert one.kinds == two.kinds
    scores = one(torch.rand(1, 3, 3, 64, 64), ["a red seven moving left"])[0]
    assert all(score.value is not None for score in scores.values())


@pytest.mark.parametrize("name", sorted(LATENT))
def test_latent_damage_is_none_at_zero_and_grows(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    z, others = torch.randn((2, 8, 4, 5, 8, 8), generator=rng)
    strengths = [torch.full((8, 1, 1, 1, 1), s) for s in (0.0, 0.3, 0.6, 1.0)]
    distances = [float((LATENT[name](z, others, s, rng) - z).square().mean()) for s in strengths]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[-1] > 0.2


def test_decoded_latents_keep_what_is_whole_and_change_what_is_damaged(vae: OpenSoraVAE, clean: Clean) -> None:
    sample = decode_damaged(vae, clean, 6, seed=1, copies=2, batch=3)
    assert sample.frames.shape == (12, len(TIMES), 3, 64, 64)
    originals = clean.frames[:, list(TIMES)].repeat(2, 1, 1, 1, 1).float()
    assert float((sample.before.float() - originals).abs().mean()) < 12  # the autoencoder restores the renders
    gaps = (sample.frames.float() - sample.before.float()).abs().mean((1, 2, 3, 4))
    assert float(gaps[sample.damage == 0].max()) == 0
    assert float(gaps[sample.damage > 0.3].min()) > 0.5
