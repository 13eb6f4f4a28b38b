"""Rectified flow of Open-Sora 1.2 as a diffusers scheduler, for sampling and training.

Timestep 1000 is noise, 0 is data; the model predicts the velocity from noise to data. Formulas: Open-Sora v1.2.0
(https://github.com/hpcaitech/Open-Sora, commit 17cce908, ``schedulers/rf``).
"""

from __future__ import annotations

from typing import Literal

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from stg_tune.errors import StgTuneError

Size = int | float | Tensor

_BASE_PIXELS = 512 * 512
_CHUNK_FRAMES = 17
_CHUNK_LATENTS = 5


def timestep_transform(
    t: Tensor, *, height: Tensor, width: Tensor, num_frames: Tensor, scale: float = 1.0, num_timesteps: int = 1000
) -> Tensor:
    """Moves timesteps towards noise for large videos: ``r t / (1 + (r - 1) t)`` with ``t`` in [0, 1].

    ``r = scale * sqrt(height * width / 512**2) * sqrt(latent frames)``. Latent frames are 1 for an image and 5 for
    every full chunk of 17 frames. The official formula counts 0 for 2 to 16 frames, which makes every timestep 0 or
    NaN; here a video counts as at least one chunk, so these videos share the timesteps of 17 frames.

    Args:
        t: Timesteps in [0, num_timesteps], any shape that broadcasts with the sizes.
        height: Pixels. Arithmetic is done in the dtype of the sizes, as in the official code.
        width: Pixels.
        num_frames: Frames of the video, 1 for an image.
        scale: Extra factor on ``r``.
        num_timesteps: Timestep of pure noise.
    """
    t = t / num_timesteps
    ratio_space = (height * width / _BASE_PIXELS).sqrt()
    ratio = ratio_space * _latent_frames(num_frames).sqrt() * scale
    return ratio * t / (1 + (ratio - 1) * t) * num_timesteps


