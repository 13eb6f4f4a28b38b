"""Downloads that resume, from the hub and from single addresses, into the caches that other programs share."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from stg_tune.errors import StgTuneError
from stg_tune.score.locks import alone_with

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from stg_tune.score.published import HubFile, WebFile

MIRROR_VARIABLE = "STG_TUNE_WEIGHTS_MIRROR"
"""Environment variable: base address that serves the files which are not on the hub, under their own names."""
MOST_BYTES = 4 * 2**30
"""No file of a scorer is near this size; a longer answer is cut off and refused."""
_PROBE_SECONDS = 5.0
_READ_SECONDS = 30.0


def hub_home() -> Path:
    """The folder that ``HF_HOME`` names."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME)


def web_cache() -> Path:
    """Where torch keeps downloaded checkpoints (``TORCH_HOME``), found without importing torch."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{base}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def refuse_offline() -> None:
    """Raise ``ConnectionError`` when ``HF_HUB_OFFLINE`` is set."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")


def in_hub_cache(source: HubFile) -> Path | None:
    """The file in the hub's cache; no network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.path, revision=source.revision, repo_type=source.repo_type)
    return Path(found) if isinstance(found, str) else None


def from_hub(source: HubFile) -> Path:
    """Download into the hub's cache and compare with the SHA-256 that the hub states.

    The hub is asked once, with a short time limit and no retries, before anything is downloaded.

    Raises:
        StgTuneError: The download is not what the hub describes; it was removed.
    """
    from huggingface_hub import HfApi, hf_hub_download

    described: Any = HfApi().repo_info(
        source.repo,
        revision=source.revision,
        repo_type=source.repo_type,
        files_metadata=True,
        timeout=_PROBE_SECONDS,
    )
    stated = next((file for file in described.siblings or [] if file.rfilename == source.path), None)
    if stated is None:
        raise FileNotFoundError(f"{source.repo} has no file {source.path} at revision {source.revision}")
    path = Path(hf_hub_download(source.repo, source.path, revision=source.revision, repo_type=source.repo_type))
    if stated.lfs and sha256_of(path) != stated.lfs.sha256:
        path.resolve().unlink()
        raise StgTuneError(
            f"{source.repo}: the download of {source.path} has another SHA-256 than {stated.lfs.sha256}. It was "
            "removed; type the command again"
        )
    return path


def from_web(source: WebFile, *, size: int | None) -> Path:
    """Download to torch's cache; what an earlier try left behind is kept and continued.

    Where another process is at the same file, its download is waited for and taken.

    Args:
        source: The address.
        size: Bytes, where known; a longer answer is refused before it fills the disk.
    """
    target = web_cache() / unquote(Path(urlsplit(source.address).path).name)
    with alone_with(target):
        if not target.is_file():
            part = target.with_name(f"{target.name}.part")
            _append(_mirrored(source.address), part, limit=size or MOST_BYTES)
            part.replace(target)
    return target


def _mirrored(address: str) -> str:
    mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
    return f"{mirror}/{Path(urlsplit(address).path).name}" if mirror else address


def _append(address: str, part: Path, *, limit: int) -> None:
    if urlsplit(address).scheme not in ("https", "http"):
        raise StgTuneError(f"{MIRROR_VARIABLE} must begin with https:// or http://, got {address!r:.80}")
    answer, begun = _open(address, part)
    with answer, part.open("ab" if begun else "wb") as file:
        expected = begun + int(answer.headers.get("Content-Length") or 0)
        if expected <= limit:  # a length that is not stated counts as 0 here and is caught by the copy
            shutil.copyfileobj(_Limited(answer, limit - begun), file, 1 << 20)
    if expected > limit:
        part.unlink()
        raise StgTuneError(f"{address} sends {expected} bytes, the file has {limit}: it was not downloaded")
    if part.stat().st_size < expected:
        raise ConnectionError(f"the connection ended after {part.stat().st_size} of {expected} bytes")


def _open(address: str, part: Path) -> tuple[HTTPResponse, int]:
    """The answer, and the bytes that were there before it and stay."""
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=_READ_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # it is as long as the file or longer: no beginning of it
        return _open(address, part)
    return answer, begun if answer.status == HTTPStatus.PARTIAL_CONTENT else 0


class _Limited:
    """A stream that raises ``StgTuneError`` when it is longer than it may be."""

    def __init__(self, stream: HTTPResponse, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, count: int = -1) -> bytes:
        """Pass on at most ``count`` bytes."""
        data = self._stream.read(count)
        self._left -= len(data)
        if self._left < 0:
            raise StgTuneError("the download is longer than the file it should be; it was stopped")
        return data


def sha256_of(path: Path) -> str:
    """64 hex digits over the bytes of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
