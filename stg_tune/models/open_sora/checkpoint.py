"""Loads Open-Sora 1.2: the published checkpoints, local copies of them, and diffusers folders.

Every part is read strictly (``state.py``), whichever format its folder has: a key too few or too many is an error, no
class is looked up by a name that a file states, and nothing in a file is executed.
"""

from __future__ import annotations

import inspect
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel, T5TokenizerFast
from transformers.utils import logging as transformers_logging

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.hub import PATH_VARIABLE, fetch
from stg_tune.models.open_sora.pipeline import OpenSoraPipeline
from stg_tune.models.open_sora.record import PIPELINE_CLASS, SOURCES, embedded_folder
from stg_tune.models.open_sora.schedule import OpenSoraScheduler
from stg_tune.models.open_sora.state import build, fit_caption_length, read_json, read_state
from stg_tune.models.open_sora.transformer import STDiT3
from stg_tune.models.open_sora.vae import OpenSoraVAE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stg_tune.models.base import ModelEntry

logger = logging.getLogger(__name__)

PARTS = ("transformer", "vae", "text_encoder", "tokenizer")
"""Sub-folders of a local copy."""
XL2: Mapping[str, Any] = {"hidden_size": 1152, "depth": 28, "num_heads": 16, "qk_norm": True}
"""STDiT3-XL/2, used when a folder holds weights without a ``config.json``."""
VAE_2D: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
"""The SDXL image autoencoder inside Open-Sora's: its checkpoint names it but does not describe it."""
_DEFAULTS = ("default_height", "default_width", "default_num_frames", "default_fps")


def load_published(entry: ModelEntry, path: Path | None = None) -> OpenSoraPipeline:
    """Open-Sora 1.2 from a local folder, the hub's cache or the hub, in bfloat16 as its authors run it.

    Args:
        entry: The record, for messages.
        path: Local folder, see ``load_folder``; ``None``: of the environment variable ``STG_TUNE_MODEL_PATH``, else
            the hub.

    Raises:
        NotReachableError: Files are neither on this machine nor reachable.
        StgTuneError: Files are damaged or belong to another model.
    """
    local = _local_folder(path)
    if local is not None:
        return load_folder(local, dtype=torch.bfloat16)
    folders = fetch(entry.name, SOURCES)
    pipe = _assemble(folders, {}, dtype=torch.bfloat16)
    commits = {source.repo: folders[source.parts[0]].name for source in SOURCES}
    pipe.register_to_config(_name_or_path=", ".join(f"{repo}@{commit}" for repo, commit in commits.items()))
    return pipe


def fetch_published(entry: ModelEntry, path: Path | None = None) -> None:
    """Download what the hub's cache lacks, if no local folder is named; raises as ``load_published`` does."""
    if _local_folder(path) is None:
        fetch(entry.name, SOURCES)


def _local_folder(path: Path | None) -> Path | None:
    named = path or os.environ.get(PATH_VARIABLE)
    return Path(named).expanduser() if named else None


def load_embedded(entry: ModelEntry, path: Path | None = None) -> OpenSoraPipeline:
    """The trained model inside the package, or its replacement in ``path``, in float32.

    Raises:
        StgTuneError: The installation lacks the weights, or they are damaged.
    """
    folder = path or embedded_folder(entry.name)
    if path is None and not (folder / "model_index.json").is_file():
        raise StgTuneError(
            f"{entry.name}: this installation lacks the embedded weights ({folder / 'model_index.json'} is missing): "
            f"reinstall stg-tune, or train them with `python -m stg_tune.embedded.train {entry.name}`"
        )
    with _without_bar():
        return load_folder(folder, dtype=torch.float32)


