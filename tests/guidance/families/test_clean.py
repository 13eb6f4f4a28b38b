"""The rescale of clean latents, against the schedulers' own estimates of them and LTX-2's own guidance."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import diffusers
import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
from stg_tune.guidance.combine import rescaled
from stg_tune.guidance.guider import STGGuider
from stg_tune.guidance.noise import Level
from stg_tune.guidance.restart import restarted
from stg_tune.models.base import GenerationDefaults
from stg_tune.models.families import WAN
from stg_tune.models.open_sora.schedule import OpenSoraScheduler
from stg_tune.preset import Preset
from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm

PHI = 0.7


@pytest.fixture
def made(cases, request):
    case = next(case for case in cases if case.name == getattr(request, "param", "wan"))
    return replace(case, build=lambda: with_scheduler(case.build())) if case.name in SCHEDULERS else case


SCHEDULERS = {
    "svd": {"sigma_max": 2.0},
    "cogvideox-i2v": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}
"""In two steps from sigma 700 to nothing the spaces would hardly differ; the other is CogVideoX's published one."""


def with_scheduler(pipe):
    name = "svd" if hasattr(pipe, "unet") else "cogvideox-i2v"
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **SCHEDULERS[name])
    return pipe


def preset_of(case, *, space="sample", rescale=PHI, op="residual", scale=1.5, cfg=3.0, stop=1.0, **more):
    term = SkipTerm(name=op, skip_layers=case.layers, skip_op=op, stg_scale=scale)
    segment = Segment(stop=stop, terms=(term,), rescale=rescale)
    return SimpleNamespace(spec=GuidanceSpec(cfg_scale=cfg, segments=(segment,), **more), combine_space=space)


def own_estimate(scheduler, step, prediction, x, timestep):
    """The clean latents as the scheduler itself has them in a step; ``x`` as the denoiser gets it."""
    name = type(scheduler).__name__
    if name == "FlowMatchEulerDiscreteScheduler" and timestep.dim() == 2:  # tokens have levels of their own
        return x - timestep[..., None] / 1000 * prediction
    if name == "FlowMatchEulerDiscreteScheduler":  # the rest of the way in one step
        return x + (float(scheduler.config.invert_sigmas) - scheduler.sigmas[step]) * prediction
    if name == "UniPCMultistepScheduler":
        before, scheduler._step_index = scheduler._step_index, step
        x0 = scheduler.convert_model_output(prediction, sample=x)
        scheduler._step_index = before
        return x0
    if name == "EulerDiscreteScheduler":
        sigma = scheduler.sigmas[step]
        alone = type(scheduler).from_config(scheduler.config)
        alone.timesteps, alone.sigmas = scheduler.timesteps, scheduler.sigmas
        return alone.step(prediction, scheduler.timesteps[step], x * (sigma**2 + 1) ** 0.5).pred_original_sample
    alone = type(scheduler).from_config(scheduler.config, clip_sample=False)
    alone.num_inference_steps = len(scheduler.timesteps)
    if name == "DDIMScheduler":
        return alone.step(prediction, scheduler.timesteps[step], x).pred_original_sample
    return alone.step(prediction, scheduler.timesteps[step], x, return_dict=True).pred_original_sample


def rescaled_slowly(x0, c0, phi):
    """Each sample by itself."""
    found = [one * (phi * two.std() / one.std() + 1 - phi) for one, two in zip(x0, c0, strict=True)]
    return torch.stack(found)


