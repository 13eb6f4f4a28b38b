"""Exact prefix reuse: where a weak pass starts, and the activation it starts from.

The blocks before the first skipped one compute in the weak pass what they computed in the prompted pass. So the
prompted pass remembers the input of that block, and the weak pass begins there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Literal

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from stg_tune.models.base import Architecture
    from stg_tune.records import SkipTerm

BlockOp = Literal["run", "attention", "residual"]
Place = tuple[str, int]
"""Name of a stack and index of a block in it."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """What every block does in one pass, by position in order of execution."""

    ops: tuple[BlockOp, ...]
    """One entry a block."""
    start: int = 0
    """Blocks before this position return their input; the block here gets the remembered activation (unless 0)."""
    remember: frozenset[int] = frozenset()
    """Positions whose input is kept for later passes of the step."""

    @property
    def share(self) -> float:
        """Share of the blocks that run, 0 to 1; a block whose attention alone is skipped counts as run."""
        running = sum(op != "residual" for op in self.ops[self.start :])
        return running / len(self.ops)


def execution_order(architecture: Architecture, depths: Mapping[str, int]) -> tuple[Place, ...]:
    """Every block in the order in which the denoiser calls it.

    Args:
        architecture: Names the stacks, and says whether they take turns.
        depths: Stack name -> number of blocks.
    """
    stacks = [[(stack.name, index) for index in range(depths[stack.name])] for stack in architecture.stacks]
    if not architecture.interleaved:
        return tuple(chain.from_iterable(stacks))
    rounds = chain.from_iterable(zip_longest(*stacks))
    return tuple(place for place in rounds if place is not None)


def weak_route(term: SkipTerm, order: Sequence[Place], *, prefix_reuse: bool) -> Route:
    """The pass that skips the layers of ``term``; with ``prefix_reuse`` it starts at the first of them."""
    skipped = {(stack, index) for stack, indices in term.skip_layers.items() for index in indices}
    ops = tuple(_op(term, skipped=place in skipped) for place in order)
    first = next(position for position, op in enumerate(ops) if op != "run")
    return Route(ops=ops, start=first if prefix_reuse else 0)


def _op(term: SkipTerm, *, skipped: bool) -> BlockOp:
    return term.skip_op if skipped else "run"


def prompted_route(num_blocks: int, weak: Sequence[Route]) -> Route:
    """The full pass that remembers where the passes ``weak`` start; equal starts share one activation."""
    run: BlockOp = "run"
    return Route(ops=(run,) * num_blocks, remember=frozenset(route.start for route in weak if route.start))


class Memory:
    """The remembered activations of the current step, rows of the prompted samples only."""

    def __init__(self) -> None:
        self.rows = slice(None)
        """Rows of the prompted samples in the pass that remembers."""
        self.total = 1
        """All rows of that pass."""
        self._kept: dict[int, tuple[Tensor, ...]] = {}

    def remember(self, position: int, streams: Sequence[Tensor]) -> None:
        """Copies the rows: a view would keep all rows alive, and blocks may write into their input."""
        self._kept[position] = tuple(self._own_rows(stream).clone() for stream in streams)

    def recall(self, position: int) -> tuple[Tensor, ...]:
        """A fresh copy, because another term may start here too."""
        return tuple(stream.clone() for stream in self._kept[position])

    def clear(self) -> None:
        """Frees everything; the end of a step."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def _own_rows(self, stream: Tensor) -> Tensor:
        per_row, rest = divmod(stream.shape[0], self.total)
        if rest:
            raise StgTuneError(
                f"a block received {stream.shape[0]} rows in a call of {self.total}: prefix reuse cannot tell which "
                "belong to the prompt. Pass prefix_reuse=False to stg_tune.guided."
            )
        start, stop, _ = self.rows.indices(self.total)
        return stream[start * per_row : stop * per_row]
