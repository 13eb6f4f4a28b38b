"""Settings that others have published, as presets: warm starts for a search, and what to compare with."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.preset.file import load, parse

if TYPE_CHECKING:
    import os
    from importlib.resources.abc import Traversable

    from stg_tune.models.base import ModelEntry
    from stg_tune.preset.record import Preset
    from stg_tune.records import GuidanceSpec

_SUFFIX = ".json"
_UNSURE = ("ovi",)


def published_names(family: str | None = None) -> list[str]:
    """Names such as ``mochi/published``; with ``family`` those of one model family, none when it is not known."""
    return [name for name in _files() if family is None or name.rpartition("/")[0] == family]


def published(family: str | None = None) -> list[Preset]:
    """The published presets, of one model family or of all.

    Each states its source and what to know before its numbers are copied. A preset's ``stacks`` say for how many
    blocks its layers are meant; ``spec`` can start a search on a model of the same depths.
    """
    return [find_published(name) for name in published_names(family)]


def find_published(name: str) -> Preset:
    """One published preset.

    Raises:
        StgTuneError: There is none of that name; the message lists close ones.
    """
    file = _files().get(name)
    if file is None:
        raise StgTuneError(f"there is no published preset {name[:80]!r}; there are, for example: {_close(name)}")
    return parse(file.read_text(encoding="utf-8"), f"the published preset {name}")


@cache
def known_depths() -> dict[str, dict[str, int]]:
    """Checkpoint -> stack -> number of blocks, of the published presets whose depths are sure."""
    return {preset.checkpoint: dict(preset.stacks) for preset in published() if preset.family not in _UNSURE}


def open_preset(name_or_path: str | os.PathLike[str]) -> Preset:
    """A preset file, or a published preset by name; a file wins where both exist.

    Raises:
        StgTuneError: It is neither, or the file is no preset.
    """
    text = str(name_or_path)
    if text in _files() and not Path(text).exists():
        return find_published(text)
    if not text.endswith(_SUFFIX) and not Path(text).exists():
        raise StgTuneError(
            f"there is no preset {text[:120]!r}: give a file, or one of the published presets "
            f"({_close(text)}, ...; type stg-tune presets list)"
        )
    return load(name_or_path)


def open_for(name_or_path: str | os.PathLike[str], entry: ModelEntry) -> Preset:
    """A preset, as ``open_preset`` reads it, whose layers mean something in this model: same family, same blocks.

    Raises:
        StgTuneError: As ``open_preset``; or it is made for other blocks.
    """
    preset = open_preset(name_or_path)
    if (preset.family, dict(preset.stacks)) != (entry.architecture.family, dict(entry.depths)):
        raise StgTuneError(
            f"the preset {name_or_path} is for {preset.model} ({preset.family}, blocks {dict(preset.stacks)}), not for "
            f"{entry.name} ({entry.architecture.family}, blocks {dict(entry.depths)}): its layers mean nothing there"
        )
    return preset


def spec_for(name_or_path: str | os.PathLike[str], entry: ModelEntry) -> GuidanceSpec:
    """The setting of a preset, for what compares settings: the specification alone says all of its meaning.

    Raises:
        StgTuneError: As ``open_for``; or the preset rescales x0, which a specification cannot say.
    """
    return bare_spec(open_for(name_or_path, entry))


def bare_spec(preset: Preset) -> GuidanceSpec:
    """The specification of a preset that means the same without the rest of it; else ``StgTuneError``."""
    if preset.combine_space == "sample" and any(segment.rescale for segment in preset.spec.segments):
        raise StgTuneError(
            f"the preset {preset.name or preset.model} rescales x0 (combine_space 'sample'), but settings are compared "
            "as specifications, which rescale the prediction: set its rescale to 0, or look at its videos with "
            "stg-tune generate"
        )
    return preset.spec


def prior_for(entry: ModelEntry) -> Preset:
    """The setting that others have published for a model with just these blocks.

    Where there are several, the one called ``published`` is meant.

    Raises:
        StgTuneError: There is none, or several and none of that name; the message lists them.
    """
    family = entry.architecture.family
    fitting = [preset for preset in published(family) if dict(preset.stacks) == dict(entry.depths)]
    named = [preset for preset in fitting if preset.name == f"{family}/published"] or fitting
    if len(named) == 1:
        return named[0]
    if not fitting:
        others = ", ".join(published_names(family)) or "none at all"
        raise StgTuneError(
            f"nothing is published for {entry.name} ({family}, blocks {dict(entry.depths)}); for other sizes of the "
            f"family: {others}. Give a preset file"
        )
    raise StgTuneError(
        f"several settings are published for {entry.name}: type one of {', '.join(item.name for item in fitting)}"
    )


def _close(name: str) -> str:
    """Names like this one, else those of the same family, else any."""
    near = get_close_matches(name[:80], published_names(), n=3) or published_names(name.rpartition("/")[0])
    return ", ".join((near or published_names())[:4])


@cache
def _files() -> dict[str, Traversable]:
    folder = resources.files("stg_tune.preset") / "published"
    stems = {item.name.removesuffix(_SUFFIX): item for item in folder.iterdir() if item.name.endswith(_SUFFIX)}
    return {"/".join(stem.rsplit(".", 1)): stems[stem] for stem in sorted(stems)}