def in_clean_space(reference, pipe, phi):
    """A slow reference that goes to clean latents and back in every step; the way back is solved for numerically."""
    names = {"bfchw": 2, "bfhwc": 4, "bcfhw": 1, "tokens": 2}

    class Reference(reference.Reference):
        apart = 0.0

        def __call__(self, *args, **kwargs):
            self.given = (*args, *kwargs.values())[0], kwargs["timestep"] if "timestep" in kwargs else args[1]
            return super().__call__(*args, **kwargs)

        def combined(self, c, u, weak):
            own = self.record.prediction_channels
            c, u, *weak = (p[:, :own] for p in (c, u, *weak))
            x = super().combined(c, u, weak)
            latents, timestep = (item[-len(c) :] if item.dim() else item for item in self.given)
            axis = names[self.record.latents]
            latents = latents.narrow(axis, 0, c.shape[axis])
            step = int((pipe.scheduler.timesteps - timestep.max()).abs().argmin())

            def clean(p):
                return own_estimate(pipe.scheduler, step, p, latents, timestep)

            wanted = rescaled_slowly(clean(x), clean(c), phi)
            slope = clean(torch.ones_like(x)) - clean(torch.zeros_like(x))
            answer = x + torch.where(slope == 0, 0.0, (wanted - clean(x)) / slope)
            Reference.apart = max(Reference.apart, float((answer - rescaled_slowly(x, c, phi)).abs().max() / x.std()))
            return answer

    return Reference


def reference_run(reference, case, preset, *, prompts=1, within=lambda _: nullcontext()):
    negative = reference.negative_text(case, case.pipe(), prompts)
    pipe = case.pipe()
    kind = in_clean_space(reference, pipe, PHI)
    for denoiser in case.denoisers(pipe):
        denoiser.forward = kind(pipe, denoiser, preset.spec.segments[0].terms, preset.spec.cfg_scale, negative)
    torch.manual_seed(3)
    with within(pipe):
        found = case.run(pipe, prompts=prompts)
    assert kind.apart > 1e-2, "the space makes a difference, or nothing is tested"
    return found


FAMILIES = ["mochi", "svd", "ltx-i2v", "ltx-condition", "ltx2", "cogvideox-i2v", "hunyuan-video", "wan-2.2",
            "kandinsky5", "allegro"]  # fmt: skip


@pytest.mark.parametrize("made", FAMILIES, indirect=True)
def test_a_run_equals_one_that_goes_to_clean_latents_and_back(made, reference):
    preset = preset_of(made)
    pipe = made.pipe()
    with guided(pipe, preset):
        found = made.run(pipe)
    expected = reference_run(reference, made, preset)
    torch.testing.assert_close(found, expected, atol=2e-4 * max(float(expected.std()), 1), rtol=0)


def test_every_video_of_a_batch_has_its_own_spread(made, reference):
    preset = preset_of(made)
    pipe = made.pipe()
    with guided(pipe, preset):
        found = made.run(pipe, prompts=2)
    expected = reference_run(reference, made, preset, prompts=2)
    torch.testing.assert_close(found, expected, atol=2e-4 * max(float(expected.std()), 1), rtol=0)


@pytest.mark.parametrize("made", ["ltx2"], indirect=True)
def test_ltx2_follows_the_pipelines_own_guidance(made):
    """The tiny model must have what the pipeline's own STG switches off."""

    def build():
        pipe = made.pipe()
        torch.manual_seed(0)
        config = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
        transformer = type(pipe.transformer)(**{**config, "perturbed_attn": True})
        transformer.load_state_dict(pipe.transformer.state_dict())
        pipe.register_modules(transformer=transformer.eval().requires_grad_(requires_grad=False))
        return pipe

    pipe = build()
    own = {"stg_scale": 1.5, "audio_stg_scale": 1.5, "spatio_temporal_guidance_blocks": [1], "guidance_scale": 3.0,
           "guidance_rescale": PHI, "audio_guidance_rescale": 1e-9}  # fmt: skip
    expected = made.run(build(), **own)
    preset = preset_of(made, op="attention")
    with guided(pipe, preset):
        found = made.run(pipe)
    torch.testing.assert_close(found, expected, atol=2e-5 * float(expected.std()), rtol=0)
    raw = build()
    with guided(raw, preset.spec):
        assert (made.run(raw) - expected).abs().max() > 4e-4 * expected.std()


