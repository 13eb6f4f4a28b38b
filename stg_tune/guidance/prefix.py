"""Exact prefix reuse: where a weak pass starts, and the activation it starts from.

The blocks before the first skipped one compute in the weak pass what they computed in the full pass with the same text.
So the full pass remembers the input of that block, and the weak pass begins there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Literal

from stg_tune.errors import StgTuneError
from stg_tune.records import SkipOp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from stg_tune.guidance.passes import Prompt
    from stg_tune.models.base import Architecture
    from stg_tune.records import SkipTerm

BlockOp = Literal["run"] | SkipOp
Place = tuple[str, int]
"""Name of a stack and index of a block in it."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """What every block does in one pass, by position in order of execution."""

    ops: tuple[BlockOp, ...]
    """One entry a block."""
    start: int = 0
    """Blocks before this position return their input; the block here gets the remembered activation (unless 0)."""
    prompt: Prompt = "positive"
    """Whose activation the block at ``start`` gets."""
    remember: frozenset[int] = frozenset()
    """Positions whose input is kept for later passes of the step with the prompt."""
    remember_negative: frozenset[int] = frozenset()
    """The same for later passes with the negative prompt."""
    watch: frozenset[int] = frozenset()
    """Positions whose attention map later passes of the step ask for."""
    blur_sigma: float | None = None
    """Of the operation ``blur``, in tokens; ``None``: infinite."""

    @property
    def share(self) -> float:
        """Share of the blocks that run, 0 to 1; a block of which only a part is skipped counts as run."""
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


def weak_route(
    term: SkipTerm, order: Sequence[Place], *, prefix_reuse: bool, starts: Sequence[int] | None = None
) -> Route:
    """The pass that skips the layers of ``term``; with ``prefix_reuse`` it starts at the first of them.

    Args:
        term: Layers and operation.
        order: The blocks in order of execution.
        prefix_reuse: Whether a full pass with the same text has remembered the start.
        starts: For every position the one where a pass has to start to reach it; ``None``: that position itself.
    """
    skipped = {(stack, index) for stack, indices in term.skip_layers.items() for index in indices}
    if term.skip_op == "salient_blur":
        watch = frozenset(position for position, place in enumerate(order) if place in skipped)
        return Route(ops=_all_run(len(order)), watch=watch)
    ops = tuple(_op(term, skipped=place in skipped) for place in order)
    first = next((position for position, op in enumerate(ops) if op != "run"), 0)
    start = first if starts is None else starts[first]
    prompt: Prompt = "positive" if term.branch == "cond" else "negative"
    return Route(ops=ops, start=start if prefix_reuse else 0, prompt=prompt, blur_sigma=term.blur_sigma)


def _op(term: SkipTerm, *, skipped: bool) -> BlockOp:
    return term.skip_op if skipped else "run"


def prompted_route(num_blocks: int, weak: Sequence[Route]) -> Route:
    """The full pass that remembers where the passes ``weak`` start; equal starts share one activation."""
    starts = [(route.prompt, route.start) for route in weak if route.start]
    return Route(
        ops=_all_run(num_blocks),
        remember=frozenset(start for prompt, start in starts if prompt == "positive"),
        remember_negative=frozenset(start for prompt, start in starts if prompt == "negative"),
        watch=frozenset().union(*(route.watch for route in weak)),
    )


def _all_run(num_blocks: int) -> tuple[BlockOp, ...]:
    run: BlockOp = "run"
    return (run,) * num_blocks


class Memory:
    """The remembered activations of the current step, rows of one text only."""

    def __init__(self) -> None:
        self.rows: slice | None = slice(None)
        """Rows with that text in the pass that remembers; ``None``: it has none."""
        self.total = 1
        """All rows of that pass."""
        self._kept: dict[int, tuple[Tensor, ...]] = {}

    def remember(self, position: int, streams: Sequence[Tensor]) -> None:
        """Copies the rows: a view would keep all rows alive, and blocks may write into their input."""
        if self.rows is not None:
            self._kept[position] = tuple(self.own(stream).clone() for stream in streams)

    def recall(self, position: int) -> tuple[Tensor, ...]:
        """A fresh copy, because another term may start here too."""
        return tuple(stream.clone() for stream in self._kept[position])

    def clear(self) -> None:
        """Frees everything; the end of a step."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def count(self) -> int:
        """Number of rows with that text."""
        return 0 if self.rows is None else len(range(*self.rows.indices(self.total)))

    def own(self, stream: Tensor) -> Tensor:
        """The rows with that text of a tensor that has the same number of rows for each row of the call."""
        assert self.rows is not None
        per_row, rest = divmod(stream.shape[0], self.total)
        if rest:
            raise StgTuneError(
                f"a block received {stream.shape[0]} rows in a call of {self.total}: prefix reuse cannot tell which "
                "belong to the prompt. Pass prefix_reuse=False to stg_tune.guided."
            )
        start, stop, _ = self.rows.indices(self.total)
        return stream[start * per_row : stop * per_row]
