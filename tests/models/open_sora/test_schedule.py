"""The rectified-flow scheduler against recordings of the official Open-Sora 1.2 code (tests/golden/opensora)."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.schedule import OpenSoraScheduler, timestep_transform
from stg_tune.models.open_sora.transformer import STDiT3

GOLDEN = Path(__file__).parents[2] / "golden" / "opensora"
META = json.loads((GOLDEN / "rflow_sample.meta.json").read_text())
TABLE = json.loads((GOLDEN / "timestep_transform.json").read_text())
DTYPES = {"torch.float32": torch.float32, "torch.bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def recorded():
    runs = {}
    for key, value in load_file(GOLDEN / "rflow_sample.safetensors").items():
        run, _, rest = key.partition(".")
        runs.setdefault(run, {})[rest] = value
    return runs


@pytest.fixture(scope="module")
def model():
    model = STDiT3(**json.loads((GOLDEN / "stdit3_tiny.config.json").read_text())).eval()
    model.load_state_dict(load_file(GOLDEN / "stdit3_tiny.state_dict.safetensors"))
    return model


def scheduler_of(run):
    names = ("use_timestep_transform", "use_discrete_timesteps")
    return OpenSoraScheduler(**{name: META[run]["sched"][name] for name in names if name in META[run]["sched"]})


def sizes_of(data):
    return {name: data[f"args.{name}"] for name in ("height", "width", "num_frames")}


def tiny(num_steps=6, **size):
    scheduler = OpenSoraScheduler()
    scheduler.set_timesteps(num_steps, **({"height": 64, "width": 64, "num_frames": 17} | size))
    return scheduler


# Parity with the official implementation


def test_every_recorded_run_is_tested(recorded):
    assert set(META) == set(recorded) - {"text"}


@pytest.mark.parametrize("run", sorted(META))
def test_timesteps_of_a_run(recorded, run):
    scheduler = scheduler_of(run)
    scheduler.set_timesteps(META[run]["steps"], **sizes_of(recorded[run]))
    expected = torch.stack([recorded[run][f"step{i}.t"][0] for i in range(META[run]["steps"])])
    torch.testing.assert_close(scheduler.timesteps, expected, atol=0, rtol=1e-6)


@pytest.mark.parametrize("run", sorted(META))
def test_steps_replay_the_recorded_latents(recorded, run):
    """The recorded predictions alone: no model, so the arithmetic must agree to the last bits."""
    data = recorded[run]
    z = sample(scheduler_of(run), data, META[run], lambda i, *_: data[f"step{i}.pred"])
    torch.testing.assert_close(z, data["out"], atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("run", sorted(set(META) - {"bf16"}))
def test_model_and_scheduler_reproduce_the_run(recorded, model, run):
    data, n = recorded[run], META[run]["n"]
    null = model.y_embedder.y_embedding.expand(n, 1, -1, -1)
    text = {"y": torch.cat([recorded["text"]["y"][:n], null]), "mask": recorded["text"]["mask"][:n]}
    arguments = {name: data[f"args.{name}"] for name in ("height", "width", "fps")}

    def predict(i, x, t, active):
        torch.testing.assert_close(x, data[f"step{i}.z_in"], atol=1e-4, rtol=0)
        return model(x, t, x_mask=active, **text, **arguments)

    with torch.no_grad():
        z = sample(scheduler_of(run), data, META[run], predict)
    torch.testing.assert_close(z, data["out"], atol=1e-4, rtol=0)


def sample(scheduler, data, meta, predict):
    """The official sampling loop; ``predict(step, model input, timesteps, frame mask)``."""
    scheduler.set_timesteps(meta["steps"], **sizes_of(data))
    scale = meta["sample"].get("guidance_scale", meta["sched"]["cfg_scale"])
    z, mask, active = data["z0"], data.get("mask"), None
    noised = None if mask is None else mask == 1
    for i, t in enumerate(scheduler.timesteps):
        x = z
        if mask is not None:
            x, active = scheduler.begin_masked_step(z, data[f"noise{i}"], t, mask=mask, noised=noised)
            torch.testing.assert_close(active.repeat(2, 1), data[f"step{i}.x_mask"])
            noised = active
        rows = torch.cat([x, x])
        assert str(rows.dtype) == meta["z_in_dtypes"][i]
        pred = predict(i, rows, t.expand(len(rows)), None if active is None else active.repeat(2, 1))
        cond, uncond = pred.chunk(2, dim=1)[0].chunk(2)
        stepped = scheduler.step(uncond + scale * (cond - uncond), t, x).prev_sample
        z = stepped if mask is None else scheduler.end_masked_step(stepped, z, active)
    return z


def test_add_noise():
    data = load_file(GOLDEN / "rflow_add_noise.safetensors")
    out = OpenSoraScheduler().add_noise(data["x0"], data["noise"], data["t"])
    torch.testing.assert_close(out, data["out"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("arg_dtype", sorted(DTYPES))
def test_timestep_transform_table(arg_dtype):
    rows = [row for row in TABLE["rows"] if row["arg_dtype"] == arg_dtype]
    assert len(rows) == 80
    for row in rows:
        names = ("height", "width", "num_frames")
        sizes = {name: torch.tensor([row[f"{name}_arg"]], dtype=DTYPES[arg_dtype]) for name in names}
        official = torch.tensor(row["transformed"])
        if 2 <= row["num_frames"] < 17:
            # The official formula takes these for 0 latent frames; the scheduler for one chunk.
            assert math.isnan(official[0])
            assert not official[1:].any()
            official = timestep_transform(
                torch.tensor(row["raw"]), **(sizes | {"num_frames": torch.tensor([17], dtype=DTYPES[arg_dtype])})
            )
        found = timestep_transform(torch.tensor(row["raw"]), **sizes)
        assert str(found.dtype) == row["out_dtype"]
        torch.testing.assert_close(found, official, atol=0, rtol=1e-6)


def test_transform_scale_table():
    for row in TABLE["scale_240x426x51"]:
        sizes = {"height": torch.tensor([240.0]), "width": torch.tensor([426.0]), "num_frames": torch.tensor([51.0])}
        found = timestep_transform(torch.tensor([row["t"]]), scale=row["scale"], **sizes)
        torch.testing.assert_close(found, torch.tensor([row["out"]]), atol=0, rtol=1e-6)


# Properties


@settings(deadline=None)
@given(
    num_steps=st.integers(1, 60),
    height=st.integers(16, 1280),
    width=st.integers(16, 1280),
    num_frames=st.integers(1, 408),
)
def test_timesteps_fall_from_noise_to_above_data(num_steps, height, width, num_frames):
    timesteps = tiny(num_steps, height=height, width=width, num_frames=num_frames).timesteps.tolist()
    assert timesteps[0] == pytest.approx(1000, rel=1e-6)
    assert all(earlier > later > 0 for earlier, later in pairwise([*timesteps, 1e-9]))


def test_exact_velocity_leads_to_the_data():
    g = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 4, 5, 2, 2, generator=g), torch.randn(2, 4, 5, 2, 2, generator=g)
    scheduler = tiny()
    z = noise
    for i, t in enumerate(scheduler.timesteps):
        torch.testing.assert_close(z, scheduler.add_noise(data, noise, t), atol=1e-5, rtol=0)
        z = scheduler.step(scheduler.velocity(data, noise), t, z, return_dict=bool(i % 2))[0]
    torch.testing.assert_close(z, data, atol=1e-5, rtol=0)


def test_steps_can_be_taken_in_any_order_and_again():
    scheduler = tiny()
    z = torch.ones(1, 4, 1, 2, 2)
    first = [scheduler.step(z, t, z).prev_sample for t in scheduler.timesteps]
    again = [scheduler.step(z, t, z).prev_sample for t in reversed(scheduler.timesteps)]
    torch.testing.assert_close(torch.stack(first), torch.stack(again[::-1]), atol=0, rtol=0)


def test_kept_frames_stay_and_generated_frames_move():
    scheduler = OpenSoraScheduler(use_timestep_transform=False)
    scheduler.set_timesteps(6)
    z, noise = torch.zeros(1, 4, 3, 2, 2), torch.ones(1, 4, 3, 2, 2)
    mask = torch.tensor([[0.0, 0.5, 1.0]])
    x, active = scheduler.begin_masked_step(z, noise, scheduler.timesteps[0], mask=mask, noised=mask == 1)
    assert active.tolist() == [[False, False, True]]
    assert not x.any()
    late = scheduler.timesteps[-1]
    x, active = scheduler.begin_masked_step(z, noise, late, mask=mask, noised=active)
    assert active.tolist() == [[False, True, True]]
    torch.testing.assert_close(x[0, 0, :, 0, 0], torch.tensor([0.0, late / 1000, 0.0]))
    kept = scheduler.end_masked_step(x + 1, z, active)
    assert not kept[:, :, 0].any()
    torch.testing.assert_close(kept[:, :, 1:], x[:, :, 1:] + 1)


@pytest.mark.parametrize("distribution", ["uniform", "logit-normal"])
def test_training_timesteps(distribution):
    def draw(seed, **changes):
        size = {"height": 64, "width": 64, "num_frames": 17} | changes
        generator = torch.Generator().manual_seed(seed)
        return OpenSoraScheduler().sample_timesteps(4000, generator, distribution=distribution, **size)

    t = draw(0)
    assert t.shape == (4000,)
    assert t.dtype == torch.float32
    assert 0 <= t.min() < t.max() <= 1000
    torch.testing.assert_close(t, draw(0), atol=0, rtol=0)
    assert not torch.equal(t, draw(1))
    assert draw(0, height=512, width=512).mean() > t.mean() + 50
    raw = OpenSoraScheduler(use_timestep_transform=False).sample_timesteps(
        4000, torch.Generator().manual_seed(0), distribution=distribution
    )
    assert raw.mean() == pytest.approx(500, abs=20)
    assert raw.std() == pytest.approx({"uniform": 288.7, "logit-normal": 208.0}[distribution], abs=12)


def test_training_timesteps_of_rows_with_different_sizes():
    scheduler, frames = OpenSoraScheduler(), torch.tensor([1.0, 17.0])
    t = scheduler.sample_timesteps(2, torch.Generator().manual_seed(0), height=64, width=64, num_frames=frames)
    for row in range(2):
        alone = scheduler.sample_timesteps(
            2, torch.Generator().manual_seed(0), height=64, width=64, num_frames=frames[row]
        )
        assert t[row] == alone[row]


def test_discrete_training_timesteps_are_integers():
    scheduler = OpenSoraScheduler(use_discrete_timesteps=True, use_timestep_transform=False)
    t = scheduler.sample_timesteps(500, torch.Generator().manual_seed(0))
    assert torch.equal(t, t.floor())
    assert t.max() < 1000


def test_saved_and_loaded_config(tmp_path):
    OpenSoraScheduler(transform_scale=0.7, use_discrete_timesteps=True).save_pretrained(tmp_path)
    loaded = OpenSoraScheduler.from_pretrained(tmp_path)
    assert loaded.config.transform_scale == 0.7
    assert loaded.config.use_discrete_timesteps is True
    assert len(loaded) == 1000


# Errors


def test_transform_without_a_size():
    with pytest.raises(StgTuneError, match=r"width=None.*use_timestep_transform=False"):
        OpenSoraScheduler().set_timesteps(6, height=64, num_frames=17)


def test_videos_of_different_sizes_in_one_batch():
    with pytest.raises(StgTuneError, match=r"height is \[64\.0, 32\.0\]"):
        tiny(height=torch.tensor([64.0, 32.0]))


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps(steps):
    with pytest.raises(StgTuneError, match=f"num_inference_steps is {steps}"):
        tiny(steps)


def test_more_steps_than_discrete_timesteps():
    with pytest.raises(StgTuneError, match="between 1 and 1000"):
        OpenSoraScheduler(use_discrete_timesteps=True).set_timesteps(1001, height=64, width=64, num_frames=17)


@pytest.mark.parametrize("scheduler", [OpenSoraScheduler(), tiny()])
def test_foreign_timestep(scheduler):
    with pytest.raises(StgTuneError, match=r"timestep 123\.0 is not one of the \d timesteps"):
        scheduler.step(torch.zeros(1), 123.0, torch.zeros(1))
