"""The parts of Open-Sora 1.2 as a diffusers pipeline holds them: registration, sizes, text in, frames out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.video_processor import VideoProcessor

# diffusers resolves the annotations of __init__, and finds a component's class only in modules that are loaded.
from transformers import PreTrainedTokenizerBase, T5EncoderModel  # noqa: TC002

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.inputs import VideoSize, as_prompts
from stg_tune.models.open_sora.schedule import OpenSoraScheduler  # noqa: TC001
from stg_tune.models.open_sora.text import clean_caption, encode_captions, plain_caption
from stg_tune.models.open_sora.transformer import STDiT3  # noqa: TC001
from stg_tune.models.open_sora.vae import OpenSoraVAE  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class OpenSoraComponents(DiffusionPipeline):  # type: ignore[misc]
    """Base of ``OpenSoraPipeline``: everything but the denoising.

    Args:
        tokenizer: T5 tokenizer; ``None`` when every call brings ``prompt_embeds``.
        text_encoder: T5 encoder, or ``None`` likewise.
        vae: Video autoencoder.
        transformer: Denoiser.
        scheduler: Rectified flow.
        default_height: Pixels of a call that names none; ``None``: of the transformer's ``input_size``, else 240.
        default_width: Pixels, likewise, else 426.
        default_num_frames: Frames, likewise, else 51.
        default_fps: Frames per second of a call that names none.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components: ClassVar[list[str]] = ["tokenizer", "text_encoder"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel,
        vae: OpenSoraVAE,
        transformer: STDiT3,
        scheduler: OpenSoraScheduler,
        default_height: int | None = None,
        default_width: int | None = None,
        default_num_frames: int | None = None,
        default_fps: int = 24,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
        )
        self.register_to_config(
            default_height=default_height,
            default_width=default_width,
            default_num_frames=default_num_frames,
            default_fps=default_fps,
        )
        self.video_processor = VideoProcessor(vae_scale_factor=vae.spatial_compression)

    def enable_vae_slicing(self) -> None:
        """Decode one video of the batch at a time, which needs less memory."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Decode all videos of the batch at once."""
        self.vae.disable_slicing()

    def enable_vae_tiling(self) -> None:
        """Decode large frames in overlapping tiles, which needs less memory and changes the seams slightly."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Decode whole frames."""
        self.vae.disable_tiling()

    def video_size(
        self, height: int | None = None, width: int | None = None, num_frames: int | None = None, fps: int | None = None
    ) -> VideoSize:
        """The size of a call: what is given, else the model's own.

        Raises:
            StgTuneError: A size that is not a positive whole number, or smaller than one latent.
        """
        own = self._own_size()
        size = VideoSize(
            height=own.height if height is None else height,
            width=own.width if width is None else width,
            num_frames=own.num_frames if num_frames is None else num_frames,
            fps=own.fps if fps is None else fps,
        )
        if min(size.height, size.width) < self.vae.spatial_compression:
            raise StgTuneError(
                f"height={size.height}, width={size.width}: both must be at least {self.vae.spatial_compression} pixels"
            )
        return size

    @torch.no_grad()
    def encode_prompt(
        self, prompt: str | Sequence[str], *, clean: bool = True, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """Text features of prompts, for ``prompt_embeds`` and ``prompt_attention_mask``.

        Args:
            prompt: One or several captions.
            clean: Clean the captions as Open-Sora does; false only lowers the case.
            device: Where to compute; ``None``: where the pipeline runs.

        Returns:
            Features ``(prompts, 1, tokens, channels)`` and the mask ``(prompts, tokens)``, 1 where a token is valid.

        Raises:
            StgTuneError: The pipeline has no tokenizer or text encoder.
        """
        if self.tokenizer is None or self.text_encoder is None:
            raise StgTuneError(
                "this pipeline has no tokenizer or no text encoder: load both, or pass prompt_embeds and "
                "prompt_attention_mask in place of prompt"
            )
        prepare = clean_caption if clean else plain_caption
        return encode_captions(
            [prepare(text) for text in as_prompts(prompt) or []],
            self.tokenizer,
            self.text_encoder,
            max_length=self.transformer.config.model_max_length,
            device=device or self._execution_device,
        )

    @torch.no_grad()
    def encode_frames(self, frames: Any, size: VideoSize) -> Tensor:
        """Normalised latents ``(videos, channels, latent frames, height / 8, width / 8)`` of images or videos.

        The mode of the posterior, so the noise that a generator gives does not depend on given frames.

        Args:
            frames: What diffusers' ``VideoProcessor`` takes: a list of PIL images, arrays in [0, 1], tensors, ...
            size: Frames are resized to it.
        """
        video = self.video_processor.preprocess_video(frames, height=size.height, width=size.width)
        self._onload(self.vae)
        latents: Tensor = self.vae.encode(video.to(self._execution_device), sample_posterior=False)
        return latents

    @torch.no_grad()
    def decode_latents(self, latents: Tensor, num_frames: int, output_type: str = "pt") -> Any:
        """Videos of normalised latents in one of the forms ``pt``, ``np`` and ``pil``."""
        self._onload(self.vae)
        video = self.vae.decode(latents.to(self.vae.dtype), num_frames)
        return self.video_processor.postprocess_video(video.float(), output_type=output_type)

    def null_caption(self, videos: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The features the model learnt for a dropped caption, ``(videos, 1, tokens, channels)``."""
        learnt: Tensor = self.transformer.y_embedder.y_embedding
        return learnt.to(device, dtype)[None, None].expand(videos, -1, -1, -1)

    def _own_size(self) -> VideoSize:
        trained = tuple(self.transformer.config.input_size)
        side = self.vae.spatial_compression
        frames, height, width = (51, 240, 426)
        if None not in trained:
            frames, height, width = self._frames_of(trained[0]), trained[1] * side, trained[2] * side
        return VideoSize(
            height=self.config.default_height or height,
            width=self.config.default_width or width,
            num_frames=self.config.default_num_frames or frames,
            fps=self.config.default_fps,
        )

    def _frames_of(self, latent_frames: int) -> int:
        """The longest video that has so many latent frames; one latent frame is an image."""
        longest = latent_frames * self.vae.temporal_compression
        lengths = range(longest, 1, -1) if latent_frames > 1 else ()
        return next((n for n in lengths if self.vae.get_latent_size((n, 0, 0))[0] == latent_frames), 1)

    @staticmethod
    def _onload(module: torch.nn.Module) -> None:
        """Bring an offloaded module to its device: accelerate does so for ``forward`` only, not for ``decode``."""
        hook = getattr(module, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(module)