def test_given_frames_of_a_denoiser_with_a_timestep_a_token_count_as_clean(made):
    """Wan 2.2 5B holds the picture among the latents, at timestep 0."""
    pipe = type("WanPipeline", (SimpleNamespace,), {})()
    pipe.transformer, pipe.scheduler, pipe._guidance_scale = made.pipe().transformer, flow_of(3), 3.0
    x, text = torch.randn(2, 1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0)), torch.randn(2, 1, 16, 32)
    times = torch.full((1, 12), float(pipe.scheduler.timesteps[1]))
    times[:, :6] = 0
    call = {"hidden_states": x[0], "timestep": times, "return_dict": False}
    model = pipe.transformer
    with guided(pipe, preset_of(made, scale=0.0, cfg=3.0)):
        given = model(**call, encoder_hidden_states=text[0])[0]
        found = model(**call, encoder_hidden_states=text[1])[0]
    assert torch.equal(given, found)
    c, u = (model(**call, encoder_hidden_states=one)[0] for one in text)
    sigma = pipe.scheduler.sigmas[1] * torch.tensor([0.0, 1.0])[:, None, None]
    guided_x0, c0 = x[0] - sigma * (u + 3 * (c - u)), x[0] - sigma * c
    wanted = rescaled_slowly(guided_x0, c0, PHI)
    torch.testing.assert_close((x[0] - sigma * found)[:, :, 1], wanted[:, :, 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, :, 0], (u + 3 * (c - u))[:, :, 0], atol=1e-4, rtol=0)


def flow_of(steps):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    return scheduler


def test_open_sora_with_and_without_given_frames(harness, stdit):
    inputs = harness.inputs()
    scheduler = OpenSoraScheduler(use_timestep_transform=False)
    scheduler.set_timesteps(10)
    pipe = SimpleNamespace(transformer=stdit, scheduler=scheduler, guidance_scale=7.0)
    preset = SimpleNamespace(spec=harness.spec(cfg=3.0, rescale=PHI), combine_space="sample")
    x = inputs["x"][:2]
    for active in (None, torch.tensor([[False, True], [True, False], [False, True], [True, False]])):
        call = {**inputs, "x_mask": active}
        c, u = stdit(**call)[:, :4].chunk(2)
        guess = u + 3 * (c - u)
        with guided(pipe, preset, architecture=harness.architecture):
            found = stdit(**call)[:2, :4]
        noise = 0.9 * (torch.ones(2, 1, 2, 1, 1) if active is None else active[:2, None, :, None, None])
        wanted = rescaled_slowly(x + noise * guess, x + noise * c, PHI)
        wanted = torch.where(noise > 0, wanted, x)  # no prediction could change a frame without noise
        torch.testing.assert_close(x + noise * found, wanted, atol=1e-4 * float(wanted.std()), rtol=1e-5)
        assert (found - rescaled(guess, c, PHI)).abs().max() > 1e-3


def test_steps_that_are_taken_again_have_their_own_level(made, reference):
    """Restart lengthens the schedule: a wrong place in it would be another noise level."""
    restart = Restart(start=0.3, stop=0.7, count=1)

    def build():
        pipe = made.build()
        pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        return pipe

    case = replace(made, build=build, inputs=lambda n, cfg: {**made.inputs(n, cfg), "num_inference_steps": 3})
    preset = preset_of(case, restart=restart)
    pipe = case.pipe()
    torch.manual_seed(3)
    with guided(pipe, preset):
        found = case.run(pipe)
    expected = reference_run(reference, case, preset, within=lambda pipe: restarted(pipe.scheduler, restart))
    torch.testing.assert_close(found, expected, atol=2e-4 * max(float(expected.std()), 1), rtol=0)


@pytest.mark.parametrize("made", ["wan", "ltx2", "cosmos"], indirect=True)
def test_without_a_rescale_the_space_makes_no_difference(made):
    pipe, other = made.pipe(), made.pipe()
    preset = preset_of(made, rescale=0.0)
    with guided(pipe, preset):
        found = made.run(pipe)
    with guided(other, preset.spec):
        assert torch.equal(found, made.run(other))


def test_a_rescale_of_the_prediction_is_what_it_was(made):
    pipe, other = made.pipe(), made.pipe()
    preset = preset_of(made, space="velocity")
    with guided(pipe, preset):
        found = made.run(pipe)
    with guided(other, preset.spec):
        assert torch.equal(found, made.run(other))


