"""What this machine has of what a search needs. Nothing is installed, downloaded or changed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import stg_tune
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

State = Literal["ok", "note", "problem"]

LEAST_FREE = 2 * 2**30
"""Bytes below which a disk is called nearly full."""
DEMO = "open-sora-tiny"
"""The embedded model that every installation has."""
LEAST_SHARED = 200_000_000
"""Bytes of shared memory below which Ray keeps its objects on disk."""
HUB = "https://huggingface.co"
PATIENCE = 5.0
"""Seconds to wait for the network."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    """What."""
    state: State
    """``ok``; ``note``: something is limited; ``problem``: a search cannot work."""
    found: str
    """What is there."""
    advice: str = ""
    """What to do about it; empty when there is nothing to do."""


def examine(*, offline: bool = False, start_ray: bool = False, hub: str | None = None) -> Iterator[Check]:
    """Every check, in reading order; none of them raises.

    Args:
        offline: Do not ask the network.
        start_ray: Start Ray on this machine, which takes some seconds.
        hub: Address of the model hub; ``None``: that of ``HF_ENDPOINT``, else of Hugging Face.
    """
    yield Check(name="stg-tune", state="ok", found=f"{stg_tune.__version__} on {platform.platform()}")
    yield _python()
    yield from libraries()
    yield lora_loader()
    yield from _devices()
    yield video_file()
    yield from embedded_models()
    yield scorer_files()
    yield _ray(start=start_ray)
    yield from _disks()
    if offline or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        yield Check(name="network", state="note", found="not asked: models and weights must be on this machine")
    else:
        yield network(hub or os.environ.get("HF_ENDPOINT") or HUB)


def libraries(requirements: Sequence[str] | None = None) -> Iterator[Check]:
    """What the package declares to need, against what is installed.

    Args:
        requirements: As in ``Requires-Dist``; ``None``: those of the installed stg-tune.
    """
    for line in _requirements() if requirements is None else requirements:
        match = re.match(r"([A-Za-z0-9._-]+)[^;]*", line)
        if match is None or "extra ==" in line:
            continue
        name, wanted = match[1], line.partition(";")[0].strip()
        least = re.search(r">=\s*([\d.]+)", wanted)
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name=name, state="problem", found="not installed", advice=f"type: pip install '{wanted}'")
            continue
        old = least is not None and _numbers(found) < _numbers(least[1])
        advice = f"{wanted} is needed; type: pip install '{wanted}'" if old else ""
        yield Check(name=name, state="problem" if old else "ok", found=found, advice=advice)


def lora_loader() -> Check:
    """What diffusers loads LoRAs by, which only ``--lora`` needs."""
    try:
        return Check(name="peft", state="ok", found=metadata.version("peft"))
    except metadata.PackageNotFoundError:
        return Check(name="peft", state="note", found="not installed", advice="for --lora, type: pip install peft")


def video_file() -> Check:
    """Write a small video and read it again, as every search does."""
    try:
        import torch

        from stg_tune.video import Video, read_video, write_mp4

        with tempfile.TemporaryDirectory() as folder:
            film = Video(frames=torch.zeros(2, 16, 16, 3, dtype=torch.uint8), fps=8)
            frames = read_video(write_mp4(film, Path(folder) / "film.mp4")).frames
        return Check(name="video files", state="ok", found=f"H.264 written and read, {len(frames)} frames")
    except (StgTuneError, ImportError, OSError) as error:
        return Check(name="video files", state="problem", found="cannot write H.264", advice=str(error))


def embedded_models(weights: Path | None = None) -> Iterator[Check]:
    """The models that are small enough to ship with the package: those whose weights do, and the others.

    Args:
        weights: Folder with a folder for each; ``None``: that of the package.
    """
    from stg_tune.models import mochi, svd
    from stg_tune.models.open_sora import record

    for entry in (entry for family in (record, mochi, svd) for entry in family.ENTRIES if entry.embedded):
        yield _embedded(entry.name, weights / entry.name if weights else record.embedded_folder(entry.name))


def _embedded(name: str, folder: Path) -> Check:
    files = [file for file in folder.rglob("*.safetensors") if file.stat().st_size] if folder.is_dir() else []
    if files and (folder / "model_index.json").is_file():
        size = sum(file.stat().st_size for file in files) / 1e6
        return Check(name=f"model {name}", state="ok", found=f"in the package, {size:.1f} MB")
    if name != DEMO and not (folder / "model_index.json").is_file():
        return Check(name=f"model {name}", state="note", found="its weights do not ship with this version")
    advice = "the installation is incomplete; install stg-tune again"
    return Check(name=f"model {name}", state="problem", found="no weights", advice=advice)


def scorer_files() -> Check:
    """The files of the default scorers of real models; the embedded models need none of them."""
    from stg_tune.score.library import Library
    from stg_tune.score.registry import DEFAULT, EXACT_CLIP, files_of

    needed = files_of(DEFAULT, EXACT_CLIP)
    missing = Library().missing(needed)
    found = f"{len(needed) - len(missing)} of {len(needed)} files here, not verified"
    advice = "for models that are not embedded, type: stg-tune weights fetch" if missing else ""
    return Check(name="scorers", state="note" if missing else "ok", found=found, advice=advice)


def network(hub: str) -> Check:
    """Whether the model hub answers; any answer will do.

    Args:
        hub: Its address.
    """
    if not hub.startswith(("http://", "https://")):
        return Check(name="network", state="note", found=f"{hub} is no address", advice="mend HF_ENDPOINT")
    request = urllib.request.Request(hub, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            pass
    except urllib.error.HTTPError:  # it answers
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        advice = "embedded models and local folders work; for others copy the files here and give --model-path"
        return Check(name="network", state="note", found=f"{hub} not reachable: {reason}", advice=advice)
    return Check(name="network", state="ok", found=f"{hub} answers")


def _requirements() -> list[str]:
    try:
        return metadata.requires("stg-tune") or []
    except metadata.PackageNotFoundError:
        return []


def _numbers(version: str) -> tuple[int, ...]:
    """``2.14.1+cpu`` -> (2, 14, 1)."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()


