"""From files to measures: how each scorer of the registry is put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchvision.models.optical_flow import (  # type: ignore[import-untyped]  # no stubs are published
    raft_large,
    raft_small,
)

from stg_tune.errors import StgTuneError
from stg_tune.score.clip import Aesthetic, Alignment
from stg_tune.score.clip_models import affine_head, linear_head
from stg_tune.score.flicker import TemporalFlickering
from stg_tune.score.flow import DynamicDegree, OpticalFlow, RaftFlow
from stg_tune.score.loading import fill, read_state
from stg_tune.score.motion import Motion
from stg_tune.score.musiq import Musiq, MusiqQuality
from stg_tune.score.parts import Parts, short
from stg_tune.score.perceptual import AlexTrunk, LpipsOverTrunk, TemporalLpips
from stg_tune.score.quality_prompts import PromptQuality
from stg_tune.score.saturation import Saturation

if TYPE_CHECKING:
    from torch import nn

LPIPS_LEAST_SIDE = 31
"""Below it, AlexNet's last pooling has nothing left."""
SMALL_UPDATES, LARGE_UPDATES = 12, 20
"""Refinements of the flow: torchvision's default, and VBench's."""


def aesthetic(parts: Parts) -> Aesthetic:
    """LAION v1, the linear head that VBench takes."""
    file = parts.library.get(f"laion-aesthetic-v1-{parts.clip}")
    weight, bias = linear_head(read_state(file.path))
    device = parts.placement.device
    return Aesthetic(parts.towers, weight.to(device), bias, weights=short(parts.clip_file, file))


def aesthetic_v2(parts: Parts) -> Aesthetic:
    """LAION v2."""
    file = parts.library.get(f"laion-aesthetic-v2-{parts.clip}")
    weight, bias = affine_head(read_state(file.path))
    weights = short(parts.clip_file, file)
    return Aesthetic(parts.towers, weight.to(parts.placement.device), bias, weights=weights, name="aesthetic_v2")


def alignment(parts: Parts) -> Alignment:
    """Prompt against the mean of the frame features."""
    return Alignment(parts.towers, weights=short(parts.clip_file))


def imaging_quality(parts: Parts) -> PromptQuality:
    """CLIP-IQA from the features that are there."""
    return PromptQuality(parts.towers, weights=short(parts.clip_file))


def musiq(parts: Parts) -> MusiqQuality:
    """VBench's imaging quality."""
    file = parts.library.get("musiq-spaq")
    state = read_state(file.path)
    try:
        net = Musiq.like(state)
    except (KeyError, IndexError):
        raise StgTuneError(f"{file.path} holds no weights of a MUSIQ network") from None
    fill(net, state, "weights of musiq-spaq")
    return MusiqQuality(net.to(parts.placement.device), parts.placement, weights=short(file), frames=parts.frames)


def temporal_lpips(parts: Parts) -> TemporalLpips:
    """LPIPS with torchvision's AlexNet and the heads that the package ``lpips`` brings."""
    trunk_file, head_file = parts.library.get("alexnet"), parts.library.get("lpips-alex-heads")
    trunk = AlexTrunk()
    convolutions = {key: t for key, t in read_state(trunk_file.path).items() if key.startswith("features.")}
    fill(trunk, convolutions, "weights of alexnet")
    metric = LpipsOverTrunk(trunk)
    heads = {
        key.removeprefix("lin").replace(".model.1.", ".model.0."): t for key, t in read_state(head_file.path).items()
    }
    fill(metric.lins, heads, "weights of lpips-alex-heads")
    return TemporalLpips(
        metric.eval().to(parts.placement.device),
        weights=short(trunk_file, head_file),
        least_side=LPIPS_LEAST_SIDE,
        placement=parts.placement,
    )


def motion(parts: Parts) -> Motion:
    """The same number on every device: no weights, no network."""
    return Motion()


def optical_flow(parts: Parts) -> OpticalFlow:
    """RAFT-small."""
    file = parts.library.get("raft-small")
    flow = RaftFlow(_filled(raft_small(), parts, "raft-small"), SMALL_UPDATES)
    return OpticalFlow(flow, parts.placement, weights=short(file))


def dynamic_degree(parts: Parts) -> DynamicDegree:
    """RAFT with the weights that VBench takes."""
    file = parts.library.get("raft-large-things")
    flow = RaftFlow(_filled(raft_large(), parts, "raft-large-things"), LARGE_UPDATES)
    return DynamicDegree(flow, parts.placement, fps=parts.fps, weights=short(file))


def temporal_flickering(parts: Parts) -> TemporalFlickering:
    """Plain arithmetic."""
    return TemporalFlickering()


def saturation(parts: Parts) -> Saturation:
    """All chroma counts: what is natural differs between prompts, and the guard compares with the baseline anyway."""
    return Saturation(0.0)


def _filled(net: nn.Module, parts: Parts, name: str) -> nn.Module:
    fill(net, read_state(parts.library.get(name).path), f"weights of {name}")
    return net.to(parts.placement.device)
