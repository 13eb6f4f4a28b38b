"""SEG with a finite blur and SAG, against dense kernels, explicit attention maps and the schedulers' own estimates."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import product
from unittest import mock

import pytest
import torch
from torch.nn import functional

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
from stg_tune.guidance.blur import blurred, gaussian
from stg_tune.guidance.families import architecture_of
from stg_tune.guidance.grid import grid_of
from stg_tune.guidance.guider import STGGuider
from stg_tune.guidance.places import attentions_of
from stg_tune.guidance.rows import Call, parameter_names
from stg_tune.guidance.saliency import attention_paid
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

SDPA = functional.scaled_dot_product_attention


class CaughtError(Exception):
    pass


@pytest.fixture
def made(cases, request):
    return next(case for case in cases if case.name == request.param)


def weak_alone(layers, op, sigma):
    """With cfg_scale 1 and stg_scale -1 the answer is the weak prediction."""
    term = SkipTerm(name="t", skip_layers=layers, skip_op=op, stg_scale=-1.0, blur_sigma=sigma)
    return GuidanceSpec(cfg_scale=1.0, segments=(Segment(terms=(term,)),))


def one_call(case, pipe):
    """What the denoiser gets in the second step, or the last of two in its first: no longer pure noise."""
    *others, denoiser = case.denoisers(pipe)
    inner, calls = denoiser.forward, []

    def catch(*args, **kwargs):
        if calls or others:
            raise CaughtError(args, kwargs)
        calls.append(1)
        return inner(*args, **kwargs)

    denoiser.forward = catch
    try:
        with pytest.raises(CaughtError) as caught:
            case.run(pipe, cfg=1.0)
    finally:
        del denoiser.forward
    return caught.value.args


def block_of(case, pipe, stack, index):
    denoiser = case.denoisers(pipe)[0]
    if stack.path in dict(denoiser.named_modules()):
        return denoiser.get_submodule(stack.path)[index]
    name = "transformer_blocks" if stack.name == "spatial" else "temporal_transformer_blocks"
    stages = [*denoiser.down_blocks, denoiser.mid_block, *denoiser.up_blocks]
    return [block for s in stages for a in getattr(s, "attentions", []) for block in getattr(a, name)][index]


@contextmanager
def attention_answered(module, answer):
    """Inside ``module`` attention is ``answer(query, key, value, mask)``."""
    inner = module.forward

    def forward(*args, **kwargs):
        def answered(query, key, value, attn_mask=None, **_):
            return answer(query, key, value, attn_mask)

        with mock.patch.object(functional, "scaled_dot_product_attention", answered):
            return inner(*args, **kwargs)

    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def first(output):
    return output[0] if isinstance(output, tuple) else output.sample


def test_a_gaussian_is_normalised_symmetric_and_ends_in_the_mean():
    kernel = gaussian(7, 1.3)
    torch.testing.assert_close(kernel.sum(1), torch.ones(7))
    assert kernel[3, 2] == kernel[3, 4] > kernel[3, 5]
    assert float(kernel[3, 4] / kernel[3, 3]) == pytest.approx(2.718281828 ** (-1 / (2 * 1.3**2)))
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blurred(x, 1000.0, (1, 2)), x.mean((1, 2), keepdim=True).expand_as(x), atol=1e-4, rtol=0)
    torch.testing.assert_close(blurred(x, 0.05, (1, 2)), x)


def test_tokens_lie_where_the_record_says(case):
    """The token that a changed latent pixel changes most is the one of the grid."""
    if case.name == "ltx-condition":
        pytest.skip("its call does not tell the size")
    pipe = case.pipe()
    record = architecture_of(pipe)
    denoiser = case.denoisers(pipe)[0]
    args, kwargs = one_call(case, pipe)
    call = Call(args=args, kwargs=kwargs, names=parameter_names(denoiser))
    grid = grid_of(call, record, denoiser)
    place = (1, grid.latents[1] - 1, 1)
    latents = call.latents.clone()
    changed = latents.unflatten(1, grid.latents) if record.latents == "tokens" else latents
    index = dict(zip("fhw", place, strict=True))
    axes = "bfhwc" if record.latents == "tokens" else record.latents
    changed[tuple(index.get(axis, slice(None)) for axis in axes)] += 30.0
    stack = record.stacks[0]
    module = attentions_of(block_of(case, pipe, stack, 0), stack)[0]
    seen = [entering(denoiser, module, item) for item in (call, call.with_latents(latents))]
    shape = grid.shape(seen[0].shape[1], stack.axes)
    most = (seen[1] - seen[0]).norm(dim=-1).flatten().argmax()
    full = (len(seen[0]), *shape) if stack.axes == "space" else shape
    tokens = [position // step for position, step in zip(place, grid.patch, strict=True)]
    found = [int(i) for i in torch.unravel_index(most, full)]
    away = max(abs(a - b) for a, b in zip(found, tokens, strict=True))
    assert away <= (2 if record.unet else 0), (found, tokens)  # convolutions spread


def entering(denoiser, module, call):
    seen = []

    def note(_module, args, kwargs):
        seen.append((*args, *kwargs.values())[0])
        raise CaughtError

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        denoiser(*call.args, **call.kwargs)
    except CaughtError:
        return seen[0]
    finally:
        handle.remove()


def dense(shape, sigma):
    """The Gaussian of a grid as one matrix."""
    places = torch.tensor(list(product(*map(range, shape))), dtype=torch.float32)
    weights = torch.exp(-((places[:, None] - places) ** 2).sum(-1) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


SEG = [("wan", {"blocks": (1,)}, (2, 2, 3)), ("cogvideox", {"blocks": (1,)}, (3, 2, 2)),
       ("mochi", {"blocks": (1,)}, (2, 2, 3)), ("latte", {"spatial": (1,)}, (4, 4)),
       ("latte", {"temporal": (1,)}, (2,)), ("svd", {"spatial": (3,)}, (4, 4))]  # fmt: skip


@pytest.mark.parametrize(("made", "layers", "shape"), SEG, indirect=["made"], ids=lambda v: getattr(v, "name", None))
def test_a_finite_blur_of_the_queries(made, layers, shape):
    pipe = made.pipe()
    denoiser = made.denoisers(pipe)[0]
    args, kwargs = one_call(made, pipe)
    name, (index,) = next(iter(layers.items()))
    stack = next(stack for stack in architecture_of(pipe).stacks if stack.name == name)
    module = attentions_of(block_of(made, pipe, stack, index), stack)[0]
    kernel = dense(shape, 0.8)

    def by_hand(query, key, value, mask):
        start = query.shape[-2] - len(kernel) if stack.text == "before" else 0
        whole = torch.eye(query.shape[-2])
        whole[start : start + len(kernel), start : start + len(kernel)] = kernel
        return SDPA(whole @ query, key, value, mask)

    with attention_answered(module, by_hand):
        expected = first(denoiser(*args, **kwargs))
    with guided(pipe, weak_alone(layers, "blur", 0.8)):
        found = first(denoiser(*args, **kwargs))
    own = architecture_of(pipe).prediction_channels
    torch.testing.assert_close(found[:, :own], expected[:, :own], atol=1e-5 * max(1.0, float(found.std())), rtol=0)
    with guided(pipe, weak_alone(layers, "blur", None)):
        endless = first(denoiser(*args, **kwargs))
    with guided(pipe, weak_alone(layers, "blur", 500.0)):
        wide = first(denoiser(*args, **kwargs))
    assert (endless - expected)[:, :own].abs().max() > 1e-5
    torch.testing.assert_close(wide, endless, atol=1e-4 * max(1.0, float(expected.std())), rtol=0)


def clean_estimate(scheduler, prediction, x):
    """``x0`` and the signal share, as the scheduler itself has them; ``x`` as the denoiser gets it."""
    t = scheduler.timesteps[1]
    name = type(scheduler).__name__
    if name == "FlowMatchEulerDiscreteScheduler":  # the rest of the way in one step
        sigma, end = scheduler.sigmas[1], float(scheduler.config.invert_sigmas)
        return x + (end - sigma) * prediction, abs(1 - end - sigma)
    if name == "UniPCMultistepScheduler":
        scheduler._step_index = 1
        return scheduler.convert_model_output(prediction, sample=x), 1 - scheduler.sigmas[1]
    if name == "EulerDiscreteScheduler":
        scale = (scheduler.sigmas[1] ** 2 + 1) ** 0.5
        scheduler._step_index = None
        return scheduler.step(prediction, t, x * scale).pred_original_sample, 1 / scale
    scheduler.register_to_config(clip_sample=False)
    return scheduler.step(prediction, t, x).pred_original_sample, scheduler.alphas_cumprod[int(t)] ** 0.5


SAG = [("wan", (1, 2, 2)), ("mochi", (1, 2, 2)), ("cogvideox", (1, 2, 2)), ("latte", (1, 2, 2)), ("svd", (1, 2, 2)),
       ("ltx", (1, 1, 1))]  # fmt: skip
LAYERS = {"latte": {"spatial": (1,)}, "svd": {"spatial": (2,)}}
ORDERS = {"cogvideox": (0, 2, 1, 3, 4), "svd": (0, 2, 1, 3, 4)}


def as_video(name, x, kwargs):
    """``(batch, channels, frames, height, width)``."""
    if name == "ltx":
        x = x.unflatten(1, (kwargs["num_frames"], kwargs["height"], kwargs["width"])).permute(0, 4, 1, 2, 3)
    return x.permute(ORDERS.get(name, (0, 1, 2, 3, 4)))


def from_video(name, x):
    return x.flatten(2).transpose(1, 2) if name == "ltx" else x.permute(ORDERS.get(name, (0, 1, 2, 3, 4)))


@pytest.mark.parametrize(("made", "patch"), SAG, indirect=["made"], ids=lambda v: getattr(v, "name", None))
def test_salient_latents_are_blurred(made, patch):
    pipe = made.pipe()
    denoiser = made.denoisers(pipe)[0]
    args, kwargs = one_call(made, pipe)
    layers = LAYERS.get(made.name, {"blocks": (1,)})
    name, (index,) = next(iter(layers.items()))
    stack = next(stack for stack in architecture_of(pipe).stacks if stack.name == name)
    module = attentions_of(block_of(made, pipe, stack, index), stack)[0]
    maps = []

    def spy(query, key, value, mask):
        logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if mask is not None:
            logits = logits.masked_fill(~mask, -1e9) if mask.dtype == torch.bool else logits + mask
        maps.append(logits.softmax(-1).mean(1))
        return SDPA(query, key, value, mask)

    with attention_answered(module, spy):
        output = first(denoiser(*args, **kwargs))
    given = (*args, *kwargs.values())[0]
    video = as_video(made.name, given, kwargs)
    c = as_video(made.name, output, kwargs)[:, : {"svd": 4, "latte": 4}.get(made.name)]
    x = video[:, : c.shape[1]]
    x0, signal = clean_estimate(pipe.scheduler, c, x)
    noise = (x - signal * x0) / (1 - signal if "Flow" in type(pipe.scheduler).__name__
                                  or made.name == "wan" else (1 - signal**2) ** 0.5)  # fmt: skip
    sizes = [size // step for size, step in zip(video.shape[2:], patch, strict=True)]
    number = sizes[1] * sizes[2] * (1 if stack.axes == "space" else sizes[0])
    part = slice(-number, None) if stack.text == "before" else slice(0, number)
    paid = torch.cat(maps)[:, part, part].sum(1)
    salient = (paid > paid.mean(1, keepdim=True)).reshape(sizes)
    for axis, step in enumerate(patch):
        salient = salient.repeat_interleave(step, axis)
    assert 0 < salient.float().mean() < 1
    kernel = dense(video.shape[-2:], 1.2)
    soft = (x0.flatten(-2) @ kernel.T).unflatten(-1, video.shape[-2:])
    degraded = signal * torch.where(salient, soft, x0) + noise * noise_share(signal, pipe, made)
    latents = from_video(made.name, torch.cat([degraded, video[:, c.shape[1] :]], 1)).to(given.dtype)
    call = Call(args=args, kwargs=kwargs, names=parameter_names(denoiser)).with_latents(latents)
    expected = first(denoiser(*call.args, **call.kwargs))
    with guided(pipe, weak_alone(layers, "salient_blur", 1.2)) as run:
        found = first(denoiser(*args, **kwargs))
    assert run.effects()["t"] > 1e-4
    torch.testing.assert_close(found[:, : c.shape[1]], expected[:, : c.shape[1]], atol=2e-4, rtol=2e-4)


def noise_share(signal, pipe, made):
    return 1 - signal if "Flow" in type(pipe.scheduler).__name__ or made.name == "wan" else (1 - signal**2) ** 0.5


NO_SAG = {"cosmos": "convert that output", "cosmos-2": "convert that output", "ltx-i2v": "given frames",
          "ltx-condition": "does not tell"}  # fmt: skip


def test_every_family_carries_both_or_says_why_not(case):
    stack = next(iter(case.layers))
    layers = {stack: case.layers[stack]}
    soft = SkipTerm(name="seg", skip_layers=layers, skip_op="blur", stg_scale=1.0, blur_sigma=1.0)
    salient = SkipTerm(name="sag", skip_layers=layers, skip_op="salient_blur", stg_scale=1.0, blur_sigma=1.0)
    pipe = case.pipe()
    refusal = NO_SAG.get(case.name)
    if refusal:
        guidance = GuidanceSpec(cfg_scale=case.cfg + 1, segments=(Segment(terms=(salient,)),))
        with pytest.raises(StgTuneError, match=refusal), guided(pipe, guidance):
            case.run(pipe)
        return
    terms = (soft, salient)
    with guided(pipe, GuidanceSpec(cfg_scale=case.cfg + 1, segments=(Segment(terms=terms),))) as run:
        assert torch.isfinite(case.run(pipe)).all()
    assert all(effect > 1e-6 for effect in run.effects().values()), run.effects()


@pytest.mark.parametrize("made", ["latte"], indirect=True)
def test_attention_over_time_has_no_map_of_a_frame(made):
    with (
        pytest.raises(StgTuneError, match="stack 'temporal', whose attention runs over time"),
        guided(made.pipe(), weak_alone({"temporal": (1,)}, "salient_blur", 1.0)),
    ):
        pass


def test_a_guider_refuses_what_needs_the_grid():
    with pytest.raises(StgTuneError, match="does not see where tokens lie"):
        STGGuider(weak_alone({"blocks": (1,)}, "blur", 2.0).to_dict(), "wan")


def test_attention_paid_does_not_depend_on_the_size_of_its_parts(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 3, 9, 4, generator=generator) for _ in range(2))
    mask = torch.rand(2, 1, 1, 9, generator=generator) > 0.3
    mask[..., 0] = True
    whole = attention_paid(query, key, mask, slice(2, 9))
    monkeypatch.setattr("stg_tune.guidance.saliency._MOST_WEIGHTS", 60)
    torch.testing.assert_close(attention_paid(query, key, mask, slice(2, 9)), whole)
    torch.testing.assert_close(whole.mean(1), torch.ones(2))
    assert whole.std() > 0.05
