"""What the targets share that are command lines: arguments are read as names and words, and nothing is run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.export import fields, layouts
from stg_tune.export.single import Window, need_op, one_rescale, one_window

if TYPE_CHECKING:
    from stg_tune.export.base import Journal
    from stg_tune.preset import Preset

SAYS = "residual, no rescale, one window"
"""What both tools for diffusion on the command line can say."""


def residual_window(preset: Preset, journal: Journal, families: tuple[str, ...]) -> Window:
    """The one window of a tool that skips whole blocks and does not rescale."""
    layouts.need_family(preset, journal, families)
    window = one_window(preset, journal)
    need_op(window.term, journal, ("residual",))
    one_rescale(preset, window, journal, scope="none", space="prediction")
    return window


def note_window(start: float, stop: float, window: Window, journal: Journal) -> None:
    """The bounds are meant for one number of steps."""
    if (start, stop) != (0.0, 1.0):
        journal.note(f"the window is exact for {window.num_steps} steps")


def parse(text: str) -> dict[str, list[str]]:
    """``--name value value`` as name -> values; nothing is run."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise StgTuneError(f"the arguments cannot be read: {error}") from None
    found: dict[str, list[str]] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            if name in found:
                raise StgTuneError(f"--{name[:60]} is given twice")
            found[name] = [value] if value else []
        elif name is not None:
            found[name].append(word)
    return found


def number(data: dict[str, list[str]], name: str, default: float) -> float:
    """The one number of an argument."""
    values: list[Any] = data.get(name, [default])
    try:
        value = float(values[0]) if len(values) == 1 else None
    except ValueError:
        value = None
    return fields.number({name: value if value is not None else " ".join(map(str, values))[:60]}, name)


def layers(data: dict[str, list[str]], name: str, default: str = "") -> tuple[int, ...]:
    """Block indices, with commas or spaces between them."""
    text = ",".join(data.get(name, [default])).strip("[]")
    return fields.indices_text(text, name)
