"""Open-Sora 1.2 as records: blocks, defaults, where the weights are (standard library only)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from stg_tune.documents import read_limited
from stg_tune.errors import StgTuneError
from stg_tune.models.base import Architecture, GenerationDefaults, ModelEntry, Stack

PIPELINE_CLASS = "OpenSoraPipeline"
"""``_class_name`` in the ``model_index.json`` of this family."""
_CHECKPOINT = "stg_tune.models.open_sora.checkpoint"
_MAX_BYTES = 1_000_000
_MAX_DEPTH = 1000


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Files of one repository on the Hugging Face hub."""

    repo: str
    """``owner/name``."""
    revision: str
    """Commit hash, tag or branch. ``main`` is a branch: it may move. What was loaded is then known by the commit that
    the pipeline's ``name_or_path`` states, and every file downloaded is checked against the hub's SHA-256."""
    files: tuple[str, ...]
    """File names in the repository."""
    parts: tuple[str, ...]
    """Sub-folders of a local copy that these files fill."""
    licence: str
    """As the repository states it."""

    def words(self) -> str:
        """``owner/name (revision main): config.json, model.safetensors``."""
        return f"{self.repo} (revision {self.revision}): {', '.join(self.files)}"


SOURCES = (
    HubSource(
        repo="hpcai-tech/OpenSora-STDiT-v3",
        revision="main",
        files=("config.json", "model.safetensors"),
        parts=("transformer",),
        licence="Apache-2.0",
    ),
    HubSource(
        repo="hpcai-tech/OpenSora-VAE-v1.2",
        revision="main",
        files=("config.json", "model.safetensors"),
        parts=("vae",),
        licence="Apache-2.0",
    ),
    HubSource(
        repo="DeepFloyd/t5-v1_1-xxl",
        revision="main",
        files=(
            "config.json",
            "pytorch_model.bin.index.json",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "spiece.model",
            "special_tokens_map.json",
            "tokenizer_config.json",
        ),
        parts=("text_encoder", "tokenizer"),
        licence="Apache-2.0 (Google's T5 v1.1)",
    ),
)
"""Where the published Open-Sora 1.2 lies. No commit is pinned: none could be verified when this was written."""

ARCHITECTURE = Architecture(
    family="open-sora",
    pipeline="stg_tune.models.open_sora.pipeline:OpenSoraPipeline",
    denoiser="transformer",
    stacks=(
        Stack(name="spatial", path="spatial_blocks", axes="space"),
        Stack(name="temporal", path="temporal_blocks", axes="time"),
    ),
    interleaved=True,
    rows="cond_first",
    prediction_channels=4,
)
"""STDiT3: spatial block 0, temporal block 0, spatial block 1, ...; rows [cond; uncond]; velocity in 4 of 8 channels."""

ENTRIES = (
    ModelEntry(
        name="open-sora",
        architecture=ARCHITECTURE,
        depths={"spatial": 28, "temporal": 28},
        defaults=GenerationDefaults(
            height=240, width=426, num_frames=51, num_inference_steps=30, cfg_scale=7.0, fps=24
        ),
        source="; ".join(source.words() for source in SOURCES),
        loader=f"{_CHECKPOINT}:load_published",
        fetcher=f"{_CHECKPOINT}:fetch_published",
        embedded=False,
        summary="Open-Sora 1.2 (STDiT3-XL/2, 1.2 B parameters), text to video",
    ),
    ModelEntry(
        name="open-sora-tiny",
        architecture=ARCHITECTURE,
        depths={"spatial": 8, "temporal": 8},
        # the scale published for Open-Sora 1.2, taken over untuned
        defaults=GenerationDefaults(height=64, width=64, num_frames=17, num_inference_steps=10, cfg_scale=7.0, fps=8),
        batch=4,
        source="embedded",
        loader=f"{_CHECKPOINT}:load_embedded",
        embedded=True,
        summary="the same architecture, small, trained on moving handwritten digits; runs on two CPU cores",
    ),
)
"""The models of this family."""


def embedded_folder(name: str) -> Path:
    """Where the weights of an embedded model lie inside the package."""
    return Path(str(resources.files("stg_tune.embedded"))) / "weights" / name


def folder_entry(folder: Path) -> ModelEntry:
    """The record of a local diffusers folder: its own depth and sizes, the rest from the record of the same depth.

    Raises:
        StgTuneError: A file is missing or holds no such numbers.
    """
    index = _read(folder / "model_index.json")
    depth = _number(_read(folder / "transformer" / "config.json"), "depth", folder / "transformer" / "config.json")
    if depth is None or depth > _MAX_DEPTH:
        raise StgTuneError(f"{folder / 'transformer' / 'config.json'}: depth must be 1 to {_MAX_DEPTH}, got {depth}")
    depths = {"spatial": depth, "temporal": depth}
    model = next((entry for entry in ENTRIES if entry.depths == depths), ENTRIES[0])
    names = ("height", "width", "num_frames", "fps")
    own = {name: _number(index, f"default_{name}", folder / "model_index.json") for name in names}
    return replace(
        model,
        name=str(folder),
        depths=depths,
        defaults=replace(model.defaults, **{name: value for name, value in own.items() if value is not None}),
        source=str(folder),
        loader=f"{_CHECKPOINT}:load_local",
        embedded=False,
        summary=f"local folder with an Open-Sora pipeline of {depth}+{depth} blocks",
    )


def _read(file: Path) -> dict[str, object]:
    try:
        data = json.loads(read_limited(file, _MAX_BYTES, "model file"))
    except (ValueError, RecursionError) as error:
        raise StgTuneError(f"{file} is not JSON ({type(error).__name__}): copy the model folder again") from None
    if not isinstance(data, dict):
        raise StgTuneError(f"{file} must hold a JSON object: copy the model folder again")
    return data


def _number(data: dict[str, object], name: str, file: Path) -> int | None:
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise StgTuneError(f"{file}: {name} must be a whole number, 1 or more, got {value!r:.40}")
    return value
