"""What the scheduler of a pipeline says about a step: how noisy the latents are, and what the denoiser predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from torch import Tensor

    from stg_tune.models.base import Architecture

Predicts = Literal["noise_minus_data", "data_minus_noise", "epsilon", "v_prediction", "sample"]
"""The first two are velocities of a flow; the others are diffusers' names."""
_FLOWS = ("noise_minus_data", "data_minus_noise")


@dataclass(frozen=True, kw_only=True)
class Share:
    """Latents are ``signal * clean + noise * n`` with ``n`` of unit variance."""

    signal: float
    """0 (pure noise) to 1."""
    noise: float
    """0 or more; 1 is pure noise, except where the signal stays 1."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """The level of a step as the denoiser sees it: latents ``signal * clean + noise * n``."""

    signal: float
    """0 (pure noise) to 1."""
    noise: float | Tensor
    """0 to 1; of a flow it may differ from place to place, in a shape that broadcasts with the latents."""
    predicts: Predicts
    """What the denoiser predicts."""

    def clean(self, x: Tensor, prediction: Tensor) -> Tensor:
        """The clean latents that a prediction for the noisy ones ``x`` implies, both as the denoiser has them."""
        match self.predicts:
            case "noise_minus_data":
                return x - self.noise * prediction
            case "data_minus_noise":
                return x + self.noise * prediction
            case "epsilon":
                return (x - self.noise * prediction) / max(self.signal, 1e-4)
            case "v_prediction":
                return self.signal * x - self.noise * prediction
            case "sample":
                return prediction

    def without_signal(self, x: Tensor, prediction: Tensor) -> Tensor:
        """The prediction for ``x`` whose clean latents are zero; ``prediction`` itself where there is no noise.

        Without noise every prediction implies the clean latents ``x``, and none is asked for.
        """
        if self.predicts == "sample":
            return torch.zeros_like(prediction)
        noise = torch.as_tensor(self.noise, dtype=x.dtype, device=x.device)
        zero = x / noise.where(noise > 0, 1.0)
        if self.predicts == "v_prediction":
            zero = self.signal * zero
        return torch.where(noise > 0, -zero if self.predicts == "data_minus_noise" else zero, prediction)


def level_of(scheduler: Any, index: int, timestep: Tensor) -> Level:
    """The level of step ``index`` of the schedule, in which the denoiser received ``timestep``.

    Raises:
        StgTuneError: Parts of the latents have another level (given frames).
    """
    if float(timestep.max()) != float(timestep.min()):
        raise StgTuneError(
            f"skip_op 'salient_blur' needs latents of one noise level, but the denoiser received timesteps from "
            f"{float(timestep.min()):g} to {float(timestep.max()):g}: this pipeline holds given frames among them. Use "
            "another skip_op, or the text-to-video pipeline"
        )
    return level_at(scheduler, index)


def level_at(scheduler: Any, index: int) -> Level:
    """The level of step ``index`` of the schedule, in latents that are all equally noisy."""
    predicts = predicts_of(scheduler)
    assert predicts is not None
    share = shares_of(scheduler)[index]
    size = 1.0 if predicts in _FLOWS else math.hypot(share.signal, share.noise)  # the pipeline scales to unit variance
    return Level(signal=share.signal / size, noise=share.noise / size, predicts=predicts)


def shares_of(scheduler: Any) -> list[Share]:
    """The shares of signal and noise in the latents before every step of the schedule, and after the last one."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        return [_share_at(scheduler, float(sigma)) for sigma in sigmas]
    times = [float(time) for time in scheduler.timesteps]
    if not hasattr(scheduler, "alphas_cumprod"):
        levels = [time / float(scheduler.config.num_timesteps) for time in times]
        return [Share(signal=1 - noise, noise=noise) for noise in (*levels, 0.0)]
    powers = [float(scheduler.alphas_cumprod[int(time)]) for time in times]
    powers.append(float(scheduler.final_alpha_cumprod))
    return [Share(signal=math.sqrt(power), noise=math.sqrt(1 - power)) for power in powers]


def _share_at(scheduler: Any, sigma: float) -> Share:
    name = type(scheduler).__name__
    if predicts_of(scheduler) in _FLOWS:
        noise = 1 - sigma if getattr(scheduler.config, "invert_sigmas", False) else sigma
        return Share(signal=1 - noise, noise=noise)
    if "Euler" in name:
        return Share(signal=1.0, noise=sigma)
    size = math.sqrt(sigma**2 + 1)
    return Share(signal=1 / size, noise=sigma / size)


def predicts_of(scheduler: Any) -> Predicts | None:
    """What a denoiser predicts that a scheduler is made for; ``None``: not known."""
    name = type(scheduler).__name__
    config: Any = getattr(scheduler, "config", None)
    if name == "OpenSoraScheduler":
        return "data_minus_noise"
    if name.startswith("FlowMatch"):
        return "data_minus_noise" if getattr(config, "invert_sigmas", False) else "noise_minus_data"
    if getattr(config, "use_flow_sigmas", False) and config.prediction_type == "flow_prediction":
        return "noise_minus_data"
    kinds: dict[str, Predicts] = {"epsilon": "epsilon", "v_prediction": "v_prediction", "sample": "sample"}
    known = hasattr(scheduler, "sigmas") or hasattr(scheduler, "alphas_cumprod")
    return kinds.get(getattr(config, "prediction_type", "")) if known and not name.startswith("EDM") else None


def check_estimates(scheduler: Any, record: Architecture, *, who: str, instead: str) -> None:
    """Raises ``StgTuneError`` where the clean latents cannot be estimated from the denoiser's prediction.

    Args:
        scheduler: Of the pipeline.
        record: Of its family.
        who: What needs the estimate, in the words of the message.
        instead: What to type.
    """
    if record.converts:
        raise StgTuneError(
            f"{who} estimates the clean latents from the denoiser's output, but the pipelines of the family "
            f"{record.family} convert that output before the scheduler: {instead}"
        )
    if predicts_of(scheduler) is None:
        kind = getattr(getattr(scheduler, "config", None), "prediction_type", "none")
        raise StgTuneError(
            f"{who} needs to know how noise and prediction are related, which a {type(scheduler).__name__} "
            f"(prediction_type {kind!r}) does not tell: use another scheduler, or {instead}"
        )
