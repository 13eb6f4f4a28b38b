"""Blind votes of a run as evidence in its preset."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stg_tune.errors import StgTuneError
from stg_tune.preset import VoteCount
from stg_tune.search import load_run
from stg_tune.vote import VoteFile, tally

if TYPE_CHECKING:
    from pathlib import Path

    from stg_tune.preset import Preset
    from stg_tune.search import SearchPlan
    from stg_tune.vote import Tally


def with_votes(preset: Preset, directory: Path) -> Preset:
    """The preset with what people said about it against the default, in place of an earlier count.

    Args:
        preset: With evidence, of the model and default of the run.
        directory: Folder of the run whose ``votes.json`` is counted.

    Raises:
        StgTuneError: The preset is of another run, or nobody has compared it with the default.
    """
    if preset.evidence is None:
        raise StgTuneError(
            f"the preset {preset.name!r} has no evidence that votes could be added to; only presets that a search has "
            "written have some"
        )
    _check_same_default(preset, load_run(directory).plan)
    name = f"tuned-{preset.spec.hash()}"
    found = tally(VoteFile(directory / "votes.json").votes(), "default", name)
    if not found:
        raise StgTuneError(
            f"nobody has voted between the default and the setting of {preset.name!r} ({name}): type "
            f"stg-tune vote {directory}"
        )
    return replace(preset, evidence=replace(preset.evidence, votes=tuple(map(_count, found))))


def _check_same_default(preset: Preset, plan: SearchPlan) -> None:
    """Votes are about the default of the run: another model, scale or number of steps makes other videos."""
    assert preset.evidence is not None
    pairs = {
        "model": (preset.model, plan.model),
        "default": (preset.evidence.baseline.hash(), plan.baseline.hash()),
        "number of steps": (preset.generation.num_inference_steps, plan.num_steps),
    }
    for what, (its, ours) in pairs.items():
        if its != ours:
            raise StgTuneError(
                f"the preset {preset.name!r} has another {what} ({its}) than the run that was voted on ({ours}): its "
                "votes are no evidence for it"
            )


def _count(item: Tally) -> VoteCount:
    return VoteCount(
        question=item.question,
        wins=item.wins,
        losses=item.losses,
        ties=item.ties,
        voters=item.voters,
        pairs=item.pairs,
        rate=item.rate,
        low=item.low,
        high=item.high,
        level=item.level,
    )
