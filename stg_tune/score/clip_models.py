"""OpenAI's CLIPs in ``open_clip``, filled from a local file, with VBench's preprocessing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stg_tune.errors import StgTuneError
from stg_tune.score.clip import ClipTowers, Preprocessing
from stg_tune.score.loading import fill

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from open_clip.model import CLIP

    from stg_tune.score.placement import Placement


@dataclass(frozen=True, kw_only=True)
class ClipVariant:
    """One CLIP that scorers can be built on."""

    name: str
    """The end of the names of its files: ``vit-l-14``."""
    architecture: str
    """Name of the configuration in ``open_clip``. OpenAI's weights need the ``-quickgelu`` ones: under the plain names
    ``open_clip`` builds exact GELUs, warns, and gives other features."""


VARIANTS = {
    "vit-l-14": ClipVariant(name="vit-l-14", architecture="ViT-L-14-quickgelu"),
    "vit-b-32": ClipVariant(name="vit-b-32", architecture="ViT-B-32-quickgelu"),
}
"""The one that VBench uses, and a smaller one that costs a twentieth."""


def configuration(variant: ClipVariant) -> dict[str, Any]:
    """``open_clip``'s own description of the architecture."""
    from open_clip import get_model_config

    config = get_model_config(variant.architecture)
    if config is None:
        raise StgTuneError(f"this open_clip has no architecture {variant.architecture}; needed is open_clip_torch>=3.3")
    return dict(config)


def build_clip(config: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> CLIP:
    """A CLIP with the weights of ``state``, in float32 and eval mode.

    Args:
        config: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and ``quick_gelu`` of ``open_clip``.
        state: its state dict; checkpoints in float16 are widened.
        what: name of the weights, for messages.

    Raises:
        StgTuneError: keys or shapes differ.
    """
    from open_clip.model import CLIP

    with torch.device("meta"):  # drawing random weights first would take longer than reading the real ones
        clip: CLIP = CLIP(**config)
    clip = clip.to_empty(device="cpu")
    length = clip.positional_embedding.shape[0]
    # the one buffer that no checkpoint has: a token sees itself and what came before it
    clip.attn_mask = torch.full((length, length), float("-inf")).triu_(1)
    fill(clip, state, what)
    return clip


def published_towers(
    variant: ClipVariant,
    state: Mapping[str, Tensor],
    placement: Placement,
    *,
    frames: int | None,
    config: Mapping[str, Any] | None = None,
) -> ClipTowers:
    """Towers with VBench's preprocessing: bicubic without antialiasing on 8-bit frames, centre crop, OpenAI's mean.

    Args:
        variant: which CLIP.
        state: its weights.
        placement: where it runs.
        frames: at most so many frames are looked at; ``None``: every one, as VBench does.
        config: architecture in place of the variant's own.
    """
    config = config or configuration(variant)
    clip = build_clip(config, state, f"weights of clip-{variant.name}")
    vision = config["vision_cfg"]
    tokens = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    width = torch.finfo(placement.dtype).bits // 8
    # a block holds its input, the four times wider hidden layer, queries, keys and values
    bytes_each = tokens * vision["width"] * width * 12
    return ClipTowers(
        clip.to(placement.device, placement.dtype),
        Tokenizer(config["text_cfg"]["context_length"]),
        Preprocessing(size=vision["image_size"], levels=True),
        frames=frames,
        batch=placement.batch(bytes_each),
    )


class Tokenizer:
    """OpenAI's tokenizer; a prompt that does not fit is cut, with a warning.

    Args:
        context_length: tokens a prompt may have, with start and end.
    """

    def __init__(self, context_length: int) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._tokenizer = SimpleTokenizer(context_length=context_length)
        self._context_length = context_length

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Token ids, (prompts, context length)."""
        for prompt in prompts:
            length = len(self._tokenizer.encode(prompt)) + 2
            if length > self._context_length:
                warnings.warn(
                    f"CLIP reads {self._context_length - 2} tokens of a prompt; this one has {length - 2} and its end "
                    f"does not count for alignment: {prompt:.60}...",
                    UserWarning,
                    stacklevel=2,
                )
        ids: Tensor = self._tokenizer(list(prompts))
        return ids


def linear_head(state: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    """Weight (dim,) and bias of the LAION v1 predictor, a single linear layer."""
    try:
        return state["weight"].float().flatten(), float(state["bias"])
    except (KeyError, RuntimeError, ValueError):
        raise StgTuneError(
            f"weights of a linear aesthetic head have weight and bias, got {sorted(state)[:5]}"
        ) from None


def affine_head(state: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    """Weight (dim,) and bias that equal the LAION v2 predictor.

    Its five linear layers have no activation between them, so that together they are one affine map
    (https://github.com/christophschuhmann/improved-aesthetic-predictor); it is folded in float64.
    """
    layers = sorted({key.rpartition(".")[0] for key in state}, key=lambda name: int(name.rpartition(".")[2]))
    try:
        weight, bias = (state[f"{layers[0]}.{part}"].double() for part in ("weight", "bias"))
        for layer in layers[1:]:
            step = state[f"{layer}.weight"].double()
            weight, bias = step @ weight, step @ bias + state[f"{layer}.bias"].double()
        return weight[0].float(), float(bias)
    except (KeyError, RuntimeError, ValueError, IndexError):
        raise StgTuneError(f"weights of the v2 aesthetic head are linear layers in a row, got {layers[:5]}") from None
