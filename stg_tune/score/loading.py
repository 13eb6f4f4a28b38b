"""Weights files into networks: safetensors, or torch's format read without unpickling objects."""

from __future__ import annotations

import pickle
import warnings
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file; one below the key ``state_dict`` is taken out.

    Raises:
        StgTuneError: The file is damaged, is a program (TorchScript), or holds other things than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript, which is refused below in our words
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise StgTuneError(
            f"{path} is no file of plain tensors that can be read safely ({type(error).__name__}: {first}); nothing in "
            "it was executed. Needed is safetensors or a state dict saved by torch, not TorchScript"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise StgTuneError(f"{path} holds other things than named tensors: it is not a file of weights")
    return {str(key): value for key, value in content.items()}


def fill(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load ``state`` strictly in float32 and set ``module`` to eval without gradients.

    Raises:
        StgTuneError: Keys or shapes differ; ``what`` names the weights.
    """
    try:
        module.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise StgTuneError(f"{what} do not fit the network they are meant for: {detail}") from None
    module.eval().requires_grad_(requires_grad=False)
