"""How many evaluations a search may use, and how they are divided over its stages."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stg_tune.errors import StgTuneError

BUDGETS = {"small": 600, "medium": 1500, "large": 5000}
"""Named budgets in evaluations of one (configuration, pair)."""
LEAST = 150
"""Fewer evaluations cannot hold a baseline, a screen, a search and a race."""
CONFIRM_PAIRS = 100
"""Held-out pairs an arm at the budget ``small``: a true gain of 0.3 standard deviations of the paired difference is
then claimed in 5 of 6 runs (docs/statistics.md)."""
ARMS = 3
"""Settings compared at the end, at most: the default, the best CFG-only setting, the winner. Where the default is the
best CFG-only setting, the search gets the evaluations of the third."""
STG_COST = 1.4
"""Time of an evaluation with guidance terms over one of the baseline; used only to turn hours into evaluations."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A number of evaluations, or a time that becomes one as soon as the baseline has been timed."""

    text: str
    """As the user wrote it: ``small``, ``800``, ``2h``."""
    evaluations: int | None = None
    """Evaluations of one (configuration, pair)."""
    seconds: float | None = None
    """Wall time."""
    worker_seconds: float | None = None
    """Time of all workers together."""

    def in_evaluations(self, seconds_each: float, slots: int) -> int:
        """The budget in evaluations, when one of the baseline takes ``seconds_each`` on each of ``slots`` workers."""
        if self.evaluations is not None:
            return self.evaluations
        together = self.worker_seconds if self.seconds is None else self.seconds * slots
        assert together is not None
        count = int(together / max(seconds_each * STG_COST, 1e-9))
        if count < LEAST:
            hours, unit = LEAST * seconds_each * STG_COST / 3600, "h" if self.seconds is not None else "wh"
            raise StgTuneError(
                f"budget {self.text!r} is time for about {count} evaluations at {seconds_each:.1f} s each; at least "
                f"{LEAST} are needed: give {hours / (slots if self.seconds is not None else 1):.1f}{unit} or more"
            )
        return min(count, 10 * BUDGETS["large"])


def parse_budget(text: str) -> Budget:
    """Read ``small``, ``medium``, ``large``, a number of evaluations, or a time.

    ``90m``, ``2h`` and ``1.5h`` are wall time; ``16wh`` are hours of work that all workers share.
    """
    word = text.strip().lower()
    if word in BUDGETS:
        return Budget(text=word, evaluations=BUDGETS[word])
    if re.fullmatch(r"\d{1,7}", word):
        if int(word) < LEAST:
            raise StgTuneError(f"budget {word} is too small: at least {LEAST} evaluations are needed")
        return Budget(text=word, evaluations=int(word))
    time = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)(s|m|h|wh)", word)
    if time and float(time[1]) > 0:
        seconds = float(time[1]) * {"s": 1, "m": 60, "h": 3600, "wh": 3600}[time[2]]
        return Budget(text=word, worker_seconds=seconds) if time[2] == "wh" else Budget(text=word, seconds=seconds)
    raise StgTuneError(
        f"budget {text!r} is not understood; give {', '.join(BUDGETS)}, a number of evaluations (at least {LEAST}), "
        "or a time such as 90m, 2h, or 16wh (hours of all workers together)"
    )


def in_worker_hours(text: str, gpus_per_worker: float | None) -> str:
    """``16gpuh`` as the hours of work that it pays for, ``32wh`` when two workers share a GPU; other texts unchanged.

    Raises:
        StgTuneError: The workers have no GPU.
    """
    time = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,3})?)gpuh\s*", text.lower())
    if time is None:
        return text
    if gpus_per_worker is None:
        raise StgTuneError(f"budget {text!r} is in hours of GPUs: say with --gpus-per-worker how many a worker has")
    if gpus_per_worker <= 0:
        raise StgTuneError(f"budget {text!r} is in hours of GPUs, but the workers have none; give {time[1]}wh or 2h")
    return f"{float(time[1]) / gpus_per_worker:.6f}".rstrip("0").rstrip(".") + "wh"


@dataclass(frozen=True, kw_only=True)
class Division:
    """Evaluations of each stage."""

    search_pairs: int
    """Pairs that a trial may see; the baseline is measured on all of them."""
    published: int
    """Evaluations of published settings on the search pairs."""
    cfg: int
    """Evaluations of the CFG-only line."""
    screen: int
    """Evaluations of the single-layer screen."""
    search: int
    """Evaluations of the trials."""
    select: int
    """Evaluations that choose the winner among the finalists, on held-out pairs."""
    confirm: int
    """Held-out pairs on which each of ``ARMS`` settings is compared; other pairs than those of ``select``."""

    @property
    def total(self) -> int:
        """All evaluations."""
        used = self.search_pairs + self.published + self.cfg + self.screen + self.search + self.select
        return used + ARMS * self.confirm

    @property
    def holdout_pairs(self) -> int:
        """Held-out pairs needed: those of the choice, at most, and those of the confirmation."""
        return select_pairs(self.select) + self.confirm

    def stages(self) -> dict[str, int]:
        """Stage -> evaluations, for a plan that people read."""
        return {
            "baseline": self.search_pairs,
            "published": self.published,
            "cfg": self.cfg,
            "screen": self.screen,
            "search": self.search,
            "select": self.select,
            "confirm": ARMS * self.confirm,
        }


def search_pairs_of(evaluations: int) -> int:
    """Pairs that a trial may see: 8 in ``small``, 14 in ``medium``, 24 in ``large``; at least 6 for the pruner.

    An even number, so that two workers end a trial together.
    """
    wanted = max(6, min(24, 4 + evaluations // 150))
    return wanted + wanted % 2


def select_pairs(select: int) -> int:
    """Most held-out pairs that the choice among finalists can touch: two finalists and the default on all of them."""
    return select // 3


def divide(evaluations: int, *, layers: int, published: int = 0, search_pairs: int | None = None) -> Division:
    """Divide a budget over the stages.

    Half of a small budget goes into the confirmation, because a gain that cannot be told from noise is worth nothing;
    what is left over grows the search, because a better setting is then worth more than a narrower interval.

    Args:
        evaluations: The whole budget, at least ``LEAST``.
        layers: Number of single-layer settings (stack x op x layer) that the screen could try.
        published: Number of published settings.
        search_pairs: Pairs of a trial when they are fixed already (a resumed run).
    """
    pairs = search_pairs or search_pairs_of(evaluations)
    confirm = evaluations // 6 if evaluations <= 600 else CONFIRM_PAIRS + (evaluations - 600) * 8 // 100
    select = min(evaluations * 9 // 100, 300)
    cfg = min(max(evaluations * 8 // 100, 12), 200)
    screen = min(evaluations * 13 // 100, layers * 8)
    fixed = pairs * (1 + published) + cfg + screen + select + ARMS * confirm
    return Division(
        search_pairs=pairs,
        published=pairs * published,
        cfg=cfg,
        screen=screen,
        search=max(evaluations - fixed, 0),
        select=select,
        confirm=confirm,
    )
