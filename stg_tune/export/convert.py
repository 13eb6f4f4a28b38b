"""``export`` and ``import_``: run a target, and let nothing be lost in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.export.base import Exported, Imported, Journal
from stg_tune.export.registry import target
from stg_tune.preset import known_depths, parse

if TYPE_CHECKING:
    from stg_tune.preset import Preset


def export(preset: Preset, to: str, *, lossy: bool = False) -> Exported:
    """A preset in the words of another tool.

    Args:
        preset: What to write.
        to: Name of the target.
        lossy: Go on although something comes out different.

    Raises:
        StgTuneError: There is no such target, it cannot come near the preset, or it loses something without ``lossy``.
    """
    chosen, journal = target(to), Journal()
    try:
        _check_depths(preset)
        text = chosen.write(preset, journal)
    except StgTuneError as error:
        raise StgTuneError(f"{preset.name} cannot be written for {to}: {error}") from None
    _allow(journal, f"writing {preset.name} for {to}", lossy=lossy)
    return Exported(text=text, losses=tuple(journal.losses), notes=tuple(journal.notes))


def import_(text: str, source: str, like: Preset, *, name: str = "", lossy: bool = False) -> Imported:
    """Another tool's file as a preset.

    Args:
        text: Content of the file; it is not trusted.
        source: Name of the target whose file it is.
        like: A preset of the same model: family, blocks, number of steps and schedule are taken from it, and the CFG
            scale where the file says none.
        name: Name of the new preset; default: that of ``like``, and the tool.
        lossy: Go on although the file says more than a preset can.

    Raises:
        StgTuneError: It is no such file, is for other blocks, or loses something without ``lossy``.
    """
    chosen, journal = target(source), Journal()
    if chosen.read is None:
        raise StgTuneError(f"{source} is not a file format that can be read back: export only")
    try:
        spec = chosen.read(text, like, journal)
        made = replace(
            like,
            name=name or f"{like.name[:150]} from {source}",
            spec=spec,
            evidence=None,
            source=chosen.tool,
            notes=(),
        )
        made = parse(json.dumps(made.to_dict()), "what was read")
    except StgTuneError as error:
        raise StgTuneError(f"this cannot be read as {source}: {error}") from None
    _allow(journal, f"reading this as {source}", lossy=lossy)
    return Imported(preset=made, losses=tuple(journal.losses), notes=tuple(journal.notes))


def _check_depths(preset: Preset) -> None:
    """Other tools take the checkpoint's blocks, whatever the preset says of their number."""
    known = known_depths().get(preset.checkpoint, preset.stacks)
    if dict(known) != dict(preset.stacks):
        raise StgTuneError(
            f"the checkpoint {preset.checkpoint} has blocks {dict(known)}, the preset says {dict(preset.stacks)}: its "
            "layers mean nothing there"
        )


def _allow(journal: Journal, what: str, *, lossy: bool) -> None:
    if journal.losses and not lossy:
        raise StgTuneError(f"{what} changes what comes out: {'; '.join(journal.losses)}. To accept that, add --lossy")
