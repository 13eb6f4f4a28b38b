"""The video autoencoder against tensors recorded from Open-Sora v1.2.0, its checkpoint contract, and its properties."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.vae import OpenSoraVAE

GOLDEN = Path(__file__).parents[2] / "golden" / "opensora"
ATOL = 5e-5


def read(name):
    return json.loads((GOLDEN / name).read_text())


def settings():
    config = read("vae_pipeline_tiny.config.json")
    del config["micro_z_frame_size"]  # follows from micro_frame_size
    return config


def close(actual, expected, atol=ATOL):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def weights():
    return load_file(GOLDEN / "vae_pipeline_tiny.state_dict.safetensors")


@pytest.fixture(scope="module")
def io():
    return load_file(GOLDEN / "vae_pipeline_tiny.io.safetensors")


@pytest.fixture(scope="module")
def vae(weights):
    model = OpenSoraVAE(**settings()).eval().requires_grad_(False)
    model.load_state_dict(weights)
    return model


@pytest.fixture
def own_vae(vae):
    """A copy, for tests that change settings, weights or hooks."""
    return copy.deepcopy(vae)


@pytest.fixture
def video():
    return torch.rand(2, 3, 5, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


# parity


@pytest.mark.parametrize("frames", [1, 17, 20, 34, 51])
def test_decode_is_the_official_one(vae, io, frames):
    close(vae.decode(io[f"dec.n{frames}.z"], frames), io[f"dec.n{frames}.out"])


def test_decode_of_a_batch_is_the_official_one(vae, io):
    close(vae.decode(io["dec.b2.z"], 17)[:, :, ::4], io["dec.b2.out"])


def test_decode_in_one_chunk_is_the_official_one(own_vae, io):
    own_vae.micro_frame_size = None
    close(own_vae.decode(io["dec.mfs_none.z"], 20), io["dec.mfs_none.out20"])


@pytest.mark.parametrize("frames", [1, 17, 20])
def test_encode_to_the_mode_is_the_official_one(vae, io, frames):
    close(vae.encode(io[f"enc.n{frames}.x"], sample_posterior=False), io[f"enc.n{frames}.z_mode"])


@pytest.mark.parametrize("frames", [1, 17, 20])
def test_encode_draws_in_the_official_order(vae, io, frames):
    torch.manual_seed(2024)
    close(vae.encode(io[f"enc.n{frames}.x"]), io[f"enc.n{frames}.z_seed2024"])
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(2024)
    close(vae.encode(io[f"enc.n{frames}.x"], generator), io[f"enc.n{frames}.z_seed2024"])
    assert torch.equal(torch.get_rng_state(), state), "a generator was given, yet torch's global one was used"


def test_image_autoencoder_alone_is_the_official_one(vae, io):
    scaling = 0.18215
    as_video = io["kl.x"].transpose(0, 1)[None]  # three images as three frames
    latents = vae.spatial_encode(as_video, sample_posterior=False)
    close(latents[0].transpose(0, 1) / scaling, io["kl.mean"])
    close(vae.spatial_decode(latents)[0].transpose(0, 1), io["kl.dec"])


def test_latent_sizes_are_the_official_ones(vae):
    for row in read("latent_sizes.json"):
        assert list(vae.get_latent_size(row["input"])) == row["latent"], row


# the checkpoint contract


def test_the_real_model_has_exactly_the_official_keys_and_shapes():
    contract = read("contract_opensoravae_v1_2.json")
    config = contract["config"]
    with torch.device("meta"):
        real = OpenSoraVAE(config["spatial_vae_config"])
    kinds = {name: "param" for name, _ in real.named_parameters()} | {
        name: "buffer" for name, _ in real.named_buffers()
    }
    found = {
        name: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."), "kind": kinds[name]}
        for name, value in real.state_dict().items()
    }
    assert len(found) == contract["n_keys"] == 517
    assert found == contract["keys"]
    assert sum(value.numel() for value in real.state_dict().values()) == contract["n_elements"]
    assert list(real.config.scale) == config["scale"]
    assert list(real.config.shift) == config["shift"]
    assert real.micro_frame_size == config["micro_frame_size"]
    assert real.micro_batch_size == config["micro_batch_size"]
    assert real.config.spatial_scaling == config["spatial_scaling_used"]


def test_the_tiny_model_has_exactly_the_recorded_keys(weights):
    state = OpenSoraVAE(**settings()).state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in weights.items()}
    assert len(state) == 329
    assert torch.equal(state["scale"], weights["scale"])
    assert torch.equal(state["shift"], weights["shift"])


# properties


def test_sizes_are_announced(vae):
    assert (vae.latent_channels, vae.out_channels) == (4, 4)
    assert (vae.spatial_compression, vae.temporal_compression) == (8, 4)


def test_save_and_load_round_trip(vae, io, tmp_path):
    vae.save_pretrained(tmp_path)
    loaded = OpenSoraVAE.from_pretrained(tmp_path).eval().requires_grad_(False)
    assert json.loads((tmp_path / "config.json").read_text()).items() >= settings().items()
    assert {name: loaded.config[name] for name in settings()} == settings()
    assert torch.equal(vae.decode(io["dec.n20.z"], 20), loaded.decode(io["dec.n20.z"], 20))
    rebuilt = OpenSoraVAE.from_config(json.loads((tmp_path / "config.json").read_text()))
    assert rebuilt.state_dict().keys() == vae.state_dict().keys()


def test_bfloat16_takes_and_gives_what_it_should(vae, io, tmp_path):
    vae.save_pretrained(tmp_path)
    half = OpenSoraVAE.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).eval()
    assert half.scale.dtype == torch.bfloat16
    out = half.decode(io["dec.n17.z"], 17)  # float32 latents, as a sampler leaves them
    assert out.dtype == torch.bfloat16
    error = (out.float() - io["dec.n17.out"]).abs().mean()
    assert 0 < error < 0.05 * io["dec.n17.out"].std()
    assert half.encode(io["enc.n17.x"]).dtype == torch.bfloat16


def test_slicing_equals_the_batch(own_vae, video):
    whole = own_vae.encode(video, sample_posterior=False)
    decoded = own_vae.decode(whole, 5)
    batches = []
    own_vae.temporal_vae.encoder.register_forward_hook(lambda _module, inputs, _out: batches.append(inputs[0].shape[0]))
    own_vae.temporal_vae.decoder.register_forward_hook(lambda _module, inputs, _out: batches.append(inputs[0].shape[0]))
    own_vae.enable_slicing()
    close(own_vae.encode(video, sample_posterior=False), whole, atol=1e-5)
    close(own_vae.decode(whole, 5), decoded, atol=1e-5)
    assert batches == [1, 1, 1, 1]
    own_vae.disable_slicing()
    own_vae.decode(whole, 5)
    assert batches[4:] == [2]


@pytest.mark.parametrize("micro_batch_size", [None, 1, 3])
def test_micro_batches_change_nothing(own_vae, video, micro_batch_size):
    before = own_vae.encode(video, sample_posterior=False)
    decoded = own_vae.decode(before, 5)
    calls = []
    own_vae.spatial_vae.module.decoder.register_forward_hook(lambda _module, inputs, _out: calls.append(len(inputs[0])))
    own_vae.micro_batch_size = micro_batch_size
    close(own_vae.encode(video, sample_posterior=False), before, atol=1e-5)
    close(own_vae.decode(before, 5), decoded, atol=1e-5)
    assert calls[0] == (micro_batch_size or 10)
    assert sum(calls) == 10


def test_frames_of_one_chunk_do_not_reach_another(own_vae):
    own_vae.micro_frame_size = 5
    assert own_vae.get_latent_size((12, 16, 24)) == (5, 2, 3)
    x = torch.rand(1, 3, 12, 16, 24) * 2 - 1
    changed = x.clone()
    changed[:, :, 5:10] *= -1
    z, other = (own_vae.encode(v, sample_posterior=False) for v in (x, changed))
    assert torch.equal(z[:, :, :2], other[:, :, :2])
    assert torch.equal(z[:, :, 4:], other[:, :, 4:])
    assert not torch.allclose(z[:, :, 2:4], other[:, :, 2:4])
    assert own_vae.decode(z, 12).shape == x.shape


def test_tiling_is_exact_up_to_one_tile(own_vae, video):
    z = own_vae.encode(video, sample_posterior=False)
    out = own_vae.decode(z, 5)
    own_vae.enable_tiling(32)
    assert torch.equal(own_vae.encode(video, sample_posterior=False), z)
    assert torch.equal(own_vae.decode(z, 5), out)


def test_tiling_stays_close_on_larger_frames(own_vae):
    rows, columns = torch.arange(72)[:, None], torch.arange(100)  # no multiples of the tile, nor of 8
    wave = torch.sin(2 * torch.pi * columns / 48) * torch.cos(2 * torch.pi * rows / 48)
    x = wave.expand(1, 3, 1, 72, 100).contiguous()
    z = own_vae.encode(x, sample_posterior=False)
    out = own_vae.decode(z, 1)
    own_vae.enable_tiling(64)
    tiled_z, tiled_out = own_vae.encode(x, sample_posterior=False), own_vae.decode(z, 1)
    assert tiled_z.shape == z.shape == (1, 4, *own_vae.get_latent_size((1, 72, 100)))
    assert tiled_out.shape == out.shape == (1, 3, 1, 72, 96)
    for tiled, plain, pixels in ((tiled_z, z, 2), (tiled_out, out, 16)):
        misplaced = (plain.roll(pixels, -1) - plain).abs().mean()
        assert 0 < (tiled - plain).abs().mean() < 0.5 * misplaced  # measured: 0.38 and 0.23 times
    own_vae.disable_tiling()
    assert torch.equal(own_vae.decode(z, 1), out)


def test_moments_are_those_encode_draws_from(vae, io):
    x = io["enc.n20.x"]
    posterior = vae.encode_moments(x, sample_posterior=False)
    close((posterior.mode() - vae.shift) / vae.scale, io["enc.n20.z_mode"])
    close(posterior.kl(), (0.5 * (posterior.mean**2 + posterior.std**2 - 1 - posterior.logvar)).sum((1, 2, 3, 4)), 1e-3)


def test_gradients_reach_every_parameter(own_vae, video):
    own_vae.requires_grad_(True).train()
    posterior = own_vae.encode_moments(video)
    latents = own_vae.temporal_vae.decode(posterior.sample(), video.shape[2])
    loss = (own_vae.spatial_decode(latents) - video).square().mean() + 1e-3 * posterior.kl().mean()
    loss.backward()
    assert [name for name, p in own_vae.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_forward_reconstructs_from_normalised_latents(vae, video):
    expected = vae.decode(vae.encode(video, sample_posterior=False), 5)
    assert torch.equal(vae(video, sample_posterior=False), expected)


def test_training_from_scratch_lowers_the_error(video):
    torch.manual_seed(0)
    vae = OpenSoraVAE(**settings()).train()
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    errors = []
    for _ in range(5):
        error = (vae(video, sample_posterior=False) - video).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.9 * errors[0]


# faults


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"vae_temporal": {"filter": 4}}, "Unknown settings of vae_temporal: filter. Known: .*filters"),
        (
            {"vae_temporal": settings()["vae_temporal"] | {"in_out_channels": 5}},
            "latent_channels=4 and vae_temporal's in_out_channels=5 differ",
        ),
        ({"scale": [1.0]}, "shift has 4 and scale 1 values; both need 4"),
        ({"scale": [1.0, 0.0, 1.0, 1.0]}, "scale"),
        ({"spatial_scaling": 0.0}, "spatial_scaling=0.0"),
        ({"micro_frame_size": 0}, "micro_frame_size=0 is not allowed"),
        ({"micro_batch_size": -4}, "micro_batch_size=-4 is not allowed"),
    ],
)
def test_contradicting_settings_are_refused(wrong, message):
    with pytest.raises(StgTuneError, match=message):
        OpenSoraVAE(**{**settings(), **wrong})


@pytest.mark.parametrize("shape", [(3, 5, 16, 24), (1, 4, 5, 16, 24), (1, 3, 0, 16, 24), (1, 3, 5, 7, 24)])
def test_videos_of_a_wrong_shape_are_refused(vae, shape):
    with pytest.raises(StgTuneError, match=r"takes \(batch, 3, frames, height, width\), .* at least 8"):
        vae.encode(torch.zeros(shape))


def test_latents_of_a_wrong_shape_are_refused(vae):
    with pytest.raises(StgTuneError, match=r"takes \(batch, 4, frames, height, width\)"):
        vae.decode(torch.zeros(1, 3, 5, 2, 3), 17)


@pytest.mark.parametrize(("frames", "needs"), [(16, 4), (18, 6), (0, 0), (-3, 0)])
def test_a_length_the_latents_do_not_have_is_refused(vae, frames, needs):
    with pytest.raises(StgTuneError, match=f"z has 5 latent frames but num_frames={frames} needs {needs} "):
        vae.decode(torch.zeros(1, 4, 5, 2, 3), frames)


@pytest.mark.parametrize("tile_size", [0, -32, 33, 8])
def test_tiles_that_do_not_overlap_by_whole_latents_are_refused(own_vae, tile_size):
    with pytest.raises(StgTuneError, match=f"tile_size={tile_size} is no positive multiple of 32 pixels"):
        own_vae.enable_tiling(tile_size)
