"""What the card of each embedded model says of its parts, data and recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stg_tune.embedded import mochi_train, open_sora_train, svd_parts_train, svd_train

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Words:
    """The paragraphs that differ from model to model, wrapped as in the file."""

    what: str
    """The kind of pipeline, behind "A small"."""
    parts: str
    """What it is built of."""
    data: str
    """Size, length and rate of the videos."""
    recipe: str
    """How it was trained; ``{steps:,}`` is filled in."""
    truth: str
    """What to know of the numbers."""


def words_of(name: str) -> Words:
    """The words of a model; ``KeyError`` for a name that is no embedded model."""
    return _WORDS[name]()


_DIGITS = """drawn by `stg_tune.embedded.digits` from the train split of
  scikit-learn's `load_digits` (UCI, CC BY 4.0): one scan in one of 6 colours on a mottled ground, moving in one of 4
  directions, captions such as "a red seven moving left" (240 in all). Every fifth scan is held out."""


def _open_sora() -> Words:
    depth, width = open_sora_train.TRANSFORMER["depth"], open_sora_train.TRANSFORMER["hidden_size"]
    return Words(
        what="Open-Sora 1.2 pipeline",
        parts=f"""STDiT3 with {depth} spatial and {depth} temporal blocks of width {width}; a T5 encoder with a \
tokenizer of
  whole words; an autoencoder of 8x8 pixels and 4 frames a latent, 4 channels. Standard diffusers folder, bfloat16.""",
        data=f"64x64 pixels, 17 frames, 8 frames a second, {_DIGITS}",
        recipe=f"""the autoencoder first, then transformer and text encoder
  on {open_sora_train.NUM_LATENTS:,} cached latents; {{steps:,}} steps of {open_sora_train.BATCH} videos, rectified \
flow with Open-Sora's timestep shift,
  AdamW at {open_sora_train.PEAK_RATE}, caption dropout {open_sora_train.CAPTION_DROPOUT:.0%}, average of the weights \
({open_sora_train.EMA_DECAY}), bfloat16 with compiled blocks, about
  0.8 s a step on two CPU cores. A head that is thrown away reads place and scan off the middle block
  (`stg_tune.embedded.tutor`). In the shipped run it joined at step 2,320, float32 was left at step 1,290, and the rate
  fell twice: to 0.02 of its peak by step 5,200, and again from 0.7 by the end.""",
        truth="16 to 19 is the Frechet distance of real\n  videos of other scans",
    )


def _mochi() -> Words:
    config = mochi_train.TRANSFORMER
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return Words(
        what="Mochi pipeline",
        parts=f"""`MochiTransformer3DModel` with {config["num_layers"]} joint blocks of width {width}; a T5 encoder \
with a
  tokenizer of whole words; `AutoencoderKLMochi` of 8x8 pixels and 6 frames a latent, 12 channels. Everything is
  diffusers' own, so that `MochiPipeline.from_pretrained` is enough. bfloat16.""",
        data=f"64x64 pixels, {mochi_train.NUM_FRAMES} frames, 8 frames a second, {_DIGITS}",
        recipe=f"""the autoencoder first, then transformer and text encoder
  on {mochi_train.NUM_LATENTS:,} cached latents; {{steps:,}} steps of {mochi_train.BATCH} videos, rectified flow with
  noise levels shifted by {mochi_train.SHIFT:g} and {mochi_train.NOISY_SHARE:.1%} of them in the noisiest twentieth, \
where the pipeline makes half of
  its steps; AdamW at {mochi_train.PEAK_RATE}, caption dropout {mochi_train.CAPTION_DROPOUT:.0%}, average of the \
weights ({open_sora_train.EMA_DECAY}), bfloat16 with compiled
  blocks. A head that is thrown away reads place and scan off the middle block (`stg_tune.embedded.tutor`). The rotary
  frequencies are drawn at random and not trained.""",
        truth="of the 19 frames the judge looks at\n  0, 4, 8, 12 and 16, as in real videos",
    )


def _svd() -> Words:
    config = svd_train.UNET
    return Words(
        what="Stable Video Diffusion pipeline",
        parts=f"""`UNetSpatioTemporalConditionModel` with 9 spatial and 9 temporal transformer blocks on two levels of
  width {config["block_out_channels"][0]} and {config["block_out_channels"][1]}; a CLIP image encoder; \
`AutoencoderKLTemporalDecoder` of 8x8 pixels a latent, 4 channels. Everything
  is diffusers' own, so that `StableVideoDiffusionPipeline.from_pretrained` is enough. bfloat16.""",
        data=f"64x64 pixels, {svd_parts_train.NUM_FRAMES} frames, {svd_train.FPS} frames a second, {_DIGITS}\n"
        "  The model is given the first frame and no words: where the digit goes is left to chance, as in the data.",
        recipe=f"""the image encoder (it learns to tell what a first frame
  shows, and is frozen), the autoencoder, then the U-Net on {svd_train.NUM_LATENTS:,} cached videos; {{steps:,}} steps \
of {svd_train.BATCH} videos,
  v-prediction with the noise levels of SVD, AdamW at {svd_train.PEAK_RATE}, picture dropout \
{svd_train.DROPOUT:.0%}, average of the weights
  ({open_sora_train.EMA_DECAY}), bfloat16 with compiled blocks. Motion bucket and noise are always the pipeline's \
defaults.
  In the shipped run the length was lowered from 3,500 steps to 2,200 at step 1,350.""",
        truth="the direction of the caption is not told\n  to the model, so that a quarter is chance; digit and colour "
        "say whether the picture was kept",
    )


_WORDS: dict[str, Callable[[], Words]] = {"open-sora-tiny": _open_sora, "mochi-tiny": _mochi, "svd-tiny": _svd}
