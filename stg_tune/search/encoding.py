"""Numbers an optimiser proposes <-> guidance settings: a fixed-dimension numeric space over screened layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stg_tune.records import Combination, GuidanceSpec, Restart, Segment, SkipOp, SkipTerm

if TYPE_CHECKING:
    from stg_tune.search.ranges import Range
    from stg_tune.search.space import SearchSpace

Params = dict[str, float]
"""Name -> number; whole for ``op``, ``k_*``, ``offset_*``, ``joint``, ``combination``, ``parts``, ``restarts``."""

Orders = Mapping[tuple[str, SkipOp], Sequence[int]]
"""(stack, op) -> its layers, best first, as the screen ranked them."""

RESCALE_STEP = 0.05
"""Rescale factors closer than this are one setting."""
CFG_STEP = 0.05
"""CFG scales closer than this are one setting."""
FACTOR_STEP = 0.05
"""Factors between the strengths of two segments closer than this are one setting."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One number of the optimiser."""

    name: str
    """``op``, ``k_spatial``, ``stg_scale_spatial``, ``cfg_scale``, ..."""
    low: float
    """Least value."""
    high: float
    """Greatest value."""
    whole: bool = False
    """Only whole numbers."""
    log: bool = False
    """Spread on a log scale."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The search space of one run: the file's ranges over the layer orders that the screen found."""

    space: SearchSpace
    """Ranges."""
    orders: Orders
    """Layers, best first."""
    num_steps: int
    """Denoising steps; windows are snapped to whole steps, so that two settings that act alike are one."""

    def knobs(self) -> tuple[Knob, ...]:
        """The numbers, always the same for one space."""
        space = self.space
        knobs = [Knob(name="op", low=0, high=len(space.ops) - 1, whole=True)]
        for name, stack in space.stacks.items():
            knobs.append(Knob(name=f"k_{name}", low=0, high=stack.max_layers, whole=True))
            knobs.append(Knob(name=f"offset_{name}", low=0, high=stack.max_offset, whole=True))
            knobs.append(_range_knob(f"stg_scale_{name}", space.stg_scale))
        if len(space.stacks) > 1:
            knobs.append(Knob(name="joint", low=0, high=len(space.layouts) - 1, whole=True))
            knobs.append(Knob(name="combination", low=0, high=len(space.combinations) - 1, whole=True))
        ranges = {"cfg_scale": space.cfg_scale, "rescale": space.rescale, "start": space.start, "stop": space.stop}
        return (*knobs, *(_range_knob(name, item) for name, item in ranges.items()), *self._optional_knobs())

    def decode(self, params: Mapping[str, float]) -> GuidanceSpec:
        """The guidance setting that ``params`` stand for, in canonical form."""
        op = self.space.ops[int(params["op"])]
        layers = {stack: self._layers(stack, op, params) for stack in self.space.stacks}
        used = {stack: chosen for stack, chosen in layers.items() if chosen}
        terms = self._terms(op, used, params)
        combination: Combination = "independent"
        if len(terms) > 1:
            combination = self.space.combinations[int(params["combination"])]
        spec = build_spec(
            cfg_scale=params["cfg_scale"],
            rescale=params["rescale"],
            terms=terms,
            combination=combination,
            window=self._window(params["start"], params["stop"]) if terms else (0.0, 1.0),
        )
        if not terms:  # what CFG alone can do is not searched here
            return spec
        return replace(spec, segments=self._parts(spec, params), restart=self._restart(params))

    def single(self, reference: GuidanceSpec, stack: str, op: SkipOp, layer: int) -> GuidanceSpec:
        """``reference`` (a CFG-only setting) plus one skipped layer at the screen's strength."""
        term = SkipTerm(name=stack, skip_layers={stack: (layer,)}, skip_op=op, stg_scale=self.space.screen.stg_scale)
        return build_spec(cfg_scale=reference.cfg_scale, rescale=rescale_of(reference), terms=(term,))

    def params_for(self, reference: GuidanceSpec, op: SkipOp, ranks: Mapping[str, tuple[int, int]]) -> Params | None:
        """Numbers for "skip ``k`` layers from rank ``offset``" in each stack of ``ranks``, else as ``reference``.

        Returns:
            The numbers, or ``None`` when a count, an offset or the reference lies outside the space.
        """
        params: Params = {"op": self.space.ops.index(op), "joint": 0, "combination": 0, "start": 0.0, "stop": 1.0}
        for stack in self.space.stacks:
            params[f"offset_{stack}"], params[f"k_{stack}"] = ranks.get(stack, (0, 0))
            params[f"stg_scale_{stack}"] = self.space.screen.stg_scale
        params["cfg_scale"], params["rescale"] = reference.cfg_scale, rescale_of(reference)
        params |= {knob.name: knob.low for knob in self._optional_knobs()}
        knobs = self.knobs()
        inside = all(knob.low <= params[knob.name] <= knob.high for knob in knobs)
        return {knob.name: params[knob.name] for knob in knobs} if inside else None

    def _optional_knobs(self) -> tuple[Knob, ...]:
        """Those of what a space need not have; their least values, whole numbers first, mean that it is not used."""
        second, restart = self.space.segments, self.space.restart
        knobs: list[Knob] = []
        if second is not None:
            knobs.append(Knob(name="parts", low=1, high=2, whole=True))
            knobs.append(_range_knob("split", second.split))
            knobs.append(_range_knob("second_cfg_scale", second.cfg_scale))
            knobs.append(_range_knob("second_factor", second.stg_factor))
        if restart is not None:
            knobs.append(Knob(name="restarts", low=0, high=restart.max_count, whole=True))
            knobs.append(_range_knob("restart_start", restart.start))
            knobs.append(_range_knob("restart_stop", restart.stop))
        return tuple(knobs)

    def _parts(self, spec: GuidanceSpec, params: Mapping[str, float]) -> tuple[Segment, ...]:
        """The segment of ``spec``, or two in its place, when they act otherwise and there are steps enough."""
        (whole,) = spec.segments
        first, after = (round(end * self.num_steps) for end in (whole.start, whole.stop))
        if params.get("parts", 1) < 2 or after - first < 2:
            return (whole,)
        split = first + min(max(round(params["split"] * (after - first)), 1), after - first - 1)
        factor = _stepped(params["second_factor"], FACTOR_STEP)
        terms = tuple(replace(term, stg_scale=round(term.stg_scale * factor, 6)) for term in whole.terms if factor)
        cfg_scale = _stepped(params["second_cfg_scale"], CFG_STEP)
        second = replace(
            whole,
            start=split / self.num_steps,
            cfg_scale=cfg_scale if cfg_scale != spec.cfg_scale else None,
            terms=terms,
            combination=whole.combination if terms else "independent",
        )
        if second == replace(whole, start=second.start):
            return (whole,)
        parts = (replace(whole, stop=second.start), second)
        return parts if second.cfg_scale is not None or terms or second.rescale else parts[:1]

    def _restart(self, params: Mapping[str, float]) -> Restart | None:
        count = int(params.get("restarts", 0))
        if not count:
            return None
        start, stop = self._window(params["restart_start"], params["restart_stop"])
        return Restart(start=start, stop=stop, count=count)

    def _layers(self, stack: str, op: SkipOp, params: Mapping[str, float]) -> tuple[int, ...]:
        order = self.orders.get((stack, op), ())
        offset = int(params[f"offset_{stack}"])
        return tuple(sorted(order[offset : offset + int(params[f"k_{stack}"])]))

    def _terms(
        self, op: SkipOp, used: Mapping[str, tuple[int, ...]], params: Mapping[str, float]
    ) -> tuple[SkipTerm, ...]:
        joint = len(used) > 1 and self.space.layouts[int(params["joint"])] == "joint"
        groups = {"joint": dict(used)} if joint else {stack: {stack: layers} for stack, layers in used.items()}
        return tuple(
            SkipTerm(
                name=name,
                skip_layers=skip,
                skip_op=op,
                stg_scale=_significant(params[f"stg_scale_{next(iter(skip))}"]),
            )
            for name, skip in groups.items()
        )

    def _window(self, start: float, stop: float) -> tuple[float, float]:
        """Whole steps: a step ``i`` is inside when ``start <= i / num_steps < stop``; at least one is."""
        first = min(math.ceil(start * self.num_steps - 1e-9), self.num_steps - 1)
        after = max(math.ceil(stop * self.num_steps - 1e-9), first + 1)
        return first / self.num_steps, after / self.num_steps


