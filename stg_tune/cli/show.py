"""``stg-tune show`` and ``status``: state, best so far, held-out evidence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune.cli.output import say, say_json, say_table
from stg_tune.cli.sparkline import lines_for_terminal

if TYPE_CHECKING:
    import argparse

    from stg_tune.report import Findings, Gain
    from stg_tune.search import SearchResult
    from stg_tune.serve import RunState


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("show", aliases=["status"], help="state of a run, best so far, held-out evidence")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look at the run without disturbing it."""
    from stg_tune.cli.vote import say_votes
    from stg_tune.outcome import findings_of
    from stg_tune.search import snapshot
    from stg_tune.serve.state import read_state

    result = snapshot(arguments.directory)
    findings, state = findings_of(result), read_state(arguments.directory)
    if arguments.json:
        counts = {"evaluations": result.spent, "failures": result.failures}
        say_json({**state.to_dict(), **counts, **summary(findings), "fidelity": check_of(result)})
        return 0
    say(f"{findings.model}: {_where(state)}, {result.spent} evaluations, {result.failures} failed")
    if state.message:
        say(state.message)
    say_check(result)
    say()
    say_findings(findings)
    for line in ("", *lines_for_terminal(findings)) if findings.layers else ():
        say(line)
    say_votes(arguments.directory)
    return 0


def say_findings(findings: Findings) -> None:
    """Verdict in words, then each scorer; before there is one, the best setting so far."""
    from stg_tune.report import facts

    verdict = facts.verdict(findings)
    say(verdict.headline)
    for sentence in verdict.sentences:
        say(f"  {sentence}")
    if findings.finished:
        for warning in findings.warnings:
            say(f"  Before you believe it: {warning}")
    else:
        _say_best(findings)
    if findings.scorers:
        say()
        rows = [
            (row.name, f"{row.baseline:.4g}", f"{row.tuned:.4g}", f"{row.gain.mean:+.3g}", row.judgement, row.unit)
            for row in facts.scorer_rows(findings)
        ]
        say_table(("SCORER", "DEFAULT", "TUNED", "GAIN", "JUDGEMENT", "UNIT"), rows)


def summary(findings: Findings) -> dict[str, Any]:
    """The evidence as plain data."""
    conclusions = {"conclusion": findings.tuned_gain, "stg_conclusion": findings.stg_gain}
    gains = {"gain": findings.tuned_gain, "cfg_gain": findings.cfg_gain, "stg_gain": findings.stg_gain}
    return {
        "model": findings.model,
        "finished": findings.finished,
        "improved": findings.improved,
        "reason": findings.reason or None,
        **{name: gain.conclusion if gain else None for name, gain in conclusions.items()},
        "margin": findings.tuned_gain.margin if findings.tuned_gain else None,
        "price": findings.price,
        "spec": findings.tuned.to_dict() if findings.tuned else None,
        **{name: _plain(gain) for name, gain in gains.items()},
        "scorers": {
            item.name: {"default": item.baseline, "tuned": item.tuned, "gain": _plain(item.gain)}
            for item in findings.scorers
        },
        "broken_guards": list(findings.broken),
        "warnings": list(findings.warnings),
        "guards": {
            item.name: {"limit": item.limit, "state": item.state, "value": _plain(item.value)}
            for item in findings.guards
        },
    }


def check_of(result: SearchResult) -> dict[str, Any] | None:
    """What the check of a cheaper fidelity has found, as plain data."""
    return result.check.to_dict() if result.check else None


def say_check(result: SearchResult) -> None:
    """The fidelity of screen and trials, where it was left open; what is wrong with the held-out prompts."""
    if result.verdict is not None and result.verdict.warning:
        say(f"warning: {result.verdict.warning}")
    if result.check is not None:
        say(f"fidelity of screen and trials: {result.check.fidelity}; {result.check.reason}")


def _say_best(findings: Findings) -> None:
    from stg_tune.report import facts

    points = [point for point in facts.history_facts(findings) if point.counts]
    if points:
        best = max(points, key=lambda point: point.gain)
        say(f"  Best so far, on the pairs that chose it: {best.gain:+.2f} ({best.pairs} pairs), {best.label}")


def _plain(gain: Gain | None) -> dict[str, Any] | None:
    if gain is None:
        return None
    ends = {"low": gain.low, "high": gain.high}
    finite = {name: value if math.isfinite(value) else None for name, value in {"mean": gain.mean, **ends}.items()}
    return {**finite, "pairs": gain.pairs, "level": gain.level}


def _where(state: RunState) -> str:
    """``running (search, 4:10 left)``, ``finished``."""
    from stg_tune.cli.progress import left

    if state.status != "running":
        return state.status
    parts = [part for part in (state.stage, left(state.seconds_left)) if part]
    return f"running ({', '.join(parts)})" if parts else state.status
