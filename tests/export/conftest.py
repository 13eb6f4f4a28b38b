"""What each target is promised to express, written down apart from the exporters."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import strategies as st

from stg_tune.models.base import GenerationDefaults
from stg_tune.preset import Preset
from stg_tune.preset.schedules import linear_quadratic
from stg_tune.records import GuidanceSpec, Segment, SkipTerm


def _load(name):
    """A module beside this one: test folders are no packages."""
    key = f"stg_tune_tests_export_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, Path(__file__).parent / f"{name}.py")
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


_tools = _load("tools")
TOOLS, step = _tools.TOOLS, _tools.step

DEPTHS = {
    "mochi": {"blocks": 48},
    "ltx": {"blocks": 28},
    "ltx2": {"blocks": 48},
    "cogvideox": {"blocks": 42},
    "wan": {"blocks": 30},
    "ovi": {"blocks": 30},
    "sd3": {"blocks": 24},
    "hunyuan-video": {"double": 20, "single": 40},
    "latte": {"spatial": 28, "temporal": 28},
    "skyreels-v2": {"blocks": 30},
}


def meaning(preset):
    """The preset by its own rule: half-open windows of fractions, bounds with a slack of 1e-6."""
    count = preset.generation.num_inference_steps
    found = []
    for place in range(count):
        held = [s for s in preset.spec.segments if s.start - 1e-6 <= place / count < s.stop - 1e-6]
        segment = held[0] if held else Segment()
        cfg = preset.spec.cfg_scale if segment.cfg_scale is None else segment.cfg_scale
        terms = [(dict(t.skip_layers), t.skip_op, t.branch, t.stg_scale) for t in segment.terms if t.stg_scale]
        found.append(step(cfg, segment.rescale, terms[0] if terms else None))
    return found


def build(family, *, steps, spec, space="velocity", sigmas=(), checkpoint="somebody/model"):
    generation = GenerationDefaults(
        height=64, width=64, num_frames=9, num_inference_steps=steps, cfg_scale=max(spec.cfg_scale, 0.0), fps=8
    )
    return Preset(
        name=f"{family}/case",
        family=family,
        model=family,
        checkpoint=checkpoint,
        revision="",
        stacks=DEPTHS[family],
        spec=spec,
        combine_space=space,
        generation=generation,
        sigmas=sigmas,
    )


@dataclass(frozen=True, kw_only=True)
class Says:
    """What a target must express without any loss."""

    families: tuple
    ops: tuple = ("residual",)
    branches: tuple = ("cond",)
    cfgs: tuple = (1.0, 3.0, 7.5)
    rescales: tuple = (0.0,)
    scope: str = "window"
    space: str = "velocity"
    windows: bool = True
    from_step: int = 0
    schedule: bool = False
    one_layer: bool = False
    stacks: tuple = ()
    scales: tuple = (0.05, 1.0, 2.75)
    never: tuple = ()


_X0 = {"space": "sample", "rescales": (0.0, 0.35, 1.0)}
_UNCOND = {"branches": ("uncond",), "cfgs": (3.0, 7.5)}
DIT = ("mochi", "wan", "ltx", "hunyuan-video")
SAYS = {
    "diffusers": Says(
        families=("mochi", "ltx", "cogvideox", "hunyuan-video", "wan"),
        rescales=(0.0, 0.7, 1.0),
        scope="all",
        from_step=1,
    ),
    "diffusers-python": Says(families=("mochi", "wan", "skyreels-v2"), rescales=(0.0, 0.7), scope="all"),
    "diffusers-ltx2": Says(families=("ltx2",), ops=("attention",), windows=False, scope="all", **_X0),
    "diffusers-ltx2-guider": Says(families=("ltx2",), ops=("attention",), cfgs=(1.0,), **_X0),
    "diffusers-community": Says(
        families=("mochi", "cogvideox", "ltx"),
        cfgs=(3.0, 7.5),
        rescales=(0.0, 0.7),
        windows=False,
        scope="all",
        never=(("mochi", 47),),
    ),
    "ltx-video": Says(
        families=("ltx",),
        ops=("attention", "residual", "attention_projected_input"),
        rescales=(0.0, 0.5, 1.0),
        schedule=True,
    ),
    "comfyui-ltxvideo": Says(families=("ltx",), ops=("attention",), schedule=True, **_X0),
    "comfyui-ltxvideo-node": Says(families=("ltx",), ops=("attention",), schedule=True, **_X0),
    "comfyui-ltxvideo-multimodal": Says(families=("ltx2",), ops=("attention",), windows=False, scope="all", **_X0),
    "comfyui-slg": Says(families=DIT, **_X0),
    "comfyui-slg-simple": Says(families=DIT, scales=(1.0,), **_UNCOND),
    "comfyui-sd3": Says(families=("sd3",)),
    "comfyui-stg": Says(families=("ltx", "ltx2"), ops=("attention",)),
    "wanvideowrapper": Says(families=("wan",), scales=(1.0,), **_UNCOND),
    "kjnodes": Says(families=("wan",), scales=(1.0,), **_UNCOND),
    "hunyuanvideowrapper-slg": Says(families=("hunyuan-video",), scales=(1.0,), **_UNCOND),
    "hunyuanvideowrapper": Says(
        families=("hunyuan-video",),
        ops=("residual", "attention_with_text"),
        cfgs=(1.0,),
        one_layer=True,
        stacks=("single",),
    ),
    "wan2gp": Says(families=("wan", "ovi"), scales=(1.0,), **_UNCOND),
    "ltx-2": Says(families=("ltx2",), ops=("attention",), windows=False, scope="all", **_X0),
    "musubi-tuner": Says(families=("wan",), branches=("crossed",), cfgs=(3.0, 7.5)),
    "stable-diffusion.cpp": Says(families=("sd3", "wan")),
}
"""A new target must be added here, or the suite fails."""


@st.composite
def expressible(draw, name):
    """A preset that the target must express without loss."""
    says = SAYS[name]
    family = draw(st.sampled_from(says.families))
    op = draw(st.sampled_from(says.ops))
    counts = st.sampled_from([4, 10, 20, 25, 50]) if name == "wan2gp" else st.integers(2, 60)
    steps = draw(counts)
    space, sigmas = says.space, linear_quadratic(steps)
    if says.schedule:
        cuts = sorted(draw(st.sets(st.integers(1, steps - 1), max_size=4)))
        bounds = [0, *cuts, steps]
        segments = [draw(part(says, family, op, a / steps, b / steps)) for a, b in pairwise(bounds)]
        return build(
            family, steps=steps, spec=GuidanceSpec(cfg_scale=1.0, segments=tuple(segments)), space=space, sigmas=sigmas
        )
    first = draw(st.integers(says.from_step, steps - 1)) if says.windows else 0
    last = draw(st.integers(first, steps - 1)) if says.windows else steps - 1
    inner = draw(part(says, family, op, first / steps, (last + 1) / steps, own_cfg=False))
    cfg = draw(st.sampled_from(says.cfgs))
    outer = ()
    if says.scope == "all" and cfg != 1:
        edges = ((0.0, inner.start), (inner.stop, 1.0))
        outer = [Segment(start=a, stop=b, rescale=inner.rescale) for a, b in edges if b > a]
    segments = tuple(sorted([inner, *outer], key=lambda segment: segment.start))
    return build(family, steps=steps, spec=GuidanceSpec(cfg_scale=cfg, segments=segments), space=space, sigmas=sigmas)


@st.composite
def part(draw, says, family, op, start, stop, own_cfg=True):
    stacks = {name: depth for name, depth in DEPTHS[family].items() if not says.stacks or name in says.stacks}
    layers = {}
    for stack, depth in stacks.items():
        usable = [index for index in range(depth) if (family, index) not in says.never]
        layers[stack] = tuple(sorted(draw(st.sets(st.sampled_from(usable), max_size=1 if says.one_layer else 3))))
    if not any(layers.values()):
        layers[next(iter(stacks))] = (3,)
    scale = draw(st.sampled_from(says.scales))
    branch = draw(st.sampled_from(says.branches))
    term = SkipTerm(name="any name", skip_layers=layers, skip_op=op, stg_scale=scale, branch=branch)
    cfg = draw(st.sampled_from(says.cfgs)) if own_cfg else None
    rescale = draw(st.sampled_from(says.rescales))
    return Segment(start=round(start, 6), stop=round(stop, 6), cfg_scale=cfg, terms=(term,), rescale=rescale)


class Kit:
    """For test modules, which cannot import each other."""

    says = SAYS
    tools = TOOLS
    expressible = staticmethod(expressible)
    meaning = staticmethod(meaning)
    build = staticmethod(build)
    step = staticmethod(step)

    @staticmethod
    def preset(
        family="wan",
        *,
        layers=None,
        op="residual",
        scale=1.0,
        branch="cond",
        cfg=5.0,
        steps=20,
        start=0.0,
        stop=1.0,
        rescale=0.0,
        **more,
    ):
        layers = layers or {next(iter(DEPTHS[family])): (3,)}
        term = SkipTerm(name="blocks", skip_layers=layers, skip_op=op, stg_scale=scale, branch=branch)
        segment = Segment(start=start, stop=stop, terms=(term,), rescale=rescale)
        return build(family, steps=steps, spec=GuidanceSpec(cfg_scale=cfg, segments=(segment,)), **more)


@pytest.fixture(scope="session")
def kit():
    return Kit