@contextmanager
def _without_bar() -> Iterator[None]:
    """No progress bar of transformers: four megabytes need none."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def load_local(entry: ModelEntry, path: Path | None = None) -> OpenSoraPipeline:
    """A folder named in place of a model: bfloat16 where torch sees a GPU, else float32.

    Raises:
        StgTuneError: Files are missing or damaged.
    """
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return load_folder(path or Path(entry.source), dtype=dtype)


def load_folder(folder: Path, *, dtype: torch.dtype) -> OpenSoraPipeline:
    """A pipeline from sub-folders in the diffusers format or as published.

    Args:
        folder: With ``transformer/``, ``vae/``, ``text_encoder/`` and ``tokenizer/`` (the tokenizer's files may also
            lie in ``text_encoder/``); ``scheduler/`` and ``model_index.json`` are optional.
        dtype: Of all weights.

    Raises:
        StgTuneError: Sub-folders or files are missing, damaged, or of another model.
    """
    folders = {part: folder / part for part in PARTS}
    if not folders["tokenizer"].is_dir():
        folders["tokenizer"] = folders["text_encoder"]
    missing = [f"{part}/" for part, place in folders.items() if not place.is_dir()]
    if missing:
        needed = "; ".join(f"{'/ and '.join(source.parts)}/ from {source.words()}" for source in SOURCES)
        raise StgTuneError(
            f"{folder} lacks the sub-folder{'s' * (len(missing) > 1)} {', '.join(missing)}. A local copy needs {needed}"
        )
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    if index and index.get("_class_name") != PIPELINE_CLASS:
        raise StgTuneError(
            f"{folder / 'model_index.json'} is of a {index.get('_class_name')!r:.60}, not of an {PIPELINE_CLASS}"
        )
    folders["scheduler"] = folder / "scheduler"
    pipe = _assemble(folders, {name: index[name] for name in _DEFAULTS if index.get(name) is not None}, dtype=dtype)
    pipe.register_to_config(_name_or_path=str(folder))
    return pipe


def load_transformer(folder: Path, *, dtype: torch.dtype, model_max_length: int | None = None) -> STDiT3:
    """The denoiser from ``config.json`` and weights, published (``model.safetensors``, ``.pth``) or diffusers format.

    Args:
        folder: With the files; without ``config.json`` the XL/2 model is meant.
        dtype: Of the weights.
        model_max_length: Tokens of a caption, if others than the config says: the null caption is cut, or extended by
            its last row.

    Raises:
        StgTuneError: Files are missing or damaged, or do not fit the model.
    """
    config = dict(XL2) | _known(_config(folder), STDiT3)
    if model_max_length is not None:
        config["model_max_length"] = model_max_length

    def make() -> STDiT3:
        model: STDiT3 = _made(STDiT3, config, folder)
        return model

    length = inspect.signature(STDiT3).parameters["model_max_length"].default
    state = fit_caption_length(read_state(folder), config.get("model_max_length", length))
    return build(make, state, f"the transformer in {folder}", dtype=dtype)


def load_vae(folder: Path, *, dtype: torch.dtype) -> OpenSoraVAE:
    """The video autoencoder from ``config.json`` and weights, published or diffusers format.

    Raises:
        StgTuneError: Files are missing or damaged, or do not fit the model.
    """
    config = _known(_config(folder), OpenSoraVAE)
    for name in ("vae_2d", "vae_temporal"):
        # The published config names a class ("type": ...) where the diffusers format has its arguments.
        if "type" in (config.get(name) or {"type": None}):
            config.pop(name, None)

    def make() -> OpenSoraVAE:
        model: OpenSoraVAE = _made(OpenSoraVAE, {"vae_2d": VAE_2D, **config}, folder)
        return model

    return build(make, read_state(folder), f"the video autoencoder in {folder}", dtype=dtype)


def load_text_encoder(folder: Path, *, dtype: torch.dtype) -> T5EncoderModel:
    """The T5 encoder; a checkpoint that lacks weights is refused rather than completed at random.

    Raises:
        StgTuneError: Files are missing or damaged.
    """
    try:
        model, report = T5EncoderModel.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise StgTuneError(f"the text encoder in {folder} cannot be loaded: {_first_line(error)}") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise StgTuneError(f"the text encoder in {folder} lacks {len(missing)} keys, first {missing[0]!r}")
    return model.requires_grad_(False).eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The T5 tokenizer from ``tokenizer.json`` or ``spiece.model``; code in the folder is never run.

    Raises:
        StgTuneError: Files are missing or damaged.
    """
    kind = AutoTokenizer if (folder / "tokenizer.json").is_file() else T5TokenizerFast
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise StgTuneError(f"the tokenizer in {folder} cannot be loaded: {_first_line(error)}") from None


def _assemble(folders: Mapping[str, Path], defaults: Mapping[str, Any], *, dtype: torch.dtype) -> OpenSoraPipeline:
    # The small parts first: a damaged file shows before gigabytes are read.
    scheduler_config = folders.get("scheduler", Path()) / "scheduler_config.json"
    settings = _known(read_json(scheduler_config), OpenSoraScheduler) if scheduler_config.is_file() else {}
    return OpenSoraPipeline(
        tokenizer=load_tokenizer(folders["tokenizer"]),
        scheduler=OpenSoraScheduler(**settings),
        vae=load_vae(folders["vae"], dtype=dtype),
        transformer=load_transformer(folders["transformer"], dtype=dtype),
        text_encoder=load_text_encoder(folders["text_encoder"], dtype=dtype),
        **defaults,
    )


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    return read_json(file) if file.is_file() else {}


def _known(config: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The constructor's arguments in a config; published configs also hold training and speed switches."""
    known = inspect.signature(kind).parameters
    dropped = [name for name in config if name not in known and not name.startswith("_")]
    if dropped:
        logger.info("%s: settings that do not concern inference are left out: %s", kind.__name__, ", ".join(dropped))
    return {name: value for name, value in config.items() if name in known}


def _made(kind: Callable[..., Any], config: Mapping[str, Any], folder: Path) -> Any:
    try:
        return kind(**config)
    except StgTuneError as error:
        raise StgTuneError(f"{folder / 'config.json'} describes no model: {error}") from None
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise StgTuneError(f"{folder / 'config.json'} describes no model: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
