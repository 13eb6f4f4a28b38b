"""The folder of a run: what lies where in it (``run.json``, ``state.json`` and the storage belong to the search)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.documents import read_limited, write_atomic
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from stg_tune.records import GuidanceSpec, Pair

MAX_BYTES = 100_000


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Paths inside ``DIR``."""

    path: Path
    """``DIR``."""
    model_path: Path | None = None
    """Local folder with the model's files, if one was given; kept in ``DIR/source.json``."""
    loras: tuple[str, ...] = ()
    """LoRAs beside the model, ``FILE=SCALE`` with absolute paths; kept there too."""

    @classmethod
    def new(cls, path: Path, *, model_path: Path | None = None, loras: tuple[str, ...] = ()) -> RunFolder:
        """A folder that does not hold a run and can be written; nothing is made yet.

        Raises:
            StgTuneError: There is a run in it, or it cannot be made or written.
        """
        if (path / "run.json").exists():
            raise StgTuneError(
                f"{path} holds a run already: type `stg-tune resume {path}` to go on with it, or give another --out"
            )
        nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
            raise StgTuneError(f"cannot write to the run folder {path}: give a folder you may write to with --out")
        return cls(path=path, model_path=model_path.resolve() if model_path else None, loras=loras)

    def make(self) -> None:
        """Make the folder and note where the model's files are."""
        source: dict[str, Any] = {"model_path": str(self.model_path) if self.model_path else None}
        if self.loras:
            source["loras"] = list(self.loras)
        write_atomic(self.path / "source.json", json.dumps(source) + "\n")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an earlier run."""
        file = path / "source.json"
        if not file.exists():
            return cls(path=path)
        try:
            source = json.loads(read_limited(file, MAX_BYTES, "source file"))
            local, loras = source["model_path"], tuple(map(str, source.get("loras", ())))
            return cls(path=path, model_path=Path(local) if local else None, loras=loras)
        except (ValueError, KeyError, TypeError) as error:
            raise StgTuneError(
                f"{file} is damaged ({type(error).__name__}: {error}): delete it to use the hub"
            ) from None

    @property
    def preset(self) -> Path:
        """The preset that was found."""
        return self.path / "preset.json"

    @property
    def report(self) -> Path:
        """The dashboard."""
        return self.path / "report.html"

    @property
    def effects(self) -> Path:
        """Effect of the winner's terms in every step: ``{"config": hash, "terms": {term: [number or null, ...]}}``."""
        return self.path / "effects.json"

    def effect_series(self, spec: GuidanceSpec, pair: Pair) -> Path:
        """Effect of each term in each active step, of one video: ``{term: [number, ...]}``."""
        return self.path / "effects" / f"{pair.key}-{spec.hash()}.json"

    @property
    def previews(self) -> Path:
        """Folder with one small MP4 a setting, all of the same search pair, named by the setting's hash, no suffix."""
        return self.path / "previews"

    def clip(self, pair: Pair, kind: str) -> Path:
        """The video of a pair with a setting, ``default`` or ``tuned-<hash>``."""
        return self.path / "videos" / f"{pair.key}-{kind}.mp4"
