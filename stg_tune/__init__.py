"""Finds which layers of a video diffusion model to skip, and how strongly, and proves it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch.nn import Module

    from stg_tune.guidance import GuidedRun
    from stg_tune.models.base import Architecture

__all__ = ["__version__", "guided"]


def guided(
    pipe: Any,
    spec_or_preset: Any,
    *,
    architecture: Architecture | None = None,
    prefix_reuse: bool = True,
    weak_model: Module | None = None,
) -> AbstractContextManager[GuidedRun]:
    """Samples every call of ``pipe`` inside the ``with`` by a guidance setting; nothing stays on the model.

    Args:
        pipe: A video pipeline of a known family, or any with ``architecture``.
        spec_or_preset: ``GuidanceSpec``, a loaded preset, or the path of a preset file.
        architecture: Where the blocks of an unknown pipeline lie.
        prefix_reuse: Weak passes start at their first skipped block; exact, and faster.
        weak_model: A weaker denoiser, for terms of ``skip_op`` ``weak_model``.

    Raises:
        StgTuneError: The preset cannot be read, or the model cannot follow it; see ``stg_tune.guidance.guided``.
    """
    from stg_tune import guidance

    if isinstance(spec_or_preset, str | os.PathLike):
        from stg_tune import preset

        spec_or_preset = preset.load(spec_or_preset)
    return guidance.guided(
        pipe, spec_or_preset, architecture=architecture, prefix_reuse=prefix_reuse, weak_model=weak_model
    )


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module 'stg_tune' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stg-tune")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"
