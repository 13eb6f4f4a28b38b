"""Finds the blocks of a stack, and the modules inside a block, in a denoiser of a foreign library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stg_tune.models.base import Stack


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A module and where it hangs, so that a stand-in can take its place."""

    owner: nn.Module
    """The module that holds it."""
    name: str
    """Its name there; an index in a list."""
    module: nn.Module
    """The module itself."""
    path: str
    """Its place in words, for messages."""

    def put(self, module: nn.Module) -> None:
        """Hangs ``module`` in this place."""
        setattr(self.owner, self.name, module)


def slots_of(denoiser: nn.Module, stack: Stack) -> list[Slot]:
    """The blocks of a stack, in the order of their indices.

    Raises:
        StgTuneError: There are no such blocks in the denoiser.
    """
    found = [slot for path in stack.path.split(",") for slot in _all_at(denoiser, path)]
    if not found:
        raise StgTuneError(
            f"{type(denoiser).__name__} has no list of blocks at {stack.path!r} (stack {stack.name!r}): the "
            "architecture record belongs to another model; pass architecture=... to stg_tune.guided."
        )
    return found


def _all_at(denoiser: nn.Module, path: str) -> Iterator[Slot]:
    parts = path.split(".")
    return _walk(denoiser, parts if "*" in parts else [*parts, "*"], "")


def _walk(module: nn.Module, parts: list[str], trail: str) -> Iterator[Slot]:
    head, rest = parts[0], parts[1:]
    if head != "*":
        child = getattr(module, head, None)
        if isinstance(child, nn.Module) and rest:
            yield from _walk(child, rest, f"{trail}.{head}".lstrip("."))
    elif isinstance(module, nn.ModuleList):
        for name, child in module.named_children():
            if rest:
                yield from _walk(child, rest, f"{trail}[{name}]")
            else:
                yield Slot(owner=module, name=name, module=child, path=f"{trail}[{name}]")


def attentions_of(block: nn.Module, stack: Stack) -> list[nn.Module]:
    """The self-attentions of a block; empty when one of them is not there."""
    return _parts_of(block, stack.attention)


def feed_forwards_of(block: nn.Module, stack: Stack) -> list[nn.Module]:
    """The feed-forwards of a block that are there (the last block of a joint model may have none for the text)."""
    found = [_part(block, path) for path in stack.feed_forward.split(",") if path]
    return [part for part in found if part is not None]


def _parts_of(block: nn.Module, paths: str) -> list[nn.Module]:
    found = [_part(block, path) for path in paths.split(",")]
    return [part for part in found if part is not None] if None not in found else []


def _part(block: nn.Module, path: str) -> nn.Module | None:
    found: object = block
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, nn.Module) else None
