"""Which scorers judge the videos of a run, and where their files are: plain values that the run keeps (no torch)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stg_tune.documents import read_limited, write_atomic
from stg_tune.errors import StgTuneError
from stg_tune.score.registry import DEFAULT, EMBEDDED, EXACT_CLIP, FAST_CLIP, files_of

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA = "stg-tune/scorers-of-a-run/1"
FILE = "scorers.json"
"""Its name in the folder of a run; a run that chose nothing has none."""
MAX_BYTES = 100_000


@dataclass(frozen=True, kw_only=True)
class ScorerChoice:
    """What a run wants beyond the scorers that judge its model anyway."""

    more: tuple[str, ...] = ()
    """Further scorers by name, third parties' included."""
    fast: bool = False
    """CLIP ViT-B/32 in place of ViT-L/14."""
    weights: Path | None = None
    """Local folder with the scorers' files, absolute, the same on every machine."""

    @classmethod
    def of(cls, named: Sequence[str], *, embedded: bool, fast: bool, weights: Path | None) -> ScorerChoice:
        """The choice for an objective; everything that can be wrong with it is found without loading a network.

        Args:
            named: Scorers that the objective speaks of.
            embedded: The model brings scorers of its own.
            fast: The user wants the smaller CLIP.
            weights: The folder that the user names.

        Raises:
            StgTuneError: Unknown scorer, one that the smaller CLIP lacks, no such folder, or an option without effect.
        """
        own = EMBEDDED if embedded else DEFAULT
        more = tuple(dict.fromkeys(name for name in named if name not in own))
        files = files_of(more if embedded else (*own, *more), FAST_CLIP if fast else EXACT_CLIP)
        for option, given in (("--weights", weights is not None), ("--fast", fast)):
            if given and not files:
                raise StgTuneError(
                    f"{option} is about files of scorers for real models, and this model brings scorers of its own, "
                    f"which need none: leave out {option}"
                )
        if weights is not None and not weights.expanduser().is_dir():
            raise StgTuneError(f"--weights {weights}: there is no such folder; name one that holds the scorers' files")
        return cls(more=more, fast=fast, weights=weights.expanduser().resolve() if weights else None)


NOTHING_ELSE = ScorerChoice()
"""The model's own scorers, from wherever their files are."""


def keep_choice(choice: ScorerChoice, directory: Path) -> None:
    """Leave it in the folder of a run, for ``kept_choice``."""
    if choice == NOTHING_ELSE:
        return
    folder = str(choice.weights) if choice.weights else None
    content = {"schema": SCHEMA, "more": list(choice.more), "fast": choice.fast, "weights": folder}
    write_atomic(directory / FILE, json.dumps(content, indent=1) + "\n")


def kept_choice(directory: Path) -> ScorerChoice:
    """What the run in a folder has chosen; a damaged file raises ``StgTuneError``."""
    file = directory / FILE
    if not file.exists():
        return NOTHING_ELSE
    try:
        content = json.loads(read_limited(file, MAX_BYTES, "scorers of a run"))
        known = content["schema"] == SCHEMA
        folder = Path(content["weights"]) if content["weights"] else None
        choice = ScorerChoice(more=tuple(map(str, content["more"])), fast=bool(content["fast"]), weights=folder)
    except (ValueError, KeyError, TypeError, RecursionError):
        known, choice = False, NOTHING_ELSE
    if not known:
        raise StgTuneError(
            f"{file} does not say which scorers the run has ({SCHEMA}): put it back as it was, or start anew in "
            "another folder"
        )
    return choice