def _latent_frames(num_frames: Tensor) -> Tensor:
    video = (num_frames // _CHUNK_FRAMES).clamp(min=1) * _CHUNK_LATENTS
    return torch.where(num_frames == 1, torch.ones_like(num_frames), video)


def _rows(size: Size) -> Tensor:
    return size.flatten().cpu() if isinstance(size, Tensor) else torch.tensor([float(size)])


def _single(size: Size | None, name: str) -> Size | None:
    """``size`` as one number in its own dtype: a sampling run has one schedule."""
    if not isinstance(size, Tensor):
        return size
    rows = _rows(size)
    if bool((rows != rows[0]).any()):
        raise StgTuneError(f"{name} is {rows.tolist()}. Videos of a batch share their timesteps: give them one {name}.")
    return rows[:1]


def per_frame(flags: Tensor) -> Tensor:
    """``(batch, frames)`` shaped to broadcast with latents ``(batch, channels, frames, height, width)``."""
    return flags[:, None, :, None, None]


class OpenSoraScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Euler steps along the rectified flow, with timesteps that depend on the size of the video.

    ``step`` looks its timestep up instead of counting calls, so it keeps no state between runs.

    Args:
        num_timesteps: Timestep of pure noise.
        use_discrete_timesteps: Round timesteps to integers before the transform.
        use_timestep_transform: Apply :func:`timestep_transform`; ``set_timesteps`` then needs the size of the video.
        transform_scale: Factor of the transform's ratio.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_timesteps: int = 1000,
        use_discrete_timesteps: bool = False,
        use_timestep_transform: bool = True,
        transform_scale: float = 1.0,
    ) -> None:
        self.num_inference_steps: int | None = None
        self.timesteps = torch.empty(0)
        self._values: list[float] = []
        self._deltas: list[float] = []

    def set_timesteps(
        self,
        num_inference_steps: int,
        *,
        height: Size | None = None,
        width: Size | None = None,
        num_frames: Size | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Fills ``timesteps``, float32 ``(num_inference_steps,)`` and decreasing from ``num_timesteps``.

        Args:
            num_inference_steps: Steps, at least 1.
            height: Pixels; a tensor keeps its dtype in the arithmetic.
            width: Pixels.
            num_frames: Frames of the video.
            device: Of ``timesteps``.

        Raises:
            StgTuneError: No steps, more steps than discrete timesteps, the size of the video is missing although the
                transform needs it, or differs between the rows.
        """
        self._check_steps(num_inference_steps)
        sizes = (_single(height, "height"), _single(width, "width"), _single(num_frames, "num_frames"))
        total = self.config.num_timesteps
        values = [(1.0 - i / num_inference_steps) * total for i in range(num_inference_steps)]
        if self.config.use_discrete_timesteps:
            values = [round(value) for value in values]
        timesteps = self._transform(torch.tensor(values, dtype=torch.float32), *sizes)
        self.num_inference_steps = num_inference_steps
        self._values = timesteps.tolist()
        self._deltas = ((timesteps - torch.cat([timesteps[1:], timesteps.new_zeros(1)])) / total).tolist()
        self.timesteps = timesteps.to(device)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """Returns ``sample``: the model takes the latents as they are."""
        return sample

    def step(
        self, model_output: Tensor, timestep: Tensor | float, sample: Tensor, *, return_dict: bool = True
    ) -> SchedulerOutput | tuple[Tensor]:
        """One Euler step, ``sample + velocity * (t_i - t_{i+1}) / num_timesteps``, the last one to 0.

        Args:
            model_output: Velocity in the shape of ``sample``; a float32 velocity makes the result float32.
            timestep: A member of ``timesteps``, one number or the same number for every row.
            sample: Latents.
            return_dict: False returns a tuple.

        Raises:
            StgTuneError: ``timestep`` is not one of ``timesteps``.
        """
        previous = sample + model_output * self._deltas[self._index(timestep)]
        return SchedulerOutput(prev_sample=previous) if return_dict else (previous,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``(1 - t) x0 + t noise`` with ``t = timesteps / num_timesteps``, one timestep a row or one for all."""
        keep = 1 - timesteps.to(original_samples.device).float() / self.config.num_timesteps
        keep = keep.reshape(-1, *[1] * (original_samples.dim() - 1))
        noisy: Tensor = keep * original_samples + (1 - keep) * noise
        return noisy

    def velocity(self, original_samples: Tensor, noise: Tensor) -> Tensor:
        """Training target of the model: ``x0 - noise``."""
        return original_samples - noise

    def begin_masked_step(
        self, sample: Tensor, noise: Tensor, timestep: Tensor | float, *, mask: Tensor, noised: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Prepares a step in which some frames are given (image- and video-conditioned generation).

        A frame of strength ``mask`` is denoised from the timestep ``mask * num_timesteps`` on: it stays as it is
        before, and is noised once when its turn comes. 0 keeps a frame, 1 generates it. At sizes whose first timestep
        is rounded to 1000.0001, a frame of strength 1 skips the first step, as it does officially. Around each model
        call::

            x, active = scheduler.begin_masked_step(z, noise, t, mask=mask, noised=noised)
            prediction = model(x, ..., x_mask=active)
            z = scheduler.end_masked_step(scheduler.step(velocity, t, x).prev_sample, z, active)
            noised = active

        Args:
            sample: Latents ``(batch, channels, frames, height, width)``.
            noise: Fresh noise in the shape of ``sample``.
            timestep: Of this step.
            mask: Strength in [0, 1], ``(batch, frames)``.
            noised: Bool ``(batch, frames)``, true where a frame carries noise already; before the first step
                ``mask == 1``.

        Returns:
            Input of the model, and the bool ``(batch, frames)`` of the frames denoised in this step.
        """
        t = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device).flatten()[:1]
        active = mask.to(sample.device) * self.config.num_timesteps >= t
        starting = per_frame(active & ~noised.to(sample.device))
        return torch.where(starting, self.add_noise(sample, noise, t), sample), active

    def end_masked_step(self, stepped: Tensor, sample: Tensor, active: Tensor) -> Tensor:
        """Takes ``stepped`` for ``active`` frames and keeps ``sample``, the latents before the step, for the others."""
        return torch.where(per_frame(active), stepped, sample)

    def sample_timesteps(
        self,
        num_samples: int,
        generator: torch.Generator | None = None,
        *,
        height: Size | None = None,
        width: Size | None = None,
        num_frames: Size | None = None,
        distribution: Literal["uniform", "logit-normal"] = "uniform",
        loc: float = 0.0,
        spread: float = 1.0,
    ) -> Tensor:
        """Random training timesteps after the transform, float32 ``(num_samples,)`` in [0, num_timesteps].

        Args:
            num_samples: How many.
            generator: CPU generator; ``None``: the global one.
            height: Pixels, one number or one a row.
            width: Pixels.
            num_frames: Frames of the videos.
            distribution: Before the transform: ``uniform``, or the sigmoid of a normal variable.
            loc: Mean of that normal variable.
            spread: Its standard deviation.

        Raises:
            StgTuneError: The transform lacks the size of the videos.
        """
        if distribution == "uniform":
            t = torch.rand(num_samples, generator=generator)
        else:
            t = torch.sigmoid(torch.randn(num_samples, generator=generator) * spread + loc)
        t = t * self.config.num_timesteps
        return self._transform(t.floor() if self.config.use_discrete_timesteps else t, height, width, num_frames)

    def _transform(self, t: Tensor, height: Size | None, width: Size | None, num_frames: Size | None) -> Tensor:
        if not self.config.use_timestep_transform:
            return t
        if height is None or width is None or num_frames is None:
            raise StgTuneError(
                f"the timesteps depend on the size of the video, but height={height}, width={width}, "
                f"num_frames={num_frames}. Pass all three, or build the scheduler with use_timestep_transform=False."
            )
        return timestep_transform(
            t,
            height=_rows(height),
            width=_rows(width),
            num_frames=_rows(num_frames),
            scale=self.config.transform_scale,
            num_timesteps=self.config.num_timesteps,
        )

    def _check_steps(self, steps: int) -> None:
        most = self.config.num_timesteps if self.config.use_discrete_timesteps else None
        if steps < 1 or (most is not None and steps > most):
            allowed = "at least 1" if most is None else f"between 1 and {most} for discrete timesteps"
            raise StgTuneError(f"num_inference_steps is {steps}. It must be {allowed}, e.g. 30.")

    def _index(self, timestep: Tensor | float) -> int:
        value = float(torch.as_tensor(timestep, dtype=torch.float32).flatten()[0])
        if value not in self._values:
            raise StgTuneError(
                f"timestep {value} is not one of the {len(self._values)} timesteps of this scheduler. Call "
                "set_timesteps first and pass the members of scheduler.timesteps, unrounded."
            )
        return self._values.index(value)

    def __len__(self) -> int:
        return int(self.config.num_timesteps)
