"""Skips layers of a foreign denoiser: small shells in its lists of blocks, taken off again by identity."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from stg_tune.errors import StgTuneError
from stg_tune.guidance.prefix import Memory, Place, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stg_tune.models.base import Stack

_ALREADY = "this pipeline is already guided: leave the other `with stg_tune.guided(...)` first"


class Stage:
    """What the shells of one denoiser look at while it runs."""

    def __init__(self, plain: Route) -> None:
        self.route = plain
        """The pass that is running."""
        self.memory = Memory()
        """The activations remembered in this step."""
        self._plain = plain

    def reset(self) -> None:
        """Every block runs, nothing is remembered."""
        self.route = self._plain
        self.memory.clear()


class BlockShell(nn.Module):
    """Stands in for a block: runs it, returns its input, or starts from the remembered activation."""

    def __init__(self, inner: nn.Module, stage: Stage, position: int, streams: int) -> None:
        super().__init__()
        self.inner = inner
        self.training = inner.training
        self._stage = stage
        self._position = position
        self._streams = streams

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The block's own call."""
        route, position = self._stage.route, self._position
        if position < route.start:
            return self._unchanged(args, kwargs)
        if position in route.remember:
            self._stage.memory.remember(position, self._inputs(args, kwargs))
        if position == route.start and position:
            args, kwargs = _with_inputs(args, kwargs, self._stage.memory.recall(position))
        if route.ops[position] == "residual":  # eq. 14-15 of arXiv:2411.18664
            return self._unchanged(args, kwargs)
        return self.inner(*args, **kwargs)

    def _inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return (*args, *kwargs.values())[: self._streams]

    def _unchanged(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        inputs = self._inputs(args, kwargs)
        return inputs[0] if self._streams == 1 else inputs


class AttentionShell(nn.Module):
    """Stands in for a self-attention: in a pass that skips it, every token attends to itself alone."""

    inner: Any

    def __init__(self, inner: nn.Module, stage: Stage, position: int) -> None:
        super().__init__()
        self.inner = inner
        self.training = inner.training
        self._stage = stage
        self._position = position

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The attention's own call."""
        if self._stage.route.ops[self._position] == "attention":
            return self.inner.value_passthrough(x)  # eq. 16-17 of arXiv:2411.18664
        return self.inner(x, *args, **kwargs)


def _with_inputs(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    positional = min(len(args), len(inputs))
    named = dict(zip(kwargs, inputs[positional:], strict=False))
    return (*inputs[:positional], *args[positional:]), {**kwargs, **named}


def blocks_of(denoiser: nn.Module, stack: Stack) -> nn.ModuleList:
    """The list of blocks of a stack.

    Raises:
        StgTuneError: There is no such list in the denoiser.
    """
    found: object = denoiser
    for part in stack.path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, nn.ModuleList):
        raise StgTuneError(
            f"{type(denoiser).__name__} has no list of blocks at {stack.path!r} (stack {stack.name!r}): the "
            "architecture record belongs to another model; pass architecture=... to stg_tune.guided."
        )
    return found


def attention_of(block: nn.Module, stack: Stack) -> nn.Module | None:
    """The self-attention of a block if it can pass its values through, else ``None``."""
    found: object = block
    for part in stack.attention.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, nn.Module) and callable(getattr(found, "value_passthrough", None)) else None


@contextmanager
def shells(
    denoiser: nn.Module, stacks: Mapping[str, Stack], order: Sequence[Place], routes: Sequence[Route], stage: Stage
) -> Iterator[None]:
    """Puts shells around every block up to the last one that a route skips, and takes them off whatever happens.

    Raises:
        StgTuneError: Somebody else has already patched or hooked one of the blocks.
    """
    with ExitStack() as undo:
        for position in range(_reach(routes)):
            stack, index = stacks[order[position][0]], order[position][1]
            blocks = blocks_of(denoiser, stack)
            block = blocks[index]
            refuse_foreign(block, f"{stack.path}[{index}]")
            if any(route.ops[position] == "attention" for route in routes):
                _shell_attention(block, stack, AttentionShell, stage, position, undo)
            undo.callback(_put, blocks, index, block)
            blocks[index] = BlockShell(block, stage, position, stack.streams)
        yield


def _put(blocks: nn.ModuleList, index: int, block: nn.Module) -> None:
    blocks[index] = block


def _reach(routes: Sequence[Route]) -> int:
    return max((position + 1 for route in routes for position, op in enumerate(route.ops) if op != "run"), default=0)


def _shell_attention(
    block: nn.Module, stack: Stack, shell: type[AttentionShell], stage: Stage, position: int, undo: ExitStack
) -> None:
    parent_path, _, name = stack.attention.rpartition(".")
    parent = block.get_submodule(parent_path)
    attention = parent.get_submodule(name)
    refuse_foreign(attention, f"{stack.attention} of {stack.path}")
    undo.callback(setattr, parent, name, attention)
    setattr(parent, name, shell(attention, stage, position))


def refuse_foreign(module: nn.Module, where: str) -> None:
    """Raises ``StgTuneError`` when a module is guided already, or carries another tool's hook or patch."""
    if isinstance(module, BlockShell | AttentionShell):
        raise StgTuneError(_ALREADY)
    patched = "forward" in vars(module) and not hasattr(module, "_hf_hook")  # accelerate only moves weights
    registry = getattr(module, "_diffusers_hook", None)
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values(), *getattr(registry, "hooks", {})]
    if patched or hooks:
        what = f"the hook {hooks[0]!r:.80}" if hooks else "a replaced forward"
        raise StgTuneError(
            f"{where} carries {what} of another tool, which would run in some passes and not in others: remove it "
            "(caches, layer-skip guiders, earlier STG pipelines) before stg_tune.guided, or load the pipeline afresh."
        )


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


def _marked(function: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(inner)  # pipelines look at the signature
    def forward(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    forward.stg_tune_guided = True  # type: ignore[attr-defined]
    return forward


def _put_back(module: nn.Module, name: str, inner: Callable[..., Any], *, keep: bool) -> None:
    if keep:
        setattr(module, name, inner)
    else:
        delattr(module, name)


def refuse_unguidable(module: nn.Module) -> None:
    """Raises ``StgTuneError`` when a denoiser is guided already, or compiled as a whole."""
    attributes = vars(module)
    if any(hasattr(attributes.get(name), "stg_tune_guided") for name in ("forward", "_old_forward")):
        raise StgTuneError(_ALREADY)
    if hasattr(module, "_orig_mod") or attributes.get("_compiled_call_impl") is not None:
        raise StgTuneError(
            f"the denoiser ({type(module).__name__}) is compiled as a whole, so its blocks cannot be skipped: compile "
            "the blocks instead (pipe.transformer.compile_repeated_blocks())."
        )
