"""The temporal autoencoder against tensors recorded from Open-Sora v1.2.0, and its properties."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributions import Normal, kl_divergence

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.temporal_vae import CausalConv3d, Gaussian, TemporalVAE

GOLDEN = Path(__file__).parents[2] / "golden" / "opensora"
ATOL = 5e-5
LENGTHS = (1, 3, 4, 5, 16, 17, 18)
DERIVED = ("patch_size", "time_downsample_factor")


def settings():
    config = json.loads((GOLDEN / "vae_temporal_tiny.config.json").read_text())
    return {name: value for name, value in config.items() if name not in DERIVED}


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0)


@pytest.fixture(scope="module")
def io():
    return load_file(GOLDEN / "vae_temporal_tiny.io.safetensors")


@pytest.fixture(scope="module")
def vae():
    weights = load_file(GOLDEN / "vae_pipeline_tiny.state_dict.safetensors")
    prefix = "temporal_vae."
    model = TemporalVAE(**settings()).eval().requires_grad_(False)
    model.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return model


@pytest.mark.parametrize("frames", LENGTHS)
def test_posterior_is_the_official_one(vae, io, frames):
    posterior = vae.encode(io[f"n{frames}.x"])
    close(posterior.mean, io[f"n{frames}.mean"])
    close(posterior.logvar, io[f"n{frames}.logvar"])
    close(posterior.std, io[f"n{frames}.std"])
    assert posterior.mean.shape[2] == vae.latent_frames(frames)


@pytest.mark.parametrize("frames", LENGTHS)
def test_decoding_is_the_official_one(vae, io, frames):
    close(vae.decode(io[f"n{frames}.mean"], frames), io[f"n{frames}.decoded"])


@pytest.mark.parametrize("frames", [17, 20])
def test_the_same_latents_decode_to_17_or_20_frames(vae, io, frames):
    close(vae.decode(io["z.in"], frames), io[f"z.decoded{frames}"])


def test_every_stage_is_the_official_one(vae, io):
    seen = {}

    def probe(name):
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    encoder = vae.encoder
    ends = (*encoder.conv_blocks, encoder.block_res_blocks[-1])
    probes = {"enc.conv_in": encoder.conv_in, "dec.conv1": vae.decoder.conv1}
    probes |= {f"enc.stage{i}": end for i, end in enumerate(ends)}
    hooks = [module.register_forward_hook(probe(name)) for name, module in probes.items()]
    vae.decode(vae.encode(io["n5.x"]).mean, 5)
    for hook in hooks:
        hook.remove()
    recorded = {key.removeprefix("probe."): value for key, value in io.items() if key.startswith("probe.")}
    assert seen.keys() == recorded.keys()
    for name, expected in recorded.items():
        close(seen[name], expected)


def test_derived_numbers_are_the_official_ones(vae):
    config = json.loads((GOLDEN / "vae_temporal_tiny.config.json").read_text())
    assert vae.time_compression == config["time_downsample_factor"] == config["patch_size"][0]


@pytest.mark.parametrize("time_stride", [1, 2])
def test_a_later_frame_does_not_change_an_earlier_output(time_stride):
    conv = CausalConv3d(2, 3, 3, time_stride=time_stride)
    x = torch.randn(1, 2, 8, 3, 4)
    changed = x.clone()
    changed[:, :, 5] += 1.0
    difference = (conv(x) - conv(changed)).abs().amax((0, 1, 3, 4))
    first = 5 // time_stride
    assert difference.shape == (8 // time_stride,)
    assert difference[:first].max() == 0
    assert difference[first] > 0


def test_posterior_matches_torch_distributions():
    moments = torch.randn(2, 6, 3, 2, 2)
    posterior = Gaussian(moments)
    mean, logvar = moments.chunk(2, 1)
    reference = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum((1, 2, 3, 4))
    torch.testing.assert_close(posterior.kl(), reference)
    assert torch.equal(posterior.mode(), mean)


def test_samples_have_the_posteriors_mean_and_spread():
    posterior = Gaussian(
        torch.tensor([2.0, 2 * torch.log(torch.tensor(0.5)).item()]).view(1, 2, 1).expand(1, 2, 20_000)
    )
    drawn = posterior.sample(torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.02)


def test_extreme_log_variances_are_clamped():
    posterior = Gaussian(torch.tensor([[0.0, 1e9]]))
    assert posterior.logvar.item() == 20.0
    assert posterior.sample().isfinite().all()


def test_other_down_sampling_patterns_round_trip():
    vae = TemporalVAE(
        filters=4, num_groups=2, num_res_blocks=1, channel_multipliers=(1, 2), temporal_downsample=(True,), embed_dim=3
    )
    posterior = vae.encode(torch.randn(1, 4, 5, 2, 2))
    assert posterior.mean.shape == (1, 3, 3, 2, 2)
    assert vae.decode(posterior.mean, 5).shape == (1, 4, 5, 2, 2)


@pytest.mark.parametrize("frames", [0, -1, 16, 21])
def test_impossible_lengths_are_refused(vae, frames):
    with pytest.raises(StgTuneError, match=rf"num_frames={frames}: they hold 17 to 20 frames"):
        vae.decode(torch.zeros(1, 4, 5, 2, 2), frames)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temporal_downsample": [True, True]}, "has 2 entries for 4 channel_multipliers; it needs 3"),
        ({"num_groups": 3}, r"num_groups=3 does not divide all of its widths \[4, 8, 8, 16\]"),
        ({"num_groups": 0}, "num_groups=0"),
        ({"num_res_blocks": 0}, "num_res_blocks=0"),
        ({"activation_fn": "gelu"}, "activation_fn='gelu' is unknown. Choose from: swish, relu"),
    ],
)
def test_contradicting_settings_are_refused(wrong, message):
    with pytest.raises(StgTuneError, match=message):
        TemporalVAE(**{**settings(), **wrong})
