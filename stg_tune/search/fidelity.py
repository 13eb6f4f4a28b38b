"""How faithfully a video is made: with the model's own steps, or with fewer to save time (no heavy import)."""

from __future__ import annotations

from typing import Literal, get_args

FULL = "full"
"""Fidelity of an evaluation with the model's own steps, frames and resolution."""
HALF = "steps/2"
"""Half of the denoising steps; frames, resolution and initial noise stay, and windows are fractions of the schedule."""

Policy = Literal["full", "auto"]
"""``full``: every evaluation is; ``auto``: screen and trials are cheaper where a check shows that they may be."""
POLICIES: tuple[Policy, ...] = get_args(Policy)

MOST_COST = 0.7
"""Share of the time of a full evaluation that a cheaper one may take, and as what it counts in the budget: a run with
cheaper evaluations tries more, and yet never takes longer than the same budget of full ones."""
_DIVISORS = {FULL: 1, HALF: 2}


def steps_at(fidelity: str, num_steps: int) -> int:
    """Denoising steps of a fidelity, at least 1.

    Args:
        fidelity: ``FULL`` or ``HALF``.
        num_steps: Steps of the full one.
    """
    return -(-num_steps // _DIVISORS[fidelity])


def in_full(fidelity: str, seconds: float) -> float:
    """About the time that the same evaluation would take at full fidelity."""
    return seconds * _DIVISORS[fidelity]


def counts_as(fidelity: str) -> float:
    """What one evaluation takes off the budget."""
    return 1.0 if fidelity == FULL else MOST_COST
