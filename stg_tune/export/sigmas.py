"""Schedules by sigma: Lightricks' own tools look them up in opposite directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stg_tune.export.base import Journal
    from stg_tune.export.timeline import Span
    from stg_tune.preset import Preset

Rule = Literal["first_below", "least_above"]
"""``first_below``: the first entry that is not above the sigma (LTX-Video). ``least_above``: the smallest entry that is
not below it (ComfyUI-LTXVideo, LTX-2)."""


def levels(preset: Preset, runs: Sequence[Span], journal: Journal, *, rule: Rule) -> list[float]:
    """One sigma for each run, such that the rule picks its own run at every step.

    Entries lie halfway between two steps, so that rounding decides nothing.
    """
    if len(runs) == 1:
        return [1.0 if rule == "least_above" else 0.0]
    sigmas = known(preset, journal)
    edges = [round((sigmas[span.last] + sigmas[span.last + 1]) / 2, 9) for span in runs[:-1]]
    return [*edges, 0.0] if rule == "first_below" else [max(1.0, sigmas[0]), *edges]


def known(preset: Preset, journal: Journal) -> tuple[float, ...]:
    """The noise level of every step."""
    if not preset.sigmas:
        journal.refuse(
            "its windows are sigmas, and the preset does not say those of its steps: add --sigmas linear-quadratic, "
            "--sigmas uniform:SHIFT, or the numbers"
        )
    return preset.sigmas


def looked_up(entries: Sequence[float], *, rule: Rule) -> Callable[[float], int]:
    """The rule itself: sigma -> place of the entry that counts."""
    if rule == "first_below":
        return lambda sigma: next((place for place, entry in enumerate(entries) if entry <= sigma), len(entries) - 1)

    def least_above(sigma: float) -> int:
        above = [entry for entry in entries if entry >= sigma]
        return list(entries).index(min(above)) if above else len(entries) - 1

    return least_above