def _python() -> Check:
    return Check(name="python", state="ok", found=f"{platform.python_version()} in {sys.prefix}")


def _devices() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Check(name="processor", state="ok", found=f"{cores} cores, {memory:.1f} GiB of memory")
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check(name="gpu", state="problem", found=f"torch cannot be loaded: {error}", advice="install torch again")
        return
    count = torch.cuda.device_count()
    for number in range(count):
        card = torch.cuda.get_device_properties(number)
        yield Check(name=f"gpu {number}", state="ok", found=f"{card.name}, {card.total_memory / 2**30:.1f} GiB")
    if not count:
        yield Check(name="gpu", state="note", found="none: fine for the embedded models, slow for all others")


def _ray(*, start: bool) -> Check:
    try:
        found = metadata.version("ray")
    except metadata.PackageNotFoundError:
        return Check(name="ray workers", state="note", found="not installed", advice="work with --workers 1")
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.is_dir() else 0
    if not start:
        small = free < LEAST_SHARED
        advice = f"{shared} has little room; in a container raise --shm-size" if small else ""
        return Check(name="ray workers", state="note" if small else "ok", found=f"{found}, not started", advice=advice)
    from stg_tune.search.workers.cluster import LocalCluster

    try:
        LocalCluster(cpus=1, gpus=0).close()
    except StgTuneError as error:
        return Check(name="ray workers", state="note", found=f"{found} does not start", advice=str(error))
    return Check(name="ray workers", state="ok", found=f"{found}, starts and stops")


def _disks() -> Iterator[Check]:
    from stg_tune.score.downloads import hub_home

    places = {"this folder": Path.cwd(), "temporary files": Path(tempfile.gettempdir()), "model cache": hub_home()}
    for name, place in places.items():
        there = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
        free = shutil.disk_usage(there).free
        advice = "" if free >= LEAST_FREE else f"{there} is nearly full"
        writable = os.access(there, os.W_OK)
        found = f"{free / 2**30:.1f} GiB free" + ("" if writable else ", not writable")
        yield Check(name=f"disk, {name}", state="ok" if not advice and writable else "note", found=found, advice=advice)
