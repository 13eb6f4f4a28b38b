"""The rescale of presets whose ``combine_space`` is ``sample``: taken on the clean latents, given as a prediction.

Everything else about a combination is linear, so it is the same in every space. Clean latents are linear in the
prediction too: with ``z`` the prediction that implies clean latents of zero, a prediction ``x`` whose clean latents are
to be multiplied by ``f`` becomes ``f x + (1 - f) z``, whatever the model predicts.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from stg_tune.errors import StgTuneError
from stg_tune.guidance.combine import rescale_factor
from stg_tune.guidance.grid import grid_of
from stg_tune.guidance.noise import check_estimates, level_at

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stg_tune.guidance.combine import Rescale
    from stg_tune.guidance.noise import Level
    from stg_tune.guidance.perturb import Stage
    from stg_tune.guidance.rows import Call
    from stg_tune.models.base import Architecture

WHO = "a rescale of x0 (combine_space 'sample')"
"""What messages call it."""
INSTEAD = "give guided() the preset's `.spec` to rescale the prediction instead, or set rescale to 0"


def rescaled_clean(level: Level, latents: Tensor, x: Tensor, c: Tensor, factor: float) -> Tensor:
    """The prediction whose clean latents are those of ``x`` rescaled by ``combine.rescaled``.

    Args:
        level: Of the step.
        latents: What the denoiser got, in the shape of the predictions.
        x: Guided prediction.
        c: Prediction with the prompt.
        factor: ``phi``, 0 to 1.
    """
    share = rescale_factor(level.clean(latents, x), level.clean(latents, c), factor)
    return share * x + (1 - share) * level.without_signal(latents, x)


class CleanRescale:
    """Makes the rescale of a step out of its call."""

    def __init__(self, pipe: Any, record: Architecture, denoiser: nn.Module, stage: Stage) -> None:
        """Raises ``StgTuneError`` where the clean latents cannot be estimated."""
        check_estimates(pipe.scheduler, record, who=WHO, instead=INSTEAD)
        self._pipe = pipe
        self._record = record
        self._denoiser = denoiser
        self._stage = stage

    def __call__(self, call: Call, c: Tensor) -> Rescale:
        """The rescale for the prompted rows of a call, whose prediction is ``c``."""
        level = level_at(self._pipe.scheduler, self._stage.step)
        share = self._share_of_noise(call, level)
        if share is not None:
            level = replace(level, noise=level.noise * share.to(c.dtype))
        return partial(rescaled_clean, level, self._latents(call, c))

    def _latents(self, call: Call, c: Tensor) -> Tensor:
        """What is denoised, without the channels of a picture behind it."""
        axis = 2 if self._record.latents == "tokens" else self._record.latents.index("c")
        given = call.latents
        if given.dim() != c.dim() or given.shape[axis] < c.shape[axis]:
            raise self._shapes_differ(given, c)
        latents = given.narrow(axis, 0, c.shape[axis]).to(c.dtype)
        if latents.shape != c.shape:
            raise self._shapes_differ(given, c)
        return latents

    def _shapes_differ(self, latents: Tensor, c: Tensor) -> StgTuneError:
        return StgTuneError(
            f"{WHO} needs latents and predictions of one layout, but they are {tuple(latents.shape)} and "
            f"{tuple(c.shape)} (`latents` of the architecture record is {self._record.latents!r}): {INSTEAD}"
        )

    def _share_of_noise(self, call: Call, level: Level) -> Tensor | None:
        """How much of the step's noise each place holds: less than 1 in given frames; ``None``: all of it."""
        active = call.given("x_mask")
        if active is not None:
            return self._in_layout(active.float()[:, None, :, None, None])
        times = call.timestep.float()
        if float(times.max()) == float(times.min()):
            return None
        if level.predicts != "noise_minus_data" or times.dim() != 2:
            raise StgTuneError(
                f"{WHO} does not know how noisy given frames are here, which the denoiser received with timesteps from "
                f"{float(times.min()):g} to {float(times.max()):g}: {INSTEAD}"
            )
        return self._of_tokens(times / times.max(), call)

    def _of_tokens(self, share: Tensor, call: Call) -> Tensor:
        """``(batch, tokens)`` as it broadcasts with the latents."""
        if self._record.latents == "tokens":
            return share[..., None]
        grid = grid_of(call, self._record, self._denoiser)
        shape = grid.shape(share.shape[1], "all")
        return self._in_layout(F.interpolate(share.unflatten(1, shape)[:, None], grid.latents))

    def _in_layout(self, x: Tensor) -> Tensor:
        """``(batch, channels, frames, height, width)`` in the order of the latents."""
        return x.permute(["bcfhw".index(axis) for axis in self._record.latents])