def build_spec(
    *,
    cfg_scale: float,
    rescale: float = 0.0,
    terms: tuple[SkipTerm, ...] = (),
    combination: Combination = "independent",
    window: tuple[float, float] = (0.0, 1.0),
) -> GuidanceSpec:
    """A setting in canonical form: rounded numbers, and no segment when there is nothing for it to do."""
    cfg, factor = _stepped(cfg_scale, CFG_STEP), _stepped(rescale, RESCALE_STEP)
    if not terms and not factor:
        return GuidanceSpec(cfg_scale=cfg)
    start, stop = window
    segment = Segment(start=start, stop=stop, terms=terms, combination=combination, rescale=factor)
    return GuidanceSpec(cfg_scale=cfg, segments=(segment,))


def rescale_of(spec: GuidanceSpec) -> float:
    """The rescale factor of a setting with at most one segment."""
    return spec.segments[0].rescale if spec.segments else 0.0


def is_cfg_only(spec: GuidanceSpec) -> bool:
    """Whether the setting has no skip-layer term that acts."""
    return not any(term.stg_scale for segment in spec.segments for term in segment.terms)


def _range_knob(name: str, item: Range) -> Knob:
    return Knob(name=name, low=item.low, high=item.high, log=item.scale == "log")


def _stepped(value: float, step: float) -> float:
    return round(round(value / step) * step, 6)


def _significant(value: float) -> float:
    return float(f"{value:.2g}")
