"""What each suite measures, and on what (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from stg_tune.errors import StgTuneError


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One experiment of the paper."""

    name: str
    """What ``--suite`` takes."""
    summary: str
    """One line for ``--help``."""
    repeats: str
    """Which tables or figures of arXiv:2411.18664."""
    samples: int
    """Videos of each arm: the paper's number where it states one."""
    embedded_samples: int
    """Videos of each arm on a model that ships with the package."""
    seeds: int
    """Videos of each prompt; above 1 where diversity is measured."""
    features: bool
    """Whether videos are compared as sets, by Frechet distance and inception score."""
    scorers: tuple[str, ...]
    """Scorers for models that are not embedded."""
    curve: bool = False
    """Whether every setting is run at several guidance scales."""
    remark: str = ""
    """What a reader of the table must know."""


SUITES = (
    Suite(
        name="t2v",
        summary="VBench's dimensions, pair by pair against plain CFG",
        repeats="Tables 1 and 3",
        samples=946,
        embedded_samples=240,
        seeds=1,
        features=False,
        scorers=(
            "aesthetic",
            "imaging_quality",
            "temporal_flickering",
            "dynamic_degree",
            "optical_flow",
            "alignment",
            "temporal_lpips",
            "motion",
            "saturation",
        ),
        remark="The scorers of real models are VBench's but for imaging_quality, which is CLIP-IQA (VBench's MUSIQ is "
        "the scorer musiq), and motion_smoothness, whose interpolator is not free to use. Their prompts are the "
        "package's general ones unless --prompts names VBench's list.",
    ),
    Suite(
        name="i2v-ucf101",
        summary="Frechet video distance and inception score against real videos",
        repeats="Tables 2 and 4",
        samples=2048,
        embedded_samples=480,
        seeds=1,
        features=True,
        scorers=("temporal_flickering", "motion", "saturation"),
        remark="The paper gives an image-to-video model first frames of UCF-101 and takes the inception score from a "
        "network of its own: these numbers are comparable with each other, not with the paper's.",
    ),
    Suite(
        name="scale-curve",
        summary="quality against diversity over guidance scales",
        repeats="Figure 4",
        samples=512,
        embedded_samples=480,
        seeds=8,
        features=True,
        scorers=("aesthetic", "imaging_quality", "alignment", "motion", "saturation"),
        curve=True,
    ),
)

CFG_SCALES = (1.0, 2.0, 3.0, 4.5, 6.0, 9.0)
"""Guidance scales of the plain CFG curve."""
STG_FACTORS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""What the skip scales of a preset are multiplied by for its curve; at 0 it would be plain CFG."""


FEATURES = {"judge": 96, "i3d": 400}
"""Extractor -> numbers that it gives for one video."""


def least_videos(extractor: str) -> int:
    """Videos below which the covariance of the features is singular whatever they show."""
    return FEATURES[extractor] + 1


def check_samples(suite: Suite, extractor: str, samples: int) -> None:
    """Raise ``StgTuneError`` when there are to be too few videos for what the suite measures."""
    if samples < 2:
        raise StgTuneError(f"--samples must be at least 2, got {samples}")
    if suite.features and samples < least_videos(extractor):
        raise StgTuneError(
            f"{samples} videos of each setting are too few for the Frechet distance and the inception score of "
            f"{suite.name}: the network {extractor} gives {FEATURES[extractor]} features, and their covariance needs "
            f"more videos than that; type --samples {least_videos(extractor)} or more"
        )


def suite(name: str) -> Suite:
    """The suite called ``name``; an unknown one raises ``StgTuneError`` with close matches."""
    known = {suite.name: suite for suite in SUITES}
    if name in known:
        return known[name]
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise StgTuneError(f"unknown suite {name!r}: {hint}Known: {', '.join(known)}")
