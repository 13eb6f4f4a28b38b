"""Skips layers of a foreign denoiser: small shells in its lists of blocks, taken off again by identity."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from stg_tune.errors import StgTuneError
from stg_tune.guidance.attention import perturbed
from stg_tune.guidance.foreign import ALREADY, refuse_foreign
from stg_tune.guidance.places import Slot, attentions_of, slots_of
from stg_tune.guidance.prefix import BlockOp, Memory, Place, Route, execution_order
from stg_tune.guidance.replay import Graph, UnitShell, graph_of
from stg_tune.guidance.saliency import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stg_tune.guidance.grid import Grid
    from stg_tune.guidance.passes import Prompt
    from stg_tune.models.base import Architecture, Stack


class Stage:
    """What the shells of one denoiser look at while it runs."""

    def __init__(self, plain: Route) -> None:
        self.route = plain
        """The pass that is running."""
        self.memory = Memory()
        """The activations remembered in this step for passes with the prompt."""
        self.negative_memory = Memory()
        """The same for passes with the negative prompt."""
        self.watched: dict[int, list[Tensor]] = {}
        """Position -> the attention maps of the block there in this step, one for each of its calls of attention."""
        self.step = 0
        """Index in the schedule of the step that is running."""
        self.grid: Grid | None = None
        """Where the tokens of the pass lie, if it needs that."""
        self._plain = plain

    def reset(self) -> None:
        """Every block runs, nothing is remembered."""
        self.route = self._plain
        self.memory.clear()
        self.negative_memory.clear()
        self.watched.clear()

    def memory_of(self, prompt: Prompt) -> Memory:
        """Where passes with that text remember."""
        return self.memory if prompt == "positive" else self.negative_memory

    def memories(self, route: Route) -> tuple[tuple[Memory, frozenset[int]], ...]:
        """Both memories with the positions that a pass has to remember there."""
        return (self.memory, route.remember), (self.negative_memory, route.remember_negative)


class BlockShell(nn.Module):
    """Stands in for a block: runs it, perturbs it, returns its input, or starts from the remembered activation."""

    def __init__(self, inner: nn.Module, stage: Stage, position: int, stack: Stack, *, chain: bool = True) -> None:
        """``chain``: the blocks follow each other, so that the shells themselves reuse the prefix."""
        super().__init__()
        self.inner = inner
        self.training = inner.training
        self._stage = stage
        self._position = position
        self._stack = stack
        self._chain = chain

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The block's own call."""
        route, position = self._stage.route, self._position
        if self._chain and position < route.start:
            return self._unchanged(args, kwargs)
        if self._chain:
            args, kwargs = self._reused(route, args, kwargs)
        op = route.ops[position]
        if position in route.watch and self._stage.memory.rows is not None:
            with watched(self.inner, self._stack, self._stage.watched.setdefault(position, [])):
                return self.inner._call_impl(*args, **kwargs)
        if op == "run":
            return self.inner(*args, **kwargs)
        if op == "residual":  # eq. 14-15 of arXiv:2411.18664
            return self._unchanged(args, kwargs)
        with perturbed(self.inner, self._stack, op, sigma=route.blur_sigma, grid=self._stage.grid):
            return self.inner._call_impl(*args, **kwargs)  # a compiled block must not learn the perturbation

    def _reused(
        self, route: Route, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for memory, positions in self._stage.memories(route):
            if self._position in positions:
                memory.remember(self._position, self._inputs(args, kwargs))
        if self._position == route.start and route.start:
            return _with_inputs(args, kwargs, self._stage.memory_of(route.prompt).recall(route.start))
        return args, kwargs

    def _inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return (*args, *kwargs.values())[: self._stack.streams]

    def _unchanged(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        inputs = self._inputs(args, kwargs)
        return inputs[0] if self._stack.streams == 1 else inputs


def _with_inputs(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    positional = min(len(args), len(inputs))
    named = dict(zip(kwargs, inputs[positional:], strict=False))
    return (*inputs[:positional], *args[positional:]), {**kwargs, **named}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The blocks of one denoiser."""

    order: tuple[Place, ...]
    """Every block in order of execution."""
    slots: Mapping[Place, Slot]
    """Where each of them hangs."""
    stacks: Mapping[str, Stack]
    """The record of each stack."""
    graph: Graph | None = None
    """The units of a U-Net; ``None``: the blocks follow each other."""

    def depth(self, stack: str) -> int:
        """Number of blocks of a stack."""
        return sum(name == stack for name, _ in self.order)

    @property
    def starts(self) -> tuple[int, ...] | None:
        """For every position the first one in the same unit of a U-Net, where a weak pass has to start."""
        if self.graph is None:
            return None
        units = self.units
        return tuple(units.index(unit) for unit in units)

    @cached_property
    def units(self) -> list[int]:
        """Index of the unit of a U-Net in which the block at each position lies."""
        assert self.graph is not None
        return [self.graph.unit_of(self.slots[place].module) for place in self.order]


def layout_of(denoiser: nn.Module, architecture: Architecture) -> Layout:
    """The blocks of a denoiser; raises ``StgTuneError`` where the record does not fit it."""
    found = {stack.name: slots_of(denoiser, stack) for stack in architecture.stacks}
    return Layout(
        order=execution_order(architecture, {name: len(slots) for name, slots in found.items()}),
        slots={(name, index): slot for name, slots in found.items() for index, slot in enumerate(slots)},
        stacks={stack.name: stack for stack in architecture.stacks},
        graph=graph_of(denoiser) if architecture.unet else None,
    )


@contextmanager
def shells(layout: Layout, routes: Sequence[Route], stage: Stage) -> Iterator[None]:
    """Puts shells around every block up to the last one that a route skips, and takes them off whatever happens.

    Raises:
        StgTuneError: Somebody else has already patched or hooked one of the blocks.
    """
    with ExitStack() as undo:
        for position in range(_reach(routes)):
            place = layout.order[position]
            slot, stack = layout.slots[place], layout.stacks[place[0]]
            _refuse_foreign_parts(slot, stack, {_op_at(route, position) for route in routes})
            shell = BlockShell(slot.module, stage, position, stack, chain=layout.graph is None)
            undo.callback(slot.put, slot.module)
            slot.put(shell)
        if layout.graph is not None:
            _shell_units(layout, layout.graph, routes, stage, undo)
        yield


def _shell_units(layout: Layout, graph: Graph, routes: Sequence[Route], stage: Stage, undo: ExitStack) -> None:
    firsts = {route.start: layout.units[route.start] for route in routes if route.start}
    starts = {start: (unit, graph.kept_for(unit)) for start, unit in firsts.items()}
    for index, unit in enumerate(graph.units[: max(firsts.values(), default=0)]):
        _refuse_taken(unit.slot)
        undo.callback(unit.slot.put, unit.slot.module)
        unit.slot.put(UnitShell(unit.slot.module, stage, index, starts))


def _reach(routes: Sequence[Route]) -> int:
    skipped = (position for route in routes for position, op in enumerate(route.ops) if op != "run")
    watched_at = (position for route in routes for position in route.watch)
    return 1 + max((*skipped, *watched_at), default=-1)


def _op_at(route: Route, position: int) -> BlockOp:
    return "salient_blur" if position in route.watch else route.ops[position]


def _refuse_foreign_parts(slot: Slot, stack: Stack, ops: set[BlockOp]) -> None:
    _refuse_taken(slot)
    if ops - {"run", "residual", "feed_forward"}:
        for attention in attentions_of(slot.module, stack):
            refuse_foreign(attention, f"{stack.attention} of {stack.path}")


def _refuse_taken(slot: Slot) -> None:
    if isinstance(slot.module, BlockShell | UnitShell):
        raise StgTuneError(ALREADY)
    refuse_foreign(slot.module, slot.path)


@contextmanager
def replaced_forward(module: nn.Module, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Puts ``make(inner)`` in place of the module's forward, and the very same ``inner`` back whatever happens.

    A forward that accelerate has hooked is replaced inside its hook (``_old_forward``): pipelines with CPU offload
    take that hook off and put it on again after every call, and the replacement must survive it.
    """
    before = dict(vars(module))
    slot = "_old_forward" if "_old_forward" in before else "forward"
    inner = getattr(module, slot)
    replacement = _marked(make(inner), inner)
    try:
        setattr(module, slot, replacement)
        yield
    finally:
        for name in ("_old_forward", "forward"):
            if vars(module).get(name) is replacement:
                _put_back(module, name, inner, keep=name != "forward" or name in before)
        _forget_wrapped(vars(module).get("forward"), replacement, inner)


def _forget_wrapped(hooked: Any, replacement: Callable[..., Any], inner: Callable[..., Any]) -> None:
    """A hook that was put on meanwhile has copied what the replacement carried, as ``functools.wraps`` does."""
    if getattr(hooked, "__wrapped__", None) is replacement:
        hooked.__wrapped__ = inner
        vars(hooked).pop("stg_tune_guided", None)


def _marked(function: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(inner)  # pipelines look at the signature
    def forward(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    forward.stg_tune_guided = forward  # type: ignore[attr-defined]
    return forward


def _put_back(module: nn.Module, name: str, inner: Callable[..., Any], *, keep: bool) -> None:
    if keep:
        setattr(module, name, inner)
    else:
        delattr(module, name)
