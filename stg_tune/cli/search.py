"""``stg-tune search``: find a setting that makes a model's videos better, and prove it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.cli.lora import add_loras
from stg_tune.cli.output import complain, say, say_json, say_table
from stg_tune.cli.stopping import code_of, held, terminable

if TYPE_CHECKING:
    import argparse

    from stg_tune.search.estimate import Estimate
    from stg_tune.search.workers.placement import Layout, Placement
    from stg_tune.tune import Outcome, Request


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("search", help="find the setting that makes a model's videos better")
    parser.add_argument("--model", required=True, metavar="M", help="a name that `stg-tune models` lists")
    parser.add_argument("--model-path", type=Path, metavar="DIR", help="local folder with the model's files")
    add_loras(parser)
    parser.add_argument("--space", metavar="F", help="search space: a name or a YAML file (default: the model's own)")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="captions, one a line (default: the model's own, or a general list)",
    )
    parser.add_argument(
        "--budget",
        default="small",
        metavar="B",
        help="small, medium, large, a number of evaluations, a time (90m, 2h), or hours of all workers or "
        "GPUs together (16wh, 16gpuh)",
    )
    parser.add_argument(
        "--objective",
        metavar="O",
        help="quality, or cost=0.1: a setting loses 0.1 baseline standard deviations for the denoiser work of each "
        "further default video that it spends (default: what the space says, as a rule quality)",
    )
    parser.add_argument(
        "--fidelity",
        choices=("full", "auto"),
        default="full",
        help="auto: screen and trials with half of the denoising steps, if a check before them finds that these rank "
        "settings alike; held-out evidence is always full (default: full)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/MODEL-DATE)")
    parser.add_argument("--storage", metavar="URL", help="SQLAlchemy URL (default: SQLite in the folder of the run)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides split, noise, proposals (default: 0)")
    parser.add_argument(
        "--warm-start",
        action="append",
        default=[],
        metavar="P",
        help="preset to try first, a file or a published name; one for other depths is carried over by relative depth "
        "(may be repeated)",
    )
    add_scorers(parser)
    add_placement(parser)
    add_batch(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be done and, from three timed evaluations, what it costs",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def add_scorers(parser: argparse.ArgumentParser) -> None:
    """The options about the files of the scorers of real models."""
    parser.add_argument(
        "--fast", action="store_true", help="scorers with a smaller CLIP: a twentieth of the cost, other numbers"
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="local folder with the scorers' files")


def add_placement(parser: argparse.ArgumentParser) -> None:
    """The options that say where pairs are evaluated."""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that evaluate, each with its own model (default: one a GPU, else one a core that memory is "
        "enough for)",
    )
    parser.add_argument(
        "--executor",
        choices=("ray", "inline"),
        help="inline: in this process, which an evaluation that crashes takes along (default: ray, but inline for one "
        "worker of an embedded model)",
    )
    parser.add_argument("--ray-address", metavar="A", help="Ray cluster to work on, host:port or auto")
    parser.add_argument("--gpus-per-worker", type=float, metavar="G", help="a fraction lets workers share a GPU")
    parser.add_argument("--cpus-per-worker", type=float, metavar="C", help="cores, and threads, of one worker")


def add_batch(parser: argparse.ArgumentParser) -> None:
    """The option that says how many pairs a worker takes at once."""
    parser.add_argument(
        "--batch",
        type=int,
        metavar="B",
        help="videos of one setting that a worker makes at once (default: the model's own, 1 for large models)",
    )


def placement_of(arguments: argparse.Namespace) -> Placement:
    """What ``add_placement`` has read."""
    from stg_tune.search.workers.placement import Placement

    return Placement(
        executor=arguments.executor,
        workers=arguments.workers,
        address=arguments.ray_address,
        gpus=arguments.gpus_per_worker,
        cpus=arguments.cpus_per_worker,
        batch=getattr(arguments, "batch", 1),  # commands without the option take pair by pair
    )


def run(arguments: argparse.Namespace) -> int:
    """Search, or say what would be done."""
    models.entry(arguments.model)  # a wrong name is answered before anything heavy is imported
    from stg_tune.tune import Request

    request = Request(
        model=arguments.model,
        model_path=arguments.model_path,
        loras=tuple(arguments.lora),
        space=arguments.space,
        prompts=arguments.prompts,
        budget=arguments.budget,
        seed=arguments.seed,
        objective=arguments.objective,
        fidelity=arguments.fidelity,
        warm_starts=tuple(arguments.warm_start),
        fast=arguments.fast,
        weights=arguments.weights,
        placement=placement_of(arguments),
    )
    if arguments.dry_run:
        return _dry_run(request, as_json=arguments.json)
    directory = arguments.out or Path("runs") / f"{arguments.model}-{datetime.now():%Y%m%d-%H%M%S}"
    return _search(request, directory, arguments)


def _search(request: Request, directory: Path, arguments: argparse.Namespace) -> int:
    from stg_tune.cli.progress import watching
    from stg_tune.tune import tune

    try:
        with terminable(), watching(quiet=arguments.quiet) as progress:
            outcome = tune(request, directory, storage=arguments.storage, progress=held(progress))
    except KeyboardInterrupt as stop:
        return say_stopped(directory, stop)
    return say_outcome(outcome, directory, as_json=arguments.json)


def say_stopped(directory: Path, stop: KeyboardInterrupt) -> int:
    """After Ctrl-C or SIGTERM: nothing that was finished is lost."""
    if (directory / "run.json").exists():
        complain(f"stopped; every finished pair is kept. Go on with: stg-tune resume {directory}")
    else:
        complain("stopped before the first pair")
    return code_of(stop)


def say_outcome(outcome: Outcome, directory: Path, *, as_json: bool) -> int:
    """Verdict, files, and the exit code: 0 when the videos got better, 3 when not."""
    from stg_tune.cli.show import check_of, say_check, say_findings, summary
    from stg_tune.outcome import findings_of

    findings = findings_of(outcome.result)
    files = {"preset": str(outcome.preset) if outcome.preset else None, "report": str(outcome.report)}
    if as_json:
        files["set_aside"] = str(outcome.set_aside) if outcome.set_aside else None
        fidelity = {"fidelity": check_of(outcome.result)}
        say_json({"directory": str(directory), **files, **summary(findings), **fidelity})
    else:
        say_findings(findings)
        say_check(outcome.result)
        say()
        say(f"preset:    {outcome.preset or 'none, because nothing was proved better than the default'}")
        if outcome.set_aside:
            say(f"           the earlier one is now {outcome.set_aside}")
        say(f"dashboard: {outcome.report}")
    return 0 if outcome.improved else 3


def _dry_run(request: Request, *, as_json: bool) -> int:
    from stg_tune.search.driver import outlook
    from stg_tune.search.holdout import holdout_of
    from stg_tune.tune import dry_run

    plan, layout, cost = dry_run(request)
    if as_json:
        say_json({"model": plan.model, "evaluations": cost.division.total, **_cost(cost, layout)})
        return 0
    division = cost.division
    say_table(("STAGE", "EVALUATIONS"), [(stage, f"{count:11}") for stage, count in division.stages().items()])
    say(f"\n{division.total} evaluations of one video each, {plan.num_steps} steps, {len(plan.scorers)} scorers;")
    say(f"{division.search_pairs} search pairs, {division.holdout_pairs} held-out pairs")
    warning = holdout_of(plan, division).first(division.confirm).warning
    if warning:
        say(f"warning: {warning}")
    if plan.fidelity != "full":
        say(outlook(plan, division))
    where = f"Ray cluster at {layout.address}" if layout.address else "this machine"
    say(f"\ntimed here: {cost.timing.plain:.2f} s with the default, {cost.timing.guided:.2f} s with one skipped layer")
    say(f"{layout.workers or 'all possible'} workers ({layout.executor}) on {where}")
    say(f"about {_span(cost.seconds)} of time, {_span(cost.worker_seconds)} of work{_gpu_hours(cost, layout)}")
    return 0


def _cost(cost: Estimate, layout: Layout) -> dict[str, Any]:
    return {
        "stages": cost.division.stages(),
        "workers": cost.workers,
        "executor": layout.executor,
        "seconds_plain": cost.timing.plain,
        "seconds_guided": cost.timing.guided,
        "seconds": cost.seconds,
        "worker_seconds": cost.worker_seconds,
        "gpu_hours": cost.worker_seconds * (layout.gpus or 0.0) / 3600,
    }


def _gpu_hours(cost: Estimate, layout: Layout) -> str:
    return f", {cost.worker_seconds * layout.gpus / 3600:.1f} hours of GPUs" if layout.gpus else ""


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
