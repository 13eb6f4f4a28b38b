"""``stg-tune search``: find a setting that makes a model's videos better, and prove it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.cli.output import complain, say, say_json, say_table

if TYPE_CHECKING:
    import argparse

    from stg_tune.tune import Outcome, Request


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("search", help="find the setting that makes a model's videos better")
    parser.add_argument("--model", required=True, metavar="M", help="a name that `stg-tune models` lists")
    parser.add_argument("--model-path", type=Path, metavar="DIR", help="local folder with the model's files")
    parser.add_argument("--space", metavar="F", help="search space: a name or a YAML file (default: the model's own)")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="captions, one a line (default: the model's own, or a general list)",
    )
    parser.add_argument(
        "--budget", default="small", metavar="B", help="small, medium, large, a number of evaluations, or 90m, 2h"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/MODEL-DATE)")
    parser.add_argument("--storage", metavar="URL", help="SQLAlchemy URL (default: SQLite in the folder of the run)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides split, noise, proposals (default: 0)")
    parser.add_argument("--executor", choices=("inline",), default="inline", help="where pairs are evaluated")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Search, or say what would be done."""
    models.entry(arguments.model)  # a wrong name is answered before anything heavy is imported
    from stg_tune.tune import Request

    request = Request(
        model=arguments.model,
        model_path=arguments.model_path,
        space=arguments.space,
        prompts=arguments.prompts,
        budget=arguments.budget,
        seed=arguments.seed,
    )
    if arguments.dry_run:
        return _dry_run(request, as_json=arguments.json)
    directory = arguments.out or Path("runs") / f"{arguments.model}-{datetime.now():%Y%m%d-%H%M%S}"
    return _search(request, directory, arguments)


def _search(request: Request, directory: Path, arguments: argparse.Namespace) -> int:
    from stg_tune.cli.progress import watching
    from stg_tune.tune import tune

    try:
        with watching(quiet=arguments.quiet) as progress:
            outcome = tune(request, directory, storage=arguments.storage, progress=progress)
    except KeyboardInterrupt:
        return say_stopped(directory)
    return say_outcome(outcome, directory, as_json=arguments.json)


def say_stopped(directory: Path) -> int:
    """After Ctrl-C: nothing that was finished is lost."""
    if (directory / "run.json").exists():
        complain(f"stopped; every finished pair is kept. Go on with: stg-tune resume {directory}")
    else:
        complain("stopped before the first pair")
    return 130


def say_outcome(outcome: Outcome, directory: Path, *, as_json: bool) -> int:
    """Verdict, files, and the exit code: 0 when the videos got better, 3 when not."""
    from stg_tune.cli.show import say_findings, summary
    from stg_tune.outcome import findings_of

    findings = findings_of(outcome.result)
    files = {"preset": str(outcome.preset) if outcome.preset else None, "report": str(outcome.report)}
    if as_json:
        say_json({"directory": str(directory), **files, **summary(findings)})
    else:
        say_findings(findings)
        say()
        say(f"preset:    {outcome.preset or 'none, because nothing beat the default'}")
        say(f"dashboard: {outcome.report}")
    return 0 if outcome.improved else 3


def _dry_run(request: Request, *, as_json: bool) -> int:
    from stg_tune.search import preview
    from stg_tune.tune import draft_plan, scorer_for

    entry = models.entry(request.model)
    plan = draft_plan(request, entry)(scorer_for(entry))
    division = preview(plan)
    if as_json:
        say_json({"model": plan.model, "evaluations": division.total, "stages": division.stages()})
        return 0
    say_table(("STAGE", "EVALUATIONS"), [(stage, f"{count:11}") for stage, count in division.stages().items()])
    say(f"\n{division.total} evaluations of one video each, {plan.num_steps} steps, {len(plan.scorers)} scorers;")
    say(f"{division.search_pairs} search pairs, {division.holdout_pairs} held-out pairs")
    return 0
