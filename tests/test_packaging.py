"""The wheel is complete: installed away from the checkout, it lists its models and makes a video."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from stg_tune.video import read_video

ROOT = Path(__file__).parent.parent
SOURCES = ("stg_tune", "search_spaces", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


def _run(*command: str | Path, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    run = subprocess.run([str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    arguments = ("--no-deps", "--no-build-isolation", "--wheel-dir", copy / "dist", copy)
    _run(sys.executable, "-m", "pip", "wheel", *arguments, cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; everything else is looked up where it is installed already."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    (packages,) = home.glob("lib/python*/site-packages")
    others = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in others))
    return home / "bin"


def test_the_wheel_holds_everything_that_is_not_code(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(ROOT))
        for pattern in ("*.css", "*.js", "*.json", "*.safetensors", "*.txt", "py.typed")
        for path in (ROOT / "stg_tune").rglob(pattern)
    }
    wanted |= {f"stg_tune/search/spaces/{path.name}" for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert wanted - names == set()
    assert any(name.startswith("stg_tune/embedded/weights/open-sora-tiny/") for name in names)
    assert not any(name.startswith(("tests/", "search_spaces/")) or "__pycache__" in name for name in names)


def test_the_installed_package_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    place = _run(installed / "python", "-c", "import stg_tune; print(stg_tune.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(installed.parent)


def test_models_answer_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert "open-sora-tiny" in _run(installed / "stg-tune", "models", cwd=tmp_path)


def test_a_video_is_made_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    arguments = ("--model", "open-sora-tiny", "--prompt", "a red seven moving left", "--steps", "2", "-o", "seven.mp4")
    _run(installed / "stg-tune", "generate", *arguments, cwd=tmp_path)
    clip = read_video(tmp_path / "seven.mp4")
    assert clip.frames.shape == (17, 64, 64, 3)
    assert clip.frames.float().std() > 1


def test_a_search_is_planned_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert "confirm" in _run(installed / "stg-tune", "search", "--model", "open-sora-tiny", "--dry-run", cwd=tmp_path)
