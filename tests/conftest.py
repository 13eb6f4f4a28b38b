"""Runs over made-up scores, and a pipeline with random weights: whole things, small, for tests of any part."""

from __future__ import annotations

import json
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair, ScoreKind
from stg_tune.search import SearchPlan, load_space, run_search, split_pairs
from stg_tune.search.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.models.base import ModelEntry
    from stg_tune.models.open_sora.pipeline import OpenSoraPipeline
    from stg_tune.search.space import SearchSpace

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts background jobs deaf to Ctrl-C, and their children inherit it: tests press it
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden" / "opensora"
DEPTHS = {"spatial": 8, "temporal": 8}
KINDS = tuple(
    ScoreKind(name=name, direction=direction, low=0.0, high=10.0, unit="points", weights="made up")
    for name, direction in (
        ("aesthetic", "maximize"),
        ("imaging_quality", "maximize"),
        ("temporal_lpips", "minimize"),
        ("alignment", "maximize"),
        ("motion", "maximize"),
        ("saturation", "minimize"),
    )
)


def space() -> SearchSpace:
    """The shape of a real space; its own strengths, so that these runs stay as they are when the real one changes."""
    real = load_space("open-sora-tiny", DEPTHS)
    strengths = replace(real.stg_scale, low=0.05, high=1.5)
    plain = replace(real.cfg_scale, low=1.0, high=5.0)
    return replace(real, stg_scale=strengths, cfg_scale=plain, screen=replace(real.screen, stg_scale=0.3))


def plan(seed: int = 0, **changes: object) -> SearchPlan:
    prompts = [f"a {colour} {digit}" for colour in ("red", "blue", "green") for digit in range(10)]
    search, holdout = split_pairs(prompts, seed=seed, search=8, holdout=60)
    settings = {
        "model": "open-sora-tiny",
        "space": space(),
        "depths": DEPTHS,
        "num_steps": 8,
        "baseline": GuidanceSpec(cfg_scale=2.0),
        "scorers": KINDS,
        "search_pairs": search,
        "holdout_pairs": holdout,
        "budget": "150",
        "seed": seed,
        "versions": {"stg-tune": "0.1.0"},
    }
    return SearchPlan(**settings | changes)


def evaluate(spec: GuidanceSpec, pair: Pair, *, lift: float = 1.0) -> Evaluation:
    """Skipping spatial block 4 helps by ``lift``; every other block hurts. The pair adds its own difficulty."""
    noise = random.Random(f"{pair.key} {spec.hash()}")
    level = random.Random(pair.key).gauss(5, 1)
    terms = [term for segment in spec.segments for term in segment.terms if term.stg_scale]
    layers = [(stack, layer) for term in terms for stack, indices in term.skip_layers.items() for layer in indices]
    gain = sum(lift if place == ("spatial", 4) else -0.3 * lift for place in layers) + noise.gauss(0, 0.05)
    signs = {kind.name: 1.0 if kind.direction == "maximize" else -1.0 for kind in KINDS}
    scores = {name: level + sign * gain for name, sign in signs.items()} | {"motion": 2.0 + noise.gauss(0, 0.01)}
    return Evaluation(
        config=spec.hash(),
        pair=pair,
        scores=scores,
        seconds=0.01,
        forwards=16.0 + 4 * len(terms),
        effects={term.name: 0.1 for term in terms},
    )


def stopping_after(count: int) -> Callable[[GuidanceSpec, Pair], Evaluation]:
    """Presses Ctrl-C at evaluation ``count``."""
    left = iter(range(count))

    def evaluate_or_stop(spec: GuidanceSpec, pair: Pair) -> Evaluation:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return evaluate(spec, pair)

    return evaluate_or_stop


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run_search(plan(), evaluate, directory=folder, progress=silent)
    return folder


@pytest.fixture(scope="session")
def fruitless_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No skip helps: only noise is left to find."""
    folder = tmp_path_factory.mktemp("runs") / "fruitless"
    run_search(plan(), lambda spec, pair: evaluate(spec, pair, lift=0.0), directory=folder, progress=silent)
    return folder


@pytest.fixture(scope="session")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.raises(KeyboardInterrupt):
        run_search(plan(), stopping_after(70), directory=folder, progress=silent)
    return folder


@pytest.fixture(scope="session")
def random_entry() -> ModelEntry:
    """The record of ``random_pipeline``."""
    from stg_tune import models
    from stg_tune.models.base import GenerationDefaults

    defaults = GenerationDefaults(height=32, width=32, num_frames=5, num_inference_steps=2, cfg_scale=3.0, fps=8)
    own = {"name": "random", "depths": {"spatial": 4, "temporal": 4}, "defaults": defaults, "source": "random weights"}
    return replace(models.entry("open-sora-tiny"), **own)


@pytest.fixture
def random_pipeline() -> OpenSoraPipeline:
    """A whole Open-Sora pipeline with random weights, small enough for a test."""
    import torch

    from stg_tune.embedded.text import WIDTH, build_encoder, build_tokenizer
    from stg_tune.models.open_sora.pipeline import OpenSoraPipeline
    from stg_tune.models.open_sora.schedule import OpenSoraScheduler
    from stg_tune.models.open_sora.transformer import STDiT3
    from stg_tune.models.open_sora.vae import OpenSoraVAE

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    settings = json.loads((GOLDEN / "stdit3_tiny.config.json").read_text())
    transformer = STDiT3(**settings | {"caption_channels": WIDTH, "model_max_length": 16})
    for weight in transformer.parameters():  # the real start is at zero, where no block does anything
        torch.nn.init.normal_(weight, std=0.05)
    vae = json.loads((GOLDEN / "vae_pipeline_tiny.config.json").read_text())
    known = ("vae_2d", "vae_temporal", "shift", "scale", "spatial_scaling")
    return OpenSoraPipeline(
        tokenizer=tokenizer,
        text_encoder=build_encoder(len(tokenizer)).eval(),
        vae=OpenSoraVAE(**{name: vae[name] for name in known}).eval(),
        transformer=transformer.eval(),
        scheduler=OpenSoraScheduler(),
    )
