"""Open-Sora 1.2 as a diffusers pipeline: text, or text and given frames, to video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from stg_tune.models.open_sora import inputs
from stg_tune.models.open_sora.components import OpenSoraComponents
from stg_tune.models.open_sora.conditioning import GivenFrames, place_given
from stg_tune.models.open_sora.text import append_scores

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from stg_tune.models.open_sora.inputs import Generators, VideoSize

Callback = Callable[["OpenSoraPipeline", int, Tensor, dict[str, Tensor]], dict[str, Any] | None]
Texts = tuple[Sequence[str] | None, Tensor | None, Tensor | None]


@dataclass
class OpenSoraPipelineOutput(BaseOutput):  # type: ignore[misc]
    """Videos of one call."""

    frames: Tensor | np.ndarray[Any, Any] | list[list[Image]]
    """``pil``: a list of frames a video; ``np``: ``(videos, frames, height, width, 3)`` in [0, 1]; ``pt``:
    ``(videos, frames, 3, height, width)`` in [0, 1]; ``latent``: normalised ``(videos, channels, frames, rows,
    columns)``."""


class OpenSoraPipeline(OpenSoraComponents):
    """Text- and frame-conditioned video generation with Open-Sora 1.2 (https://github.com/hpcaitech/Open-Sora).

    ``OpenSoraPipeline(tokenizer, text_encoder, vae, transformer, scheduler)``; see ``OpenSoraComponents``.
    """

    _callback_tensor_inputs: ClassVar[list[str]] = [
        "latents",
        "prompt_embeds",
        "prompt_attention_mask",
        "negative_prompt_embeds",
        "negative_prompt_attention_mask",
    ]
    _guidance_scale = 1.0
    _interrupt = False
    _current_timestep: Tensor | None = None

    @property
    def guidance_scale(self) -> float:
        """Guidance scale of the running or last call."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether a step computes the unconditional rows too."""
        return self._guidance_scale != 1

    @property
    def num_timesteps(self) -> int:
        """Steps of the running or last call."""
        return len(self.scheduler.timesteps)

    @property
    def current_timestep(self) -> Tensor | None:
        """Timestep of the running step, ``None`` between calls."""
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """A callback sets ``pipe._interrupt = True`` to leave out the remaining steps."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float = 7.0,
        fps: int | None = None,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        aesthetic_score: float | None = None,
        flow: float | None = None,
        camera_motion: str | None = None,
        clean: bool = True,
        conditioning_frames: Any = None,
        conditioning_latents: Tensor | None = None,
        conditioning_mask: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> OpenSoraPipelineOutput | tuple[Any]:
        """Generate videos.

        Args:
            prompt: One or several captions, unless ``prompt_embeds`` is given.
            negative_prompt: One for all or one a prompt; ``None``: the caption the model learnt for "no text", cut to
                the length of the prompt as in Open-Sora.
            height: Pixels; ``None``: the model's own (240). Rows and columns beyond a multiple of 8 are dropped.
            width: Pixels; ``None``: the model's own (426).
            num_frames: ``None``: the model's own (51); 1 makes an image.
            num_inference_steps: Denoising steps.
            guidance_scale: ``g`` in ``u + g (c - u)``; at 1 the unconditional rows are not computed.
            fps: Frames per second the model is told; ``None``: the model's own (24).
            num_videos_per_prompt: Videos of one prompt lie next to each other.
            generator: One, or one a video; a CPU generator gives the same noise on every device.
            latents: Initial noise ``(videos, channels, frames, height / 8, width / 8)``. With ``output_type="latent"``
                it may have another size than ``height``, ``width``, ``num_frames``, which the model then is only told.
            prompt_embeds: Text features, see ``encode_prompt``.
            prompt_attention_mask: Their mask.
            negative_prompt_embeds: Text features of the negative prompts.
            negative_prompt_attention_mask: Their mask.
            aesthetic_score: Appended to the prompts, about 4 to 7.
            flow: Motion score appended to the prompts, about 0 to 20.
            camera_motion: Appended to the prompts, e.g. ``pan right``.
            clean: Clean captions as Open-Sora does.
            conditioning_frames: Given first frames: images or videos as diffusers' ``VideoProcessor`` takes them, one
                for all, one a prompt or one a video. Encoded to the mode of the autoencoder's posterior.
            conditioning_latents: The same as normalised latents; up to all frames, see ``place_references``.
            conditioning_mask: ``(latent frames,)`` or ``(videos, latent frames)`` in [0, 1]: 0 keeps a given frame,
                1 makes it anew, between it is renoised to that share of the schedule. ``None``: 0 where given.
            output_type: ``pil``, ``np``, ``pt`` or ``latent``.
            return_dict: False returns ``(frames,)``.
            callback_on_step_end: ``callback(pipe, step, timestep, tensors)``; tensors it returns replace the run's.
            callback_on_step_end_tensor_inputs: Names of the tensors it gets.

        Returns:
            ``OpenSoraPipelineOutput`` with ``frames``.

        Raises:
            StgTuneError: An argument is wrong; the message says which and what is allowed.
        """
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        inputs.check_output(output_type, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        inputs.check_numbers(num_inference_steps, guidance_scale, num_videos_per_prompt)
        inputs.check_conditioning(conditioning_frames, conditioning_latents, conditioning_mask)
        prompts = inputs.as_prompts(prompt)
        count = inputs.count_prompts(prompts, prompt_embeds)
        negatives = inputs.as_negatives(negative_prompt, negative_prompt_embeds, count)
        inputs.check_generators(generator, count * num_videos_per_prompt)
        size = self.video_size(height, width, num_frames, fps)
        shape = self._latent_shape(size, count * num_videos_per_prompt)
        if latents is not None:
            inputs.check_latents(latents, shape, exact=output_type != "latent")

        self._guidance_scale, self._interrupt = guidance_scale, False
        if prompts is not None:
            prompts = append_scores(prompts, aesthetic_score=aesthetic_score, flow=flow, camera_motion=camera_motion)
        state = self._texts(
            (prompts, prompt_embeds, prompt_attention_mask),
            (negatives, negative_prompt_embeds, negative_prompt_attention_mask),
            count=count,
            copies=num_videos_per_prompt,
            clean=clean,
        )
        state["latents"] = self._noise(shape, generator, latents)
        given = conditioning_latents
        if conditioning_frames is not None:
            given = self.encode_frames(conditioning_frames, size)
        given_frames = None
        if given is not None:
            state["latents"], mask = place_given(state["latents"], given, conditioning_mask, prompts=count)
            given_frames = GivenFrames(self.scheduler, mask, generator)
        final = self._denoise(
            state,
            size,
            num_inference_steps,
            given_frames,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )
        frames = final if output_type == "latent" else self.decode_latents(final, size.num_frames, output_type)
        self.maybe_free_model_hooks()
        return OpenSoraPipelineOutput(frames=frames) if return_dict else (frames,)

    def _latent_shape(self, size: VideoSize, videos: int) -> tuple[int, ...]:
        latent = self.vae.get_latent_size((size.num_frames, size.height, size.width))
        return videos, self.transformer.config.in_channels, *latent

    def _noise(self, shape: Sequence[int], generator: Generators, latents: Tensor | None) -> Tensor:
        device = self._execution_device
        if latents is None:
            # Drawn in float32 whatever the model's dtype: a seed means the same noise in every precision.
            latents = randn_tensor(tuple(shape), generator=generator, device=device, dtype=torch.float32)
        return latents.to(device, self.transformer.dtype)

    def _texts(self, prompt: Texts, negative: Texts, *, count: int, copies: int, clean: bool) -> dict[str, Tensor]:
        """Features and masks of every video: of its prompt, and of its negative prompt or the null caption."""
        y, mask = self._features(prompt, count, clean, name="prompt")
        if self.do_classifier_free_guidance and (negative[0] is not None or negative[1] is not None):
            u, u_mask = self._features(negative, count, clean, name="negative_prompt")
        else:
            u, u_mask = self.null_caption(count, dtype=y.dtype, device=y.device), mask
        names = self._callback_tensor_inputs[1:]
        return {name: rows.repeat_interleave(copies, 0) for name, rows in zip(names, (y, mask, u, u_mask), strict=True)}

    def _features(self, texts: Texts, count: int, clean: bool, *, name: str) -> tuple[Tensor, Tensor]:
        prompts, embeds, mask = texts
        if prompts is not None:
            embeds, mask = self.encode_prompt(prompts, clean=clean)
        config = self.transformer.config
        embeds, mask = inputs.checked_embeds(
            embeds, mask, (count, 1, config.model_max_length, config.caption_channels), name=name
        )
        device = self._execution_device
        return embeds.to(device, self.transformer.dtype), mask.to(device)

    def _denoise(
        self,
        state: dict[str, Tensor],
        size: VideoSize,
        steps: int,
        given: GivenFrames | None,
        callback: Callback | PipelineCallback | MultiPipelineCallbacks | None,
        wanted: Sequence[str],
    ) -> Tensor:
        conditions = size.conditions(len(state["latents"]), dtype=self.transformer.dtype, device=self._execution_device)
        sizes = {name: conditions[name] for name in ("height", "width", "num_frames")}
        self.scheduler.set_timesteps(steps, **sizes, device=self._execution_device)
        with self.progress_bar(total=steps) as progress:
            for index, timestep in enumerate(self.scheduler.timesteps):
                if self.interrupt:
                    continue
                self._current_timestep = timestep
                state["latents"] = self._step(state, timestep, conditions, given)
                if callback is not None:
                    returned = callback(self, index, timestep, {name: state[name] for name in wanted}) or {}
                    state |= {name: returned[name] for name in self._callback_tensor_inputs if name in returned}
                progress.update()
        self._current_timestep = None
        return state["latents"]

    def _step(
        self, state: Mapping[str, Tensor], timestep: Tensor, conditions: Mapping[str, Tensor], given: GivenFrames | None
    ) -> Tensor:
        latents = state["latents"]
        x, active = (latents, None) if given is None else given.begin(latents, timestep)
        velocity = self._predict(state, x, timestep, conditions, active)
        stepped: Tensor = self.scheduler.step(velocity, timestep, x, return_dict=False)[0]
        return stepped if active is None else self.scheduler.end_masked_step(stepped, latents, active)

    def _predict(
        self,
        state: Mapping[str, Tensor],
        x: Tensor,
        timestep: Tensor,
        conditions: Mapping[str, Tensor],
        active: Tensor | None,
    ) -> Tensor:
        """Velocity ``u + g (c - u)`` (eq. 6 of arXiv:2411.18664) from one call on the rows [cond; uncond]."""
        names = ("prompt_", "negative_prompt_") if self.do_classifier_free_guidance else ("prompt_",)
        rows = len(names)
        prediction = self.transformer(
            x.repeat(rows, 1, 1, 1, 1),
            timestep.expand(rows * len(x)),
            torch.cat([state[f"{name}embeds"] for name in names]),
            mask=torch.cat([state[f"{name}attention_mask"] for name in names]),
            x_mask=None if active is None else active.repeat(rows, 1),
            **{name: conditions[name].repeat(rows) for name in ("fps", "height", "width")},
        )
        velocity: Tensor = prediction[:, : x.shape[1]]
        if rows == 1:
            return velocity
        cond, uncond = velocity.chunk(2)
        return uncond + self._guidance_scale * (cond - uncond)
