"""Open-Sora 1.2: transformer, video autoencoder, rectified flow and pipeline (loaded when first named)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stg_tune.models.open_sora.pipeline import OpenSoraPipeline, OpenSoraPipelineOutput
    from stg_tune.models.open_sora.schedule import OpenSoraScheduler
    from stg_tune.models.open_sora.transformer import STDiT3
    from stg_tune.models.open_sora.vae import OpenSoraVAE

__all__ = ["OpenSoraPipeline", "OpenSoraPipelineOutput", "OpenSoraScheduler", "OpenSoraVAE", "STDiT3"]

_HOMES = {
    "OpenSoraPipeline": "pipeline",
    "OpenSoraPipelineOutput": "pipeline",
    "OpenSoraScheduler": "schedule",
    "OpenSoraVAE": "vae",
    "STDiT3": "transformer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
