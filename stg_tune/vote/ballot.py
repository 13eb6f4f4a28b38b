"""What is voted on: two settings, filmed on the same pairs, in an order and on sides that a voter cannot guess."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stg_tune.records import Pair

Side = Literal["a", "b"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the two settings."""

    name: str
    """As its clips are named: ``default``, ``tuned-<hash>``."""
    words: str
    """The setting in words."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One pair, filmed with both settings."""

    pair: Pair
    """Prompt and seed."""
    a: Path
    """MP4 of the first setting."""
    b: Path
    """MP4 of the second setting."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """Everything that is asked."""

    a: Arm
    """The setting that the other is compared with."""
    b: Arm
    """The setting whose wins are counted."""
    items: tuple[Item, ...]
    """The pairs."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A pair as one voter sees it."""

    item: Item
    """The pair."""
    left: Side
    """Which setting is on the left."""

    def choice(self, side: str) -> Literal["a", "b", "tie"]:
        """What ``left``, ``right`` or ``tie`` stands for."""
        if side == "tie":
            return "tie"
        other: Side = "b" if self.left == "a" else "a"
        return self.left if side == "left" else other

    def side(self, choice: str) -> str:
        """The inverse of ``choice``."""
        return "tie" if choice == "tie" else "left" if choice == self.left else "right"


def sheets(items: Sequence[Item], voter: str, seed: int) -> tuple[Sheet, ...]:
    """Every pair once, shuffled; each setting is on the left equally often (one time more or less for an odd number).

    The same items, voter and seed give the same sheets, so that a voter can go on where he stopped.

    Args:
        items: The pairs.
        voter: Another voter gets another order and other sides.
        seed: Another seed does, too.
    """
    draw = random.Random(f"stg-tune vote {seed} {voter}")
    order = sorted(items, key=lambda item: item.pair.key)
    draw.shuffle(order)
    first: tuple[Side, Side] = ("a", "b") if draw.random() < 0.5 else ("b", "a")
    lefts = [first[number % 2] for number in range(len(order))]
    draw.shuffle(lefts)
    return tuple(Sheet(item=item, left=left) for item, left in zip(order, lefts, strict=True))
