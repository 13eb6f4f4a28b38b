"""What the LTX-2 targets share: one setting for the video, of which the tools differ in the words alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stg_tune.export import layouts, windows
from stg_tune.export.single import from_window, need_branch, need_op, one_cfg, one_rescale, one_window
from stg_tune.export.timeline import spans, term_of

if TYPE_CHECKING:
    from stg_tune.export.base import Journal
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec

FAMILIES = ("ltx2",)
SOUND_NOTE = "the settings of sound are not read; a preset speaks of the video"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an LTX-2 pipeline can be told."""

    cfg_scale: float
    """CFG of the video."""
    stg_scale: float
    """0: nothing is skipped."""
    blocks: tuple[int, ...]
    """Blocks whose self-attentions pass their values through."""
    rescale: float
    """Of x0, 0 is off."""
    start: float = 0.0
    """As ``LTX2Guidance`` counts."""
    stop: float = 1.0
    """As ``LTX2Guidance`` counts."""


def setting(preset: Preset, journal: Journal) -> Setting:
    """One setting for all steps, also for Lightricks' own command line."""
    layouts.need_family(preset, journal, FAMILIES)
    runs = spans(preset, journal)
    if len(runs) == 1 and not runs[0].terms:
        return Setting(cfg_scale=runs[0].cfg_scale, stg_scale=0.0, blocks=(), rescale=runs[0].rescale)
    window = one_window(preset, journal)
    need_branch(window, journal, "cond")
    need_op(window.term, journal, ("attention", "attention_all"))
    start, stop = windows.to_floored(window.first, window.last, window.num_steps)
    return Setting(
        cfg_scale=one_cfg(window, journal),
        stg_scale=float(window.term.stg_scale),
        blocks=layouts.only_stack(window.term, journal, ("blocks",)),
        rescale=one_rescale(preset, window, journal, scope="all", space="x0"),
        start=start,
        stop=stop,
    )


def need_all_steps(found: Setting, journal: Journal) -> None:
    """A tool without windows acts in every step."""
    if (found.start, found.stop) != (0.0, 1.0):
        journal.lose(f"the window from {found.start:g} to {found.stop:g} is left out: layers are skipped in every step")


def from_arguments(
    blocks: tuple[int, ...],
    held: windows.Steps | None,
    num_steps: int,
    *,
    stg_scale: float,
    cfg: float,
    rescale: float,
    journal: Journal,
) -> GuidanceSpec:
    """The specification of an LTX-2 setting."""
    if held not in (None, (0, num_steps - 1)) and cfg != 1:
        journal.refuse("outside its window LTX2Guidance has no CFG: write that preset by hand")
    term = term_of({"blocks": blocks}, "attention", stg_scale) if blocks and stg_scale else None
    return from_window(term, held, cfg_scale=cfg, rescale=rescale, num_steps=num_steps, scope="all")
