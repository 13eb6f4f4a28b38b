"""The preset of a run and its latest verdict in step: nothing stale is handed out, and nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from stg_tune.documents import write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.preset import load as load_preset
from stg_tune.preset import save as save_preset

if TYPE_CHECKING:
    from pathlib import Path

    from stg_tune.preset import Preset
    from stg_tune.search.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The preset file of a run after a verdict."""

    preset: Path | None
    """The file; ``None``: the verdict is no improvement."""
    set_aside: Path | None = None
    """Where an earlier preset is now that the verdict does not speak for."""


def keep_preset(file: Path, found: Preset | None, verdict: Verdict | None) -> Kept:
    """Have the file say what the verdict says.

    A file that says it already stays as it is, and votes stay with their setting. An earlier preset of another setting
    is renamed, with a text beside it that tells why.

    Args:
        file: ``DIR/preset.json``.
        found: The preset of the verdict; ``None``: no improvement.
        verdict: What the search has found last; ``None``: nothing could race.
    """
    earlier = _earlier(file)
    if found is None:
        reason = verdict.reason if verdict else "no setting could race against the default"
        aside = _set_aside(file, f"the search was extended, and its verdict now is no improvement: {reason}")
        return Kept(preset=None, set_aside=aside)
    aside = None
    if earlier is None or earlier.spec != found.spec:
        aside = _set_aside(file, "the search was extended, and its verdict is now about another setting")
    else:
        found = _with_words_of(earlier, found)
    if earlier is None or found.to_dict() != earlier.to_dict():
        save_preset(found, file)
    return Kept(preset=file, set_aside=aside)


def preset_of(file: Path, verdict: Verdict | None) -> Preset | None:
    """The preset in a run's folder, if the verdict is an improvement by just this setting.

    Raises:
        StgTuneError: The file is damaged.
    """
    if verdict is None or not verdict.improved or not file.exists():
        return None
    preset = load_preset(file)
    return preset if preset.spec == verdict.winner else None


def _earlier(file: Path) -> Preset | None:
    try:
        return load_preset(file) if file.exists() else None
    except StgTuneError:
        return None


def _with_words_of(earlier: Preset, found: Preset) -> Preset:
    """What people have said and written about the same setting; the old name and date where nothing else is new."""
    if found.evidence is None or earlier.evidence is None:
        return replace(found, notes=earlier.notes)
    votes = replace(found.evidence, votes=earlier.evidence.votes)
    same = replace(found, name=earlier.name, notes=earlier.notes, evidence=replace(votes, date=earlier.evidence.date))
    return same if same.to_dict() == earlier.to_dict() else replace(found, notes=earlier.notes, evidence=votes)


def _set_aside(file: Path, why: str) -> Path | None:
    if not file.exists():
        return None
    free = (file.with_name(f"{file.stem}-earlier-{number}{file.suffix}") for number in count(1))
    target = next(name for name in free if not name.exists())
    try:
        file.replace(target)
    except OSError as error:
        raise StgTuneError(f"cannot set aside the earlier preset {file}: {error.strerror or error}") from error
    write_atomic(target.with_suffix(".txt"), f"{target.name} was {file.name} before: {why}.\n")
    return target
