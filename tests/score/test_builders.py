"""Every scorer for real models through its own loading code, over random weights, in the conformance suite."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune import score as package
from stg_tune.errors import StgTuneError
from stg_tune.score import conformance
from stg_tune.score.base import Measure, View
from stg_tune.score.default import build
from stg_tune.score.flow import DynamicDegree, OpticalFlow
from stg_tune.score.parts import Parts
from stg_tune.score.placement import Placement
from stg_tune.score.registry import DEFAULT, RECIPES
from stg_tune.score.smoothness import MotionSmoothness
from stg_tune.search import load_space, space_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from stg_tune.score.composite import CompositeScorer
    from stg_tune.score.library import Library

SLOW = {"optical_flow", "dynamic_degree"}
"""RAFT takes seconds for a pair of frames: these join with another flow, and RAFT has tests of its own."""
BUILT = [recipe.name for recipe in RECIPES if recipe.name not in SLOW]


def shift_flow(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """A flow that costs nothing: ten times the difference of brightness, to the right."""
    change = (after - before).mean(1, keepdim=True)
    return torch.cat([10 * change, torch.zeros_like(change)], dim=1)


def middle(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """An interpolator that costs nothing."""
    return (before + after) / 2


def _flow_measures() -> list[Measure]:
    placement = Placement.automatic("cpu")
    return [
        OpticalFlow(shift_flow, placement, weights="0" * 16),
        DynamicDegree(shift_flow, placement, fps=8.0, weights="0" * 16),
        MotionSmoothness(middle, weights="0" * 16),
    ]


@pytest.fixture(scope="session", params=[*BUILT, *sorted(SLOW), "motion_smoothness"])
def measure(request: pytest.FixtureRequest, parts: Parts) -> Measure:
    others = {measure.kind.name: measure for measure in _flow_measures()}
    if request.param in others:
        return others[request.param]
    (built,) = build([request.param], parts).measures
    return built


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conformance(measure: Measure, check: Callable[[Measure], None]) -> None:
    check(measure)


def test_every_recipe_is_in_the_suite() -> None:
    assert {*BUILT, *SLOW} == {recipe.name for recipe in RECIPES}
    assert set(DEFAULT) <= set(BUILT)


def _measures_of_the_package() -> set[type]:
    modules = [importlib.import_module(f"stg_tune.score.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    classes = {cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)}
    return {cls for cls in classes if hasattr(cls, "requires") and callable(cls) and cls is not Measure}


def test_every_measure_of_the_package_is_in_a_suite(parts: Parts, scorers: CompositeScorer) -> None:
    """Here or, with the embedded scorers, in ``test_conformance.py``."""
    tested = [*build(BUILT, parts).measures, *_flow_measures(), *scorers.measures]
    assert _measures_of_the_package() == {type(measure) for measure in tested}


def test_the_default_scorers_share_one_pass_of_clip(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    tower = type(parts.towers.clip.visual)
    forward = tower.forward
    monkeypatch.setattr(tower, "forward", lambda self, *rest: calls.append(1) or forward(self, *rest))
    (scores,) = build(DEFAULT, parts)(conformance.moving_ball()[None], [conformance.PROMPT])
    assert len(calls) == 1
    assert tuple(scores) == DEFAULT
    assert all(score.value is not None for score in scores.values())


@pytest.mark.parametrize("space", space_names())
def test_the_default_scorers_are_what_the_objective_of_a_search_asks_for(space: str, parts: Parts) -> None:
    objective = load_space(space).objective
    objective.check({kind.name: kind for kind in build(DEFAULT, parts).kinds})
    assert set(objective.weights) <= set(DEFAULT)
    assert {"aesthetic", "imaging_quality", "temporal_lpips"} <= set(objective.weights)
    assert {"motion", "saturation"} <= {guard.scorer for guard in objective.guards}


def test_frames_are_resized_once_for_every_size(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int, str]] = []
    resize = torch.nn.functional.interpolate

    def counting(frames: torch.Tensor, size: tuple[int, int], *, mode: str, **rest: object) -> torch.Tensor:
        sizes.append((*size, mode))
        return resize(frames, size, mode=mode, **rest)

    video = conformance.moving_ball()
    names = [*DEFAULT, "aesthetic_v2"]
    monkeypatch.setattr("stg_tune.score.base.F.interpolate", counting)
    build(names, parts)(video[None], [conformance.PROMPT])
    assert sorted(sizes) == [(32, 35, "bicubic"), (64, 71, "bilinear")]  # CLIP, motion


def test_no_network_sees_more_frames_at_a_time_than_its_memory_is_enough_for(parts: Parts) -> None:
    small = Placement(device=torch.device("cpu"), dtype=torch.float32, memory=1_000_000)
    narrow = Parts(parts.library, small, frames=None, clip_config=parts._clip_config)
    each = 12 * 4 * 64 * ((32 // 8) ** 2 + 1)  # as published_towers counts: tokens x width x float32 x a block's layers
    seen: list[int] = []
    narrow.towers.clip.visual.register_forward_hook(lambda net, given, out: seen.append(len(given[0])))
    build(["aesthetic"], narrow)(conformance.moving_ball(40)[None], [""])
    assert sum(seen) == 40
    assert max(seen) == 1_000_000 // each < 40


def test_the_towers_run_in_the_precision_of_the_placement(parts: Parts) -> None:
    half = Placement(device=torch.device("cpu"), dtype=torch.bfloat16, memory=2**30)
    towers = Parts(parts.library, half, frames=None, clip_config=parts._clip_config).towers
    assert {weight.dtype for weight in towers.clip.parameters()} == {torch.bfloat16}
    view = View(conformance.moving_ball())
    with torch.inference_mode():
        features, exact = towers.images(view), parts.towers.images(View(view.frames))
    assert features.dtype == torch.float32
    assert float((features * exact).sum(-1).min()) > 0.999


def test_scores_behind_weights_carry_a_checksum_and_others_do_not(parts: Parts) -> None:
    kinds = {kind.name: kind.weights for kind in build(BUILT, parts).kinds}
    assert {name for name, weights in kinds.items() if weights == "none"} == {
        "motion",
        "temporal_flickering",
        "saturation",
    }
    # one file behind several scores is one checksum; another file beside it is another
    assert kinds["alignment"] == kinds["imaging_quality"] != kinds["aesthetic"] != kinds["aesthetic_v2"]


class Careless:
    """Breaks a rule at will."""

    requires = "two frames"

    def __init__(self, kind: object, answer: Callable[[torch.Tensor], object]) -> None:
        self.kind, self._answer = kind, answer

    def __call__(self, view: object, prompt: str) -> object:
        from stg_tune.score.base import scored

        return scored(self.kind, float(self._answer(view.frames)))


@pytest.mark.parametrize(
    ("answer", "check"),
    [
        (lambda frames: 7.0, "video_gets_a_number_in_range"),
        (lambda frames: torch.rand(()), "batch_does_not_matter"),
        (lambda frames: frames.mul_(0.5).mean(), "input_is_left_alone"),
        (lambda frames: float("nan"), "other_sizes_and_precisions_work"),
        (lambda frames: float("nan"), "too_few_frames_are_not_scored"),
    ],
)
def test_the_checks_find_a_measure_that_breaks_them(answer: Callable[..., object], check: str) -> None:
    from dataclasses import replace

    from stg_tune.score.flicker import TemporalFlickering

    careless = Careless(replace(TemporalFlickering.kind, name="careless"), answer)
    with pytest.raises(AssertionError):
        getattr(conformance, check)(careless)


def test_a_kind_without_meaning_is_found() -> None:
    from dataclasses import replace

    from stg_tune.score.flicker import TemporalFlickering

    for fault in ({"unit": ""}, {"low": 2.0}, {"weights": "abc"}, {"direction": "up"}, {"name": "a b"}):
        careless = Careless(replace(TemporalFlickering.kind, **fault), lambda frames: 0.5)
        with pytest.raises(AssertionError):
            conformance.kind_is_complete(careless)


def test_weights_of_another_network_are_refused(library: Library) -> None:
    from stg_tune.score.loading import fill, read_state
    from stg_tune.score.perceptual import AlexTrunk

    state = read_state(library.get("musiq-spaq").path)
    with pytest.raises(StgTuneError, match="weights of alexnet do not fit"):
        fill(AlexTrunk(), state, "weights of alexnet")
