"""The whole way of the default scorers: files in the published formats, checksums, networks, command, numbers."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from stg_tune.cli.main import main
from stg_tune.score import default_scorers
from stg_tune.score.clip_models import VARIANTS, ClipVariant, configuration
from stg_tune.score.conformance import PROMPT, moving_ball
from stg_tune.score.library import Library
from stg_tune.score.registry import DEFAULT
from stg_tune.video import Video, write_mp4

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any


@pytest.fixture
def random_files(
    library: Library, tiny_clip: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Library:
    """No network; records without checksums, which random files cannot have, and a CLIP as small as theirs."""
    from open_clip import factory

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("stg_tune.score.default.Library", partial(Library, files=library.files))
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", dict(tiny_clip))
    monkeypatch.setitem(VARIANTS, "vit-l-14", ClipVariant(name="vit-l-14", architecture="tiny"))
    return library


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_mp4(Video.from_float(moving_ball(5), fps=8), tmp_path / "film.mp4")


def test_the_default_scorers_score(random_files: Library) -> None:
    scorer = default_scorers("cpu", weights=random_files.folders[0])
    assert tuple(kind.name for kind in scorer.kinds) == DEFAULT
    (row,) = scorer(moving_ball(5)[None], [PROMPT])
    assert all(score.value is not None for score in row.values()), row
    assert all(
        (kind.weights != "none") == (kind.name not in ("motion", "saturation", "temporal_flickering"))
        for kind in scorer.kinds
    )
    assert scorer.frames_seen(49) == dict.fromkeys(DEFAULT, 49) | {
        "aesthetic": 16,
        "alignment": 16,
        "imaging_quality": 16,
    }
    every = default_scorers("cpu", weights=random_files.folders[0], frames=None, names=("aesthetic", "musiq"))
    assert every.frames_seen(49) == {"aesthetic": 49, "musiq": 49}


def test_the_command_scores_with_the_default_scorers(
    random_files: Library, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", str(film), "--prompt", PROMPT, "--weights", str(random_files.folders[0])]
    assert main([*arguments, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert tuple(row["scores"]) == DEFAULT
    assert row["unscored"] == {}
    clips = {"aesthetic", "alignment", "imaging_quality"}
    assert row["clip"] == {name: "vit-l-14" if name in clips else None for name in DEFAULT}
    assert main(arguments) == 0
    assert "temporal_lpips: LPIPS distance a frame, less is better" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_scores_with_the_smaller_clip_as_large_as_it_is(
    random_files: Library, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from open_clip.model import CLIP

    with torch.random.fork_rng(), torch.device("meta"):
        clip = CLIP(**configuration(VARIANTS["vit-b-32"]))
    rng = torch.Generator().manual_seed(0)
    state = {
        key: (torch.randn(t.shape, generator=rng) * 0.02).half()
        for key, t in clip.state_dict().items()
        if key != "attn_mask"
    }
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file(state, folder / "clip-vit-b-32.safetensors")
    torch.save({"weight": torch.randn(1, 512), "bias": torch.tensor([5.0])}, folder / "sa_0_4_vit_b_32_linear.pth")
    for name in ("alexnet-owt-7be5be79.pth", "alex.pth"):
        (folder / name).symlink_to(random_files.folders[0] / name)
    assert main(["score", str(film), "--prompt", PROMPT, "--weights", str(folder), "--fast", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (tuple(row["scores"]), row["unscored"], row["clip"]["aesthetic"]) == (DEFAULT, {}, "vit-b-32")
    # two files of weights, pinned at first use, are behind one number
    assert len({row["weights"][name] for name in ("aesthetic", "alignment", "temporal_lpips")}) == 3
    pins = json.loads((tmp_path / "home" / "stg-tune" / "pins.json").read_text(encoding="utf-8"))["sha256"]
    assert set(pins) == {"clip-vit-b-32", "laion-aesthetic-v1-vit-b-32", "alexnet", "lpips-alex-heads"}
