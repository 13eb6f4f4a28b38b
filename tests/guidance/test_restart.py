"""Restart in every scheduler that can go back: with a denoiser that knows the answer, the noise keeps its level."""

from __future__ import annotations

import diffusers
import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.guidance.noise import predicts_of, shares_of
from stg_tune.guidance.restart import noised, repeated_steps, restarted
from stg_tune.models.open_sora.schedule import OpenSoraScheduler
from stg_tune.records import Restart

CLEAN = 2.0
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULERS = {
    "flow": diffusers.FlowMatchEulerDiscreteScheduler,
    "flow inverted": lambda: diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    "unipc flow": lambda: diffusers.UniPCMultistepScheduler(**FLOW),
    "unipc epsilon": diffusers.UniPCMultistepScheduler,
    "dpm flow": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW),
    "dpm epsilon": diffusers.DPMSolverMultistepScheduler,
    "euler": lambda: diffusers.EulerDiscreteScheduler(prediction_type="v_prediction"),
    "euler ancestral": diffusers.EulerAncestralDiscreteScheduler,
    "edm": diffusers.EDMEulerScheduler,
    "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
    "cogvideox ddim": lambda: diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True
    ),
    "open-sora": lambda: OpenSoraScheduler(use_timestep_transform=False),
}


def perfect(scheduler, x, share, sigma):
    """What a denoiser predicts that knows that all data are ``CLEAN``."""
    if type(scheduler).__name__ == "EDMEulerScheduler":
        data = scheduler.config.sigma_data
        kept = data**2 / (sigma**2 + data**2)
        return (CLEAN - kept * x) * (sigma**2 + data**2) ** 0.5 / (sigma * data)
    noise = (x - share.signal * CLEAN) / share.noise
    size = (share.signal**2 + share.noise**2) ** 0.5
    signal, level = share.signal / size, share.noise / size
    return {
        "noise_minus_data": noise - CLEAN,
        "data_minus_noise": CLEAN - noise,
        "epsilon": noise,
        "v_prediction": signal * noise - level * CLEAN,
    }[predicts_of(scheduler) or "epsilon"]


def walk(scheduler, num_steps):
    """The spread of the noise in units of its level, before every step; and the final latents."""
    scheduler.set_timesteps(num_steps)
    shares = shares_of(scheduler)
    torch.manual_seed(0)
    x = shares[0].signal * CLEAN + shares[0].noise * torch.randn(2, 2, 4000)  # solvers want samples with channels
    spreads = []
    for position, time in enumerate(scheduler.timesteps):
        share = shares[position]
        spreads.append(float(((x - share.signal * CLEAN) / share.noise).std()))
        sigma = float(scheduler.sigmas[position]) if hasattr(scheduler, "sigmas") else 0.0
        if hasattr(scheduler, "scale_model_input"):  # pipelines call it, and Euler insists
            scheduler.scale_model_input(x, time)
        x = scheduler.step(perfect(scheduler, x, share, sigma), time, x, return_dict=False)[0]
    return spreads, x


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("stop", [0.8, 1.0])
def test_the_noise_keeps_its_level_and_the_end_is_clean(name, stop):
    scheduler = SCHEDULERS[name]()
    before = sorted(vars(scheduler))
    again = Restart(start=0.3, stop=stop, count=2)
    with restarted(scheduler, again):
        spreads, x = walk(scheduler, 10)
        assert len(spreads) == 10 + 2 * round(10 * (stop - 0.3))
        assert scheduler.stg_tune_steps == repeated_steps(10, again)
    assert spreads == pytest.approx([1.0] * len(spreads), abs=0.03)
    assert float((x - CLEAN).abs().max()) < (0.5 if name == "edm" else 0.2)
    assert set(vars(scheduler)) - set(before) <= {"num_inference_steps", "this_order"}
    assert len(walk(scheduler, 10)[0]) == 10


def test_noise_has_the_spread_of_the_level_it_goes_back_to():
    """Flow matching: from ``(1 - s) x + s e`` at s = 0.2 back to 0.6."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(5)
    shares = shares_of(scheduler)
    low, high = shares[-2], shares[1]
    torch.manual_seed(0)
    x = low.signal * CLEAN + low.noise * torch.randn(100_000)
    found = noised(x, low, high, None)
    assert float(found.mean()) == pytest.approx(high.signal * CLEAN, abs=0.01)
    assert float(found.std()) == pytest.approx(high.noise, abs=0.01)


@pytest.mark.parametrize(
    "make",
    [
        diffusers.CogVideoXDPMScheduler,
        diffusers.DDPMScheduler,
        lambda: diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
    ],
)
def test_schedulers_that_cannot_go_back_say_so(make):
    scheduler = make()
    with (
        pytest.raises(StgTuneError, match=type(scheduler).__name__),
        restarted(scheduler, Restart(start=0.1, stop=0.5)),
    ):
        pass


def test_a_stretch_without_steps_is_refused():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with (
        pytest.raises(StgTuneError, match="covers none of the 4 steps"),
        restarted(scheduler, Restart(start=0.3, stop=0.4)),
    ):
        scheduler.set_timesteps(4)
