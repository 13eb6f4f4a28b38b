"""Published files behind the scorers of real models: source, licence, size, checksum (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file on the Hugging Face hub, or on the mirror that ``HF_ENDPOINT`` names."""

    repo: str
    """``owner/name``."""
    path: str
    """Path inside the repository."""
    revision: str = "main"
    """Commit hash, tag or branch."""
    repo_type: Literal["model", "space"] = "model"
    """Kind of repository."""

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        prefix = "spaces/" if self.repo_type == "space" else ""
        return f"https://huggingface.co/{prefix}{self.repo}/resolve/{self.revision}/{self.path}"


@dataclass(frozen=True, kw_only=True)
class WebFile:
    """A file at an address of its own; ``STG_TUNE_WEIGHTS_MIRROR`` replaces everything before the file's name."""

    address: str
    """``https://...``."""
    revision: str = ""
    """Commit hash, where the address holds one; empty: the file's name says which one it is."""


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """A file that an installed package brings along."""

    package: str
    """Import name."""
    path: str
    """Path inside the package."""

    @property
    def address(self) -> str:
        """In words."""
        return f"installed with the package {self.package} ({self.path})"


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One file of weights."""

    name: str
    """What commands call it."""
    file: str
    """Its name in a local folder."""
    source: HubFile | WebFile | PackageFile
    """Where it comes from."""
    licence: str
    """As its publisher states it; where that is doubtful, it says so."""
    commercial: bool
    """False: some right is missing or not clear, so that nothing loads it unless it is asked for by name."""
    size: int | None = None
    """Bytes, where known."""
    about: int | None = None
    """Bytes as the publisher states them, rounded; where ``size`` is not known."""
    sha256: str = ""
    """64 hex digits; fewer are the first ones (publishers put them into file names); empty: pinned at first use."""
    checksum_from: str = "pinned at first use"
    """Where the checksum comes from."""

    @property
    def stated(self) -> str | None:
        """The whole checksum, where it is known before the file is there."""
        return self.sha256 if len(self.sha256) == 64 else None


_LAION_COMMIT = "6d122adad522ab246644d9dc1c6d7a3810ee255f"
_LAION = f"https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/{_LAION_COMMIT}"
_LAION_V2_COMMIT = "6934dd81792f086e613a121dbce43082cb8be85e"
_LAION_V2 = f"https://raw.githubusercontent.com/christophschuhmann/improved-aesthetic-predictor/{_LAION_V2_COMMIT}"
_TORCHVISION = "https://download.pytorch.org/models"
_OPENAI = "MIT (OpenAI's CLIP repository)"
_BSD = "BSD-3-Clause (torchvision)"
_OF_COMMIT = "computed from the file in the named commit"
_FILE_NAME = "its first 8 digits are in the publisher's file name"

FILES: tuple[PublishedFile, ...] = (
    PublishedFile(
        name="clip-vit-l-14",
        file="clip-vit-l-14.safetensors",
        source=HubFile(repo="timm/vit_large_patch14_clip_224.openai", path="open_clip_model.safetensors"),
        licence=_OPENAI,
        commercial=True,
    ),
    PublishedFile(
        name="clip-vit-b-32",
        file="clip-vit-b-32.safetensors",
        source=HubFile(repo="timm/vit_base_patch32_clip_224.openai", path="open_clip_model.safetensors"),
        licence=_OPENAI,
        commercial=True,
    ),
    PublishedFile(
        name="laion-aesthetic-v1-vit-l-14",
        file="sa_0_4_vit_l_14_linear.pth",
        source=WebFile(address=f"{_LAION}/sa_0_4_vit_l_14_linear.pth", revision=_LAION_COMMIT),
        licence="MIT (LAION-AI/aesthetic-predictor)",
        commercial=True,
        size=4071,
        sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        checksum_from=_OF_COMMIT,
    ),
    PublishedFile(
        name="laion-aesthetic-v1-vit-b-32",
        file="sa_0_4_vit_b_32_linear.pth",
        source=WebFile(address=f"{_LAION}/sa_0_4_vit_b_32_linear.pth", revision=_LAION_COMMIT),
        licence="MIT (LAION-AI/aesthetic-predictor)",
        commercial=True,
        size=3047,
        sha256="c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
        checksum_from=_OF_COMMIT,
    ),
    PublishedFile(
        name="laion-aesthetic-v2-vit-l-14",
        file="sac+logos+ava1-l14-linearMSE.pth",
        source=WebFile(address=f"{_LAION_V2}/sac%2Blogos%2Bava1-l14-linearMSE.pth", revision=_LAION_V2_COMMIT),
        licence="Apache-2.0 (christophschuhmann/improved-aesthetic-predictor)",
        commercial=True,
        size=3_714_759,
        sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        checksum_from=_OF_COMMIT,
    ),
    PublishedFile(
        name="alexnet",
        file="alexnet-owt-7be5be79.pth",
        source=WebFile(address=f"{_TORCHVISION}/alexnet-owt-7be5be79.pth"),
        licence=_BSD,
        commercial=True,
        size=244_408_911,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        checksum_from=f"stated by several projects that pin it; {_FILE_NAME}",
    ),
    PublishedFile(
        name="lpips-alex-heads",
        file="alex.pth",
        source=PackageFile(package="lpips", path="weights/v0.1/alex.pth"),
        licence="BSD-2-Clause (richzhang/PerceptualSimilarity)",
        commercial=True,
        size=6009,
        sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        checksum_from="computed from the file in lpips 0.1.4",
    ),
    PublishedFile(
        name="raft-small",
        file="raft_small_C_T_V2-01064c6d.pth",
        source=WebFile(address=f"{_TORCHVISION}/raft_small_C_T_V2-01064c6d.pth"),
        licence=_BSD,
        commercial=True,
        about=round(3.821 * 2**20),
        sha256="01064c6dba73b0fc9fc8edf772248560a00a3acfd62ac6677e9eeebad9680e27",
        checksum_from=f"stated by one project that pins it; {_FILE_NAME}",
    ),
    PublishedFile(
        name="raft-large-things",
        file="raft_large_C_T_V1-22a6c225.pth",
        source=WebFile(address=f"{_TORCHVISION}/raft_large_C_T_V1-22a6c225.pth"),
        licence=f"{_BSD}; a port of raft-things.pth (princeton-vl/RAFT, BSD-3-Clause)",
        commercial=True,
        about=round(20.129 * 2**20),
        sha256="22a6c225",
        checksum_from=_FILE_NAME,
    ),
    PublishedFile(
        name="musiq-spaq",
        file="musiq_spaq_ckpt-358bb6af.pth",
        source=HubFile(repo="chaofengc/IQA-PyTorch-Weights", path="musiq_spaq_ckpt-358bb6af.pth"),
        licence="not clear: IQA-PyTorch (PolyForm Noncommercial, S-Lab) converted Google's checkpoint (Apache-2.0)",
        commercial=False,
        sha256="358bb6af275e28ea56821d44fb55c6cb83645db11f394d3ad65b2d149965ab50",
        checksum_from=f"stated by several projects that pin it; {_FILE_NAME}",
    ),
    PublishedFile(
        name="i3d-kinetics-400",
        file="i3d_pretrained_400.pt",
        source=HubFile(
            repo="LanguageBind/Open-Sora-Plan-v1.0.0",
            path="opensora/eval/fvd/videogpt/i3d_pretrained_400.pt",
            revision="810fa8c4bdb3a4c8eec9bd57375c29bde6fb46de",
            repo_type="space",
        ),
        licence="converted by VideoGPT (MIT) from DeepMind's kinetics-i3d checkpoint (Apache-2.0)",
        commercial=True,
    ),
)
"""Every file that a scorer or a suite can ask for. No size or checksum is given that was not computed or looked up."""


def by_name(files: tuple[PublishedFile, ...] = FILES) -> Mapping[str, PublishedFile]:
    """Name -> record."""
    return {file.name: file for file in files}


def record(name: str, files: tuple[PublishedFile, ...] = FILES) -> PublishedFile:
    """The record called ``name``; an unknown name raises ``StgTuneError`` with close matches."""
    known = by_name(files)
    if name in known:
        return known[name]
    close = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise StgTuneError(
        f"unknown weights {name!r}: {hint}Known: {', '.join(known)}; `stg-tune weights list` describes them"
    )
