from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_large, raft_small

from stg_tune.embedded.scorers_data import Clean, render_clean
from stg_tune.score import embedded_scorers
from stg_tune.score.library import Library
from stg_tune.score.musiq import Musiq
from stg_tune.score.parts import Parts
from stg_tune.score.perceptual import AlexTrunk
from stg_tune.score.pins import Pins
from stg_tune.score.placement import Placement
from stg_tune.score.published import FILES, PackageFile

if TYPE_CHECKING:
    from pathlib import Path

    from stg_tune.embedded import degradations
    from stg_tune.score.composite import CompositeScorer

TINY_CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""An architecture of ``open_clip`` as small as can be, with OpenAI's activation and vocabulary."""


def random_musiq(heads: int) -> Musiq:
    """A small network, each head 64 wide, whose weights are so large that every part of it shows in the result."""
    musiq = Musiq(dim=64 * heads, hidden=96, heads=heads, layers=2, stem=32)
    for weight in musiq.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    for norm in (module for module in musiq.modules() if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm)):
        torch.nn.init.normal_(norm.weight, 1.0, 0.1)
    return musiq


@pytest.fixture(scope="session")
def tiny_clip() -> dict[str, Any]:
    return TINY_CLIP


@pytest.fixture(scope="session")
def musiq_states() -> dict[int, dict[str, torch.Tensor]]:
    """Number of heads -> weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return {heads: random_musiq(heads).state_dict() for heads in (1, 2)}


@pytest.fixture(scope="session")
def scorers() -> CompositeScorer:
    return embedded_scorers()


@pytest.fixture(scope="session")
def clean() -> Clean:
    """Renders of the test split: scans that no scorer was trained on."""
    return render_clean(48, "test", 11)


@pytest.fixture(scope="session")
def videos(clean: Clean) -> torch.Tensor:
    return clean.frames.float() / 255


@pytest.fixture(scope="session")
def layers(clean: Clean) -> degradations.Layers:
    return clean.layers(torch.arange(24), torch.arange(17))


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the formats and under the names of the published files."""
    from open_clip.model import CLIP

    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip, trunk, musiq = CLIP(**TINY_CLIP), AlexTrunk(), random_musiq(1)
        heads = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(AlexTrunk.chns)}
        linear = {"weight": torch.randn(1, 32), "bias": torch.tensor([5.0])}
        save_file({key: t.contiguous() for key, t in clip.state_dict().items()}, folder / "clip-vit-l-14.safetensors")
        alexnet = {**trunk.state_dict(), "classifier.1.weight": torch.zeros(2, 2)}
        saved = {
            "sa_0_4_vit_l_14_linear.pth": linear,
            "sac+logos+ava1-l14-linearMSE.pth": _mlp(32).state_dict(prefix="layers."),
            "alexnet-owt-7be5be79.pth": alexnet,
            "alex.pth": heads,
            "raft_small_C_T_V2-01064c6d.pth": raft_small().state_dict(),
            "raft_large_C_T_V1-22a6c225.pth": raft_large().state_dict(),
            "musiq_spaq_ckpt-358bb6af.pth": musiq.state_dict(),
        }
    for name, state in saved.items():
        torch.save(state, folder / name)
    return folder


def _mlp(dim: int) -> torch.nn.Sequential:
    """The layers of the v2 aesthetic predictor."""
    sizes = [dim, 48, 24, 12, 6, 1]
    layers: list[torch.nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.Dropout(0.1)]
    return torch.nn.Sequential(*layers[:6], layers[6], layers[8])


@pytest.fixture(scope="session")
def library(weights_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The published records over the random files, whose checksums are pinned at first use."""
    files = tuple(replace(file, size=None, sha256="", source=_elsewhere(file.source)) for file in FILES)
    return Library(weights_folder, files=files, pins=Pins(tmp_path_factory.mktemp("pins") / "pins.json"))


def _elsewhere(source: object) -> Any:
    return PackageFile(package="no_such_package", path="x") if isinstance(source, PackageFile) else source


@pytest.fixture(scope="session")
def parts(library: Library) -> Parts:
    return Parts(library, Placement.automatic("cpu"), frames=None, clip_config=TINY_CLIP)