@pytest.mark.parametrize("made", ["cosmos", "cosmos-2"], indirect=True)
def test_families_that_hide_the_clean_latents_refuse_it(made):
    match = "a rescale of x0 .* convert that output before the scheduler: give guided.. the preset's `.spec`"
    pipe = made.pipe()
    with pytest.raises(StgTuneError, match=match), guided(pipe, preset_of(made)):
        pass


def test_a_scheduler_that_does_not_say_what_is_predicted_is_refused(made):
    pipe = made.pipe()
    pipe.scheduler = diffusers.EDMDPMSolverMultistepScheduler()
    match = "a rescale of x0 .* EDMDPMSolverMultistepScheduler .* does not tell: use another scheduler, or give guided"
    with pytest.raises(StgTuneError, match=match), guided(pipe, preset_of(made)):
        pass


def test_a_record_with_another_layout_is_refused(made):
    pipe = made.pipe()
    with (
        pytest.raises(StgTuneError, match="needs latents and predictions of one layout"),
        guided(pipe, preset_of(made), architecture=replace(WAN, latents="tokens", prediction_channels=3)),
    ):
        made.run(pipe)


@pytest.mark.parametrize("kind", ["noise_minus_data", "data_minus_noise", "epsilon", "v_prediction", "sample"])
def test_latents_are_made_of_what_a_prediction_says(kind):
    """``x = signal x0 + noise n`` with the noise that the prediction means, and zero where it means no signal."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 4, 4, 4, generator=generator), torch.randn(2, 3, 4, 4, 4, generator=generator)
    signal, share = (0.6, 0.8) if kind in ("epsilon", "v_prediction", "sample") else (0.3, 0.7)
    x = signal * x0 + share * noise
    predictions = {"noise_minus_data": noise - x0, "data_minus_noise": x0 - noise, "epsilon": noise,
                   "v_prediction": signal * noise - share * x0, "sample": x0}  # fmt: skip
    level = Level(signal=signal, noise=share, predicts=kind)
    torch.testing.assert_close(level.clean(x, predictions[kind]), x0)
    zero = level.without_signal(x, predictions[kind])
    torch.testing.assert_close(level.clean(x, zero), torch.zeros_like(x), atol=1e-6, rtol=0)


def a_preset(**changes):
    term = SkipTerm(name="t", skip_layers={"blocks": (1,)}, skip_op="residual", stg_scale=1.0)
    generation = GenerationDefaults(height=32, width=48, num_frames=5, num_inference_steps=2, cfg_scale=4.0, fps=8)
    fields = {
        "name": "mine", "family": "wan", "model": "wan", "checkpoint": "none", "revision": "", "stacks": {"blocks": 3},
        "spec": GuidanceSpec(cfg_scale=4.0, segments=(Segment(terms=(term,), rescale=PHI),)), "generation": generation,
    }  # fmt: skip
    return Preset(**{**fields, **changes})


def test_a_guider_refuses_a_rescale_of_clean_latents(made, tmp_path):
    with pytest.raises(StgTuneError, match="a guider sees no latents"):
        STGGuider(a_preset(combine_space="sample").to_dict(), "wan")
    guider = STGGuider(a_preset().to_dict(), "wan")
    guider.save_pretrained(tmp_path)
    assert STGGuider.from_pretrained(tmp_path)._spec == a_preset().spec
    deep = STGGuider(a_preset(stacks={"blocks": 40}).to_dict(), "wan")
    deep.set_state(step=0, num_inference_steps=1, timestep=torch.tensor([900.0]))
    with pytest.raises(StgTuneError, match="made for a model with 40 blocks blocks"):
        deep.prepare_models(made.pipe().transformer)


def test_a_whole_preset_is_followed(made):
    pipe, other = made.pipe(), made.pipe()
    with guided(pipe, a_preset(combine_space="sample")):
        found = made.run(pipe)
    with guided(other, a_preset()):
        assert not torch.allclose(found, made.run(other), atol=1e-3)
