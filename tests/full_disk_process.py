"""Searches on a small disk that fills up: `python full_disk_process.py FOLDER`, in a mount namespace of its own.

Prints one JSON line with what happened.
"""

import json
import subprocess
import sys
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from stg_tune import film, preset
from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.generate import Generated
from stg_tune.models.base import GenerationDefaults
from stg_tune.search import run_search
from stg_tune.search.stored import rows_of
from stg_tune.video import Video, read_video
from tests.conftest import evaluate, plan

DISK = Path(sys.argv[1])
GENERATION = GenerationDefaults(height=64, width=64, num_frames=17, num_inference_steps=8, cfg_scale=2.0, fps=8)
calls = []


def mount(size, *options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join((*options, f"size={size}")), "none", DISK], check=True)


def counted(spec, pair):
    calls.append((spec.hash(), pair.key))
    return evaluate(spec, pair)


def search(folder):
    try:
        return run_search(plan(), counted, directory=folder), ""
    except StgTuneError as error:
        return None, str(error)


def fill():
    with (DISK / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def save(made, file):
    try:
        preset.save(made, file)
    except StgTuneError as error:
        return str(error)
    return ""


def painted(spec, pair):
    frames = torch.randint(0, 255, (8, 64, 64, 3), dtype=torch.uint8)
    return Generated(video=Video(frames=frames, fps=8), effects={}, forwards=8.0, seconds=0.1)


class Studio:
    generator = staticmethod(painted)


def filmed(result, folder):
    films = film.films_of(result.plan, RunFolder(path=folder))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        film.film_result(result, films, film.here(Studio, films))
    return [str(item.message) for item in told if issubclass(item.category, UserWarning)]


def main():
    mount("300k")
    folder, report = DISK / "run", {}
    result, report["full"] = search(folder)
    report["kept"], report["begun"] = len(rows_of(folder)), len(calls)
    mount("40m", "remount")
    result, report["after"] = search(folder)
    report["evaluated"], report["spent"] = len(calls), result.spent
    report["winner"] = result.verdict.winner.hash()
    made = preset.from_result(result, family="open-sora", checkpoint="embedded", generation=GENERATION)
    preset.save(made, folder / "preset.json")
    fill()
    report["preset"] = save(replace(made, name="another"), folder / "preset.json")
    report["preset_before"] = preset.load(folder / "preset.json") == made
    report["film"] = filmed(result, folder)
    report["torn"] = [str(file.name) for file in folder.rglob("*") if ".part" in file.name or ".tmp" in file.name]
    (DISK / "filler").unlink()
    report["film_after"] = filmed(result, folder)
    report["clips"] = [len(read_video(clip).frames) for clip in (folder / "videos").iterdir()]
    sys.stdout.write(json.dumps(report) + "\n")


main()
