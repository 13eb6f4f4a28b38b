"""From the folder of a run to its page, and from several folders to one page that compares them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.outcome.effects import read_effects
from stg_tune.outcome.findings import findings_of
from stg_tune.outcome.keeping import preset_of
from stg_tune.report import Ballot, Clip, Findings, Knob, write_comparison, write_report
from stg_tune.search import snapshot
from stg_tune.vote import VoteFile, tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec, Pair
    from stg_tune.search import SearchPlan
    from stg_tune.search.race import Finalist, Race
    from stg_tune.search.result import SearchResult


CLIPS = 8
"""Held-out pairs that are filmed with the default and with the tuned setting."""
MOST_PUBLISHED, MOST_FINALISTS = 2, 2
"""Published settings, and finalists that came next after the winner, that are filmed as well."""
ASPECTS = {"prompt": "prompt match"}
"""Questions of the vote whose names do not speak for themselves."""


def report(
    directory: Path,
    out: Path | None = None,
    *,
    assets: bool = False,
    shrink: Callable[[Path], bytes] | None = None,
) -> Path:
    """Write the dashboard of a run, finished or not.

    Args:
        directory: Folder of the run.
        out: The HTML file; default ``DIR/report.html``.
        assets: Put the videos beside the page instead of into it.
        shrink: Makes a smaller MP4 of a clip that would not fit into the page.

    Raises:
        StgTuneError: No run, a damaged one, or a place that cannot be written.
    """
    target, findings = out or RunFolder.open(directory).report, look(directory)
    _warn_of_missing(findings, directory)
    return write_report(findings, target, assets=assets, shrink=shrink)


def _warn_of_missing(findings: Findings, directory: Path) -> None:
    missing = CLIPS - len(findings.clips)
    if findings.finished and findings.tuned is not None and missing > 0:
        warnings.warn(
            f"the videos of {missing} of {CLIPS} pairs are missing from the page: `stg-tune resume {directory}` makes "
            "them",
            UserWarning,
            stacklevel=3,
        )


def comparison(directories: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page that lays the runs over each other; default ``comparison.html`` in the first folder.

    Raises:
        StgTuneError: As for ``report``.
    """
    runs = [findings_of(snapshot(directory)) for directory in directories]
    return write_comparison(runs, out or directories[0] / "comparison.html")


def look(directory: Path) -> Findings:
    """Everything that is known of a run, finished or not; nothing is evaluated and its driver is not disturbed."""
    from stg_tune.search.importance import importances
    from stg_tune.search.stored import rows_of

    folder, result = RunFolder.open(directory), snapshot(directory)
    preset = preset_of(folder.preset, result.verdict)
    return findings_of(
        result,
        rows=rows_of(directory),
        clips=_clips(folder, result),
        preset=preset.to_dict() if preset else None,
        exports=tuple(_exports(preset)) if preset else (),
        votes=_votes(folder, result),
        effect_steps=read_effects(folder.effects, result.verdict.winner) if result.verdict else {},
        knobs=[Knob(name=item.name, share=item.share, chance=item.chance) for item in importances(result)],
    )


def filmed_pairs(plan: SearchPlan) -> tuple[Pair, ...]:
    """The last held-out pairs: no stage has chosen anything by them."""
    return plan.holdout_pairs[-CLIPS:]


def filmed_settings(result: SearchResult) -> dict[str, GuidanceSpec]:
    """What the filmed pairs are filmed with: word of the page -> setting, each once, default and winner first."""
    plan, verdict = result.plan, result.verdict
    if verdict is None:
        return {}
    named = {"default": plan.baseline, "tuned": verdict.winner, "CFG alone": verdict.best_cfg}
    named |= {f"published: {name}": spec for name, spec in list(plan.published.items())[:MOST_PUBLISHED]}
    known = {spec.hash() for spec in named.values()}
    others = [item for item in _ranked(result.race) if item.config not in known]
    named |= {f"finalist: {item.name}": item.spec for item in others[:MOST_FINALISTS]}
    first = {spec.hash(): name for name, spec in reversed(named.items())}
    return {name: spec for name, spec in named.items() if first[spec.hash()] == name}


def _ranked(race: Race | None) -> list[Finalist]:
    """Who raced, best first: those that left last before those that left earlier; without heats by what chose them."""
    if race is None:
        return []
    names = dict.fromkeys(name for heat in reversed(race.heats) for name in heat.standing)
    by_name = {item.name: item for item in race.finalists}
    rest = sorted(race.finalists, key=lambda item: item.in_sample.mean, reverse=True)
    return list({item.name: item for item in (*(by_name[name] for name in names if name in by_name), *rest)}.values())


def clip_of(folder: RunFolder, plan: SearchPlan, pair: Pair, spec: GuidanceSpec) -> Path:
    """Where the video of a pair with a setting is."""
    return folder.clip(pair, "default" if spec.hash() == plan.baseline.hash() else f"tuned-{spec.hash()}")


def _clips(folder: RunFolder, result: SearchResult) -> list[Clip]:
    """The pairs that were filmed with default and winner, and with what else there is."""
    plan, settings = result.plan, filmed_settings(result)
    clips: list[Clip] = []
    if not settings:
        return clips
    for pair in filmed_pairs(plan):
        paths = {name: clip_of(folder, plan, pair, spec) for name, spec in settings.items()}
        there = {name: path for name, path in paths.items() if path.exists()}
        if there.keys() >= {"default", "tuned"}:
            default, tuned = there.pop("default"), there.pop("tuned")
            clips.append(Clip(prompt=pair.prompt, seed=pair.seed, baseline=default, tuned=tuned, others=there))
    return clips


def _exports(preset: Preset) -> Iterator[tuple[str, str]]:
    """The commands for the tools that can carry the preset; where something is lost, the command has to say so."""
    from stg_tune.export import export, targets

    for target in targets():
        if preset.family not in target.families:
            continue
        try:
            losses = export(preset, target.name, lossy=True).losses
        except StgTuneError:
            continue
        lossy, words = (" --lossy", ", with losses that the command names") if losses else ("", "")
        out = f"for-{target.name}{target.suffix}"
        yield f"{target.tool}{words}", f"stg-tune export preset.json --to {target.name}{lossy} -o {out}"


def _votes(folder: RunFolder, result: SearchResult) -> tuple[Ballot, ...]:
    """What people said about default and winner in ``DIR/votes.json``."""
    if result.verdict is None:
        return ()
    votes = VoteFile(folder.path / "votes.json").votes()
    found: Any = tally(votes, "default", f"tuned-{result.verdict.winner.hash()}")
    return tuple(
        Ballot(
            aspect=ASPECTS.get(item.question, item.question),
            wins=item.wins,
            ties=item.ties,
            losses=item.losses,
            rate=item.rate,
            low=item.low,
            high=item.high,
            voters=item.voters,
        )
        for item in found
    )
