"""Published files: from the hub's local cache, else from the hub, else one message that says what is needed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache

from stg_tune.errors import NotReachableError, StgTuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from huggingface_hub.hf_api import ModelInfo

    from stg_tune.models.open_sora.record import HubSource

PATH_VARIABLE = "STG_TUNE_MODEL_PATH"
"""Environment variable that names a local folder, as ``--model-path`` does."""
_PROBE_SECONDS = 5.0
_BLOCK = 1 << 22


def fetch(model: str, sources: Sequence[HubSource]) -> dict[str, Path]:
    """Folders with the files of every part, downloading what the hub's cache lacks.

    The cache is asked first and without network. If files are missing, the hub is asked once, with a short time limit
    and no retries, before anything is downloaded; downloads resume where they stopped, and every file is compared with
    the size and, where the hub gives one, the SHA-256 that the hub states.

    Args:
        model: Name for messages.
        sources: What is needed.

    Returns:
        Part (``transformer``, ``vae``, ...) -> folder. A folder in the cache is named after its commit.

    Raises:
        NotReachableError: Files are neither in the cache nor reachable.
        StgTuneError: A downloaded file is not the one that the hub describes.
    """
    lacking = {source.repo: _lacking(source) for source in sources}
    for source in sources:
        if lacking[source.repo]:
            try:
                described = _describe(source)
                for name in lacking[source.repo]:
                    _download(source, name, described)
            except StgTuneError:
                raise
            except Exception as error:
                # Every generation of huggingface_hub raises the errors of another HTTP client.
                raise NotReachableError(_not_reachable(model, sources, lacking, error)) from error
    return {part: _cached_folder(source) for source in sources for part in source.parts}


def _lacking(source: HubSource) -> list[str]:
    cached = {name: try_to_load_from_cache(source.repo, name, revision=source.revision) for name in source.files}
    return [name for name, file in cached.items() if not isinstance(file, str)]


def _cached_folder(source: HubSource) -> Path:
    file = try_to_load_from_cache(source.repo, source.files[0], revision=source.revision)
    if not isinstance(file, str):
        raise StgTuneError(f"{source.repo}: {source.files[0]} vanished from the hub's cache; type the command again")
    return Path(file).parent


def _describe(source: HubSource) -> ModelInfo:
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    return HfApi().model_info(source.repo, revision=source.revision, files_metadata=True, timeout=_PROBE_SECONDS)


def _download(source: HubSource, name: str, described: ModelInfo) -> None:
    stated = next((file for file in described.siblings or [] if file.rfilename == name), None)
    if stated is None:
        raise FileNotFoundError(f"{source.repo} has no file {name} at revision {source.revision}")
    file = Path(hf_hub_download(source.repo, name, revision=source.revision))
    check_file(file, size=stated.size, sha256=stated.lfs.sha256 if stated.lfs else None)


def check_file(file: Path, *, size: int | None, sha256: str | None) -> None:
    """Compare a file with what the hub states; a file that differs is removed.

    Raises:
        StgTuneError: Size or SHA-256 differ.
    """
    if size is not None and file.stat().st_size != size:
        problem = f"{file.stat().st_size} bytes in place of {size}"
    elif sha256 is not None and _sha256(file) != sha256:
        problem = f"another SHA-256 than {sha256}"
    else:
        return
    file.resolve().unlink()
    raise StgTuneError(f"{file.name}: the download has {problem}. It was removed; type the command again")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _not_reachable(model: str, sources: Sequence[HubSource], lacking: dict[str, list[str]], error: Exception) -> str:
    reason = (str(error).splitlines() or [""])[0][:200]
    total, missing = sum(len(source.files) for source in sources), sum(map(len, lacking.values()))
    needed = "\n".join(f"  {'/ and '.join(source.parts)}/: {source.words()}" for source in sources)
    folders = ", ".join(f"{part}/" for source in sources for part in source.parts)
    return (
        f"{model}: the weights could not be reached.\n"
        f"Tried: the hub's cache {constants.HF_HUB_CACHE} ({total - missing} of {total} files are there), then the "
        f"Hugging Face hub ({type(error).__name__}: {reason}).\n"
        f"Needed, with the folder that each belongs in:\n{needed}\n"
        f"With a connection, type the same command again: a download goes on where it stopped. With local copies, put "
        f"them into one folder with the sub-folders {folders} and type --model-path DIR (or set {PATH_VARIABLE}=DIR)."
    )
