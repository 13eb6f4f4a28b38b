"""Clips of settings as artifacts of Optuna's trials, which its dashboard shows."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from optuna.artifacts import ArtifactMeta

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial


def artifact(folder: Path | None, trial: FrozenTrial) -> dict[str, Any]:
    """The trial's clip, if there is one, as ``optuna.artifacts.upload_artifact`` notes it for a running trial.

    Trials enter the storage when they are finished, where that function refuses them.

    Args:
        folder: Holds one MP4 a setting, named by its hash; ``None``: there are none.
        trial: A finished trial.
    """
    name = trial.user_attrs["config"]
    if folder is None or not (folder / name).is_file():
        return {}
    meta = ArtifactMeta(artifact_id=name, filename=f"{name}.mp4", mimetype="video/mp4", encoding=None)
    return {f"artifacts:{name}": json.dumps(asdict(meta))}
