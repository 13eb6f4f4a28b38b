"""The two further models, trained for two steps at the least size that their pipelines allow."""

import pytest

from stg_tune.embedded import mochi_train, svd_parts_train, svd_train
from stg_tune.embedded.train import train_mochi, train_svd

MOCHI = mochi_train.Sizes(
    vae={
        **mochi_train.VAE,
        "encoder_block_out_channels": (32, 32, 32, 32),
        "decoder_block_out_channels": (32, 32, 32, 32),
        "layers_per_block": (0, 0, 0, 1, 1),
    },
    transformer={**mochi_train.TRANSFORMER, "num_attention_heads": 1, "pooled_projection_dim": 16},
    latents=4,
    batch=4,
    pool=2,
)
SVD = svd_train.Sizes(
    image_encoder={**svd_parts_train.IMAGE_ENCODER, "num_hidden_layers": 1},
    vae={**svd_parts_train.VAE, "block_out_channels": (32, 32, 32, 32)},
    unet={**svd_train.UNET, "block_out_channels": (32, 32)},
    latents=3,
    batch=2,
    pool=2,
    pictures=2,
    clips=1,
)


@pytest.fixture(scope="session")
def mochi_sizes():
    return MOCHI


@pytest.fixture(scope="session")
def svd_sizes():
    return SVD


@pytest.fixture(scope="session")
def mochi_folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("mochi")
    steps = mochi_train.Steps(vae_clips=1, vae=1, denoiser=2)
    train_mochi(home / "training", home / "mochi-tiny", steps=steps, sizes=MOCHI, compiled=False)
    return home / "mochi-tiny"


@pytest.fixture(scope="session")
def svd_folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("svd")
    steps = svd_train.Steps(image_encoder=1, vae_pictures=1, vae_clips=1, vae_videos=0, denoiser=1)
    train_svd(home / "training", home / "svd-tiny", steps=steps, sizes=SVD, compiled=False)
    return home / "svd-tiny"
