"""Prefix reuse in a U-Net: modules before the start of a weak pass give back what they gave in the full pass.

A U-Net is no chain: what its way down computes is read again on its way up. So a module before the start answers with
its remembered output where that is still read, and with an empty tensor of the same shape where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from stg_tune.guidance.places import Slot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stg_tune.guidance.perturb import Stage
    from stg_tune.guidance.prefix import Memory


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A module of a U-Net that runs as a whole or is replayed as a whole."""

    slot: Slot
    """Where it hangs."""
    skip: int | None = None
    """Its output is the skip connection of this number (counted in order of execution)."""
    takes: int | None = None
    """It reads the skip connection of this number."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The units of a U-Net in order of execution, and what a weak pass that starts at one of them still reads."""

    units: tuple[Unit, ...]
    """Residual blocks, attention stages, resampling layers."""

    def unit_of(self, module: nn.Module) -> int:
        """Index of the unit in which a block lies."""
        return next(
            index for index, unit in enumerate(self.units) if any(part is module for part in unit.slot.module.modules())
        )

    def kept_for(self, start: int) -> frozenset[int]:
        """Units before ``start`` whose output is read at ``start`` or later: its neighbour, and skip connections."""
        taken = {unit.takes for unit in self.units[start:]} - {None}
        skips = {index for index, unit in enumerate(self.units[:start]) if unit.skip in taken}
        return frozenset(skips | ({start - 1} if start else set()))


def graph_of(unet: nn.Module) -> Graph:
    """The units of a diffusers U-Net of down, middle and up blocks."""
    down = [unit for block in _blocks(unet, "down_blocks") for unit in _down(block)]
    numbered = [(slot, index if saved else None) for index, (slot, saved) in _numbered(down)]
    middle = [slot for slot, _ in _alternating(unet.get_submodule("mid_block"))]
    last = sum(saved for _, saved in down)
    units = [Unit(slot=slot, skip=skip) for slot, skip in numbered] + [Unit(slot=slot) for slot in middle]
    up = [
        pair
        for block in _blocks(unet, "up_blocks")
        for pair in (*_alternating(block), *_resampling(block, "upsamplers"))
    ]
    for slot, is_resnet in up:
        units.append(Unit(slot=slot, takes=last if is_resnet else None))
        last -= is_resnet
    return Graph(units=tuple(units))


def _numbered(down: Sequence[tuple[Slot, bool]]) -> Iterator[tuple[int, tuple[Slot, bool]]]:
    """Skip connection 0 is the first convolution, which is no unit."""
    number = 0
    for slot, saved in down:
        number += saved
        yield number, (slot, saved)


def _down(block: nn.Module) -> list[tuple[Slot, bool]]:
    """Every module of a block on the way down, and whether its output is saved as a skip connection."""
    pairs = _alternating(block)
    has_attention = any(not is_resnet for _, is_resnet in pairs)
    saved = [(slot, is_resnet != has_attention) for slot, is_resnet in pairs]
    return [*saved, *((slot, True) for slot, _ in _resampling(block, "downsamplers"))]


def _alternating(block: nn.Module) -> list[tuple[Slot, bool]]:
    """Residual block, attention, residual block, ...: the slots, and whether each is a residual block."""
    resnets, attentions = _members(block, "resnets"), _members(block, "attentions")
    found: list[tuple[Slot, bool]] = []
    for index, resnet in enumerate(resnets):
        found.append((resnet, True))
        found.extend((attention, False) for attention in attentions[index : index + 1])
    return found


def _resampling(block: nn.Module, name: str) -> list[tuple[Slot, bool]]:
    return [(slot, False) for slot in _members(block, name)]


def _members(block: nn.Module, name: str) -> list[Slot]:
    found = getattr(block, name, None)
    if not isinstance(found, nn.ModuleList):
        return []
    return [Slot(owner=found, name=key, module=child, path=f"{name}[{key}]") for key, child in found.named_children()]


def _blocks(unet: nn.Module, name: str) -> list[nn.Module]:
    return list(unet.get_submodule(name).children())


class UnitShell(nn.Module):
    """Stands in for a unit: runs it, or answers from memory."""

    def __init__(
        self, inner: nn.Module, stage: Stage, index: int, starts: Mapping[int, tuple[int, frozenset[int]]]
    ) -> None:
        """``starts``: position where a pass starts -> index of the unit there, units whose output it still reads."""
        super().__init__()
        self.inner = inner
        self.training = inner.training
        self._stage = stage
        self._index = index
        self._starts = starts
        self._shape: tuple[int, ...] = ()
        self._tuple = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The unit's own call."""
        route = self._stage.route
        first, kept = self._starts.get(route.start, (0, frozenset()))
        if self._index < first:
            output = self._replayed(self._stage.memory_of(route.prompt), args, kept=self._index in kept)
            return (output,) if self._tuple else output
        output = self.inner(*args, **kwargs)
        self._tuple = isinstance(output, tuple)
        own: Tensor = output[0] if isinstance(output, tuple) else output
        self._shape = tuple(own.shape[1:])
        for memory, positions in self._stage.memories(route):
            if any(self._index in self._starts[position][1] for position in positions):
                memory.remember(self._index, (own,))
        return output

    def _replayed(self, memory: Memory, args: tuple[Any, ...], *, kept: bool) -> Tensor:
        if kept:
            return memory.recall(self._index)[0]
        given: Tensor = args[0]
        return given.new_zeros(()).expand(given.shape[0], *self._shape)
